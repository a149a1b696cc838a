//! Adversarial queries, made from a seed.

use rand::{Rng, RngExt as _, SeedableRng as _, rngs::SmallRng, seq::IndexedRandom as _};

/// Makes queries about the names of a zone.
pub(crate) struct Queries {
    random: SmallRng,
    /// Exact names and the suffixes of wildcards.
    names: Vec<String>,
}

const TYPES: &[u16] =
    &[1, 1, 1, 28, 28, 12, 255, 65, 64, 6, 2, 5, 15, 16, 33, 41, 251, 252, 0, 999];
/// Octets that look like lengths, digits, hyphens and letters, and those that are none.
const ODD: &[u8] = b"\0\x01\x03\x2d\x2e\x30\x39\x3f\x40\x41\x5a\x5b\x61\x7a\x7f\x80\xc0\xff*_";

impl Queries {
    pub(crate) fn new(seed: u64, names: Vec<String>) -> Self {
        Self { random: SmallRng::seed_from_u64(seed), names }
    }

    fn one_in(&mut self, number: u32) -> bool {
        self.random.random_range(0..number) == 0
    }

    /// A random message, most of the time a query.
    pub(crate) fn next(&mut self) -> Vec<u8> {
        let name = self.name();
        let mut message = self.header();
        message.extend(name);
        let record_type = *TYPES.choose(&mut self.random).unwrap();
        message.extend(record_type.to_be_bytes());
        let class: u16 = if self.one_in(30) {
            *[0, 3, 254, 255, 256].choose(&mut self.random).unwrap()
        } else {
            1
        };
        message.extend(class.to_be_bytes());
        self.additional(&mut message);
        self.damage(&mut message);
        message
    }

    fn header(&mut self) -> Vec<u8> {
        let mut header = vec![0; 12];
        self.random.fill_bytes(&mut header[..2]);
        let flags = [0x0100, 0x0120, 0x0110, 0x0000, 0x0130];
        let mut flags: u16 = *flags.choose(&mut self.random).unwrap();
        if self.one_in(25) {
            flags = self.random.random();
        }
        header[2..4].copy_from_slice(&flags.to_be_bytes());
        header[5] = 1;
        if self.one_in(40) {
            let at = self.random.random_range(4..12);
            header[at] = self.random.random_range(0..3);
        }
        header
    }

    /// A name in wire form, in any case.
    fn name(&mut self) -> Vec<u8> {
        let mut name = match self.random.random_range(0..12) {
            0..4 => self.published(),
            4..7 => self.below(),
            7 => self.pointer4(),
            8 => self.pointer6(),
            9 => self.longest(),
            10 => self.lookalike(),
            _ => self.labels(5),
        };
        if self.one_in(3) {
            for octet in &mut name {
                if self.random.random() {
                    *octet = octet.to_ascii_uppercase();
                }
            }
        }
        name
    }

    fn published(&mut self) -> Vec<u8> {
        let name = self.names.choose(&mut self.random).unwrap();
        wire(name)
    }

    /// A name below a published one.
    fn below(&mut self) -> Vec<u8> {
        let base = self.published();
        let mut name = self.labels(3);
        name.pop();
        name.extend(base);
        name
    }

    /// Some random labels and the root.
    fn labels(&mut self, most: usize) -> Vec<u8> {
        let mut name = Vec::new();
        for _ in 0..self.random.random_range(1..=most) {
            let length = match self.random.random_range(0..6) {
                0 => 63,
                1 => self.random.random_range(45..58),
                _ => self.random.random_range(1..12),
            };
            name.push(length);
            for _ in 0..length {
                let octet = if self.one_in(8) {
                    *ODD.choose(&mut self.random).unwrap()
                } else {
                    self.random.random_range(b'a'..=b'z')
                };
                name.push(octet);
            }
        }
        name.push(0);
        name
    }

    /// A name whose label has a published suffix inside of it.
    fn lookalike(&mut self) -> Vec<u8> {
        let mut base = self.published();
        let cut = self.random.random_range(0..base.len().min(4));
        base.drain(..cut);
        let mut name = self.labels(2);
        name.pop();
        name.extend(base);
        if self.one_in(2)
            && let Some(octet) = name.first_mut()
        {
            *octet = octet.wrapping_add(self.random.random_range(1..6)) & 0x3f;
        }
        name
    }

    /// Names of 255 octets, or about as many.
    fn longest(&mut self) -> Vec<u8> {
        let base = self.published();
        let room = 255 - base.len().min(250);
        let mut name = Vec::new();
        let step = *[2, 3, 64].choose(&mut self.random).unwrap();
        while name.len() + step <= room {
            name.push(step as u8 - 1);
            name.extend(std::iter::repeat_n(b'x', step - 1));
        }
        if self.one_in(2) && room - name.len() >= 2 {
            let rest = room - name.len() - 1;
            name.push(rest as u8);
            name.extend(std::iter::repeat_n(b'y', rest));
        }
        if self.one_in(4) {
            name.extend(b"\x01z");
        }
        name.extend(base);
        name
    }

    fn pointer4(&mut self) -> Vec<u8> {
        let mut octets: [u8; 4] = [198, 18, 0, self.random.random_range(0..40)];
        if self.one_in(4) {
            octets[self.random.random_range(0..4)] = self.random.random();
        }
        let mut labels: Vec<String> = octets.iter().rev().map(u8::to_string).collect();
        if self.one_in(6) {
            let odd = ["", "00", "01", "256", "1000", "a", "0x1", "99", "-1", "2 "];
            let label = self.random.random_range(0..labels.len());
            labels[label] = (*odd.choose(&mut self.random).unwrap()).to_owned();
        }
        self.change_count(&mut labels);
        let zone = ["in-addr.arpa", "in-addr.arpa", "in-addr.arpa", "in-addr.arp", "arpa"];
        let zone = zone.choose(&mut self.random).unwrap();
        wire(&format!("{}.{zone}", labels.join(".")))
    }

    fn pointer6(&mut self) -> Vec<u8> {
        let last = self.random.random_range(0..40_u128);
        let mut address = 0xfd00_0018_u128 << 96 | last;
        if self.one_in(4) {
            address ^= 1 << self.random.random_range(0..128);
        }
        let mut labels: Vec<String> =
            (0..32).map(|digit| format!("{:x}", address >> (4 * digit) & 0xf)).collect();
        if self.one_in(6) {
            let odd = ["g", "", "00", "-", "A", "F", "/", ":", "`", "\x7f"];
            let label = self.random.random_range(0..labels.len());
            labels[label] = (*odd.choose(&mut self.random).unwrap()).to_owned();
        }
        self.change_count(&mut labels);
        wire(&format!("{}.ip6.arpa", labels.join(".")))
    }

    fn change_count(&mut self, labels: &mut Vec<String>) {
        if self.one_in(8) {
            labels.pop();
        }
        if self.one_in(8) {
            labels.insert(0, "1".to_owned());
        }
    }

    /// Records of the additional section, and their count.
    fn additional(&mut self, message: &mut Vec<u8>) {
        if self.one_in(2) {
            return;
        }
        message[11] = 1;
        let mut record = vec![0, 0, 41];
        record.extend(self.random.random_range(0..5000_u16).to_be_bytes());
        let version = if self.one_in(15) { self.random.random() } else { 0 };
        let dnssec_ok = if self.one_in(2) { 0x80 } else { self.random.random_range(0..4) };
        record.extend([self.random.random_range(0..2), version, dnssec_ok, 0]);
        let most = if self.one_in(20) { 600 } else { 30 };
        let data = if self.one_in(2) { 0 } else { self.random.random_range(0..most) };
        record.extend(u16::to_be_bytes(data));
        record.extend((0..data).map(|_| self.random.random::<u8>()));
        if self.one_in(25) {
            record[2] = self.random.random();
        }
        if self.one_in(40) {
            record[0] = *[1, 0xc0].choose(&mut self.random).unwrap();
        }
        if self.one_in(40) {
            record[10] = self.random.random();
        }
        message.extend(&record);
        if self.one_in(30) {
            message[11] = 2;
            message.extend(&record);
        }
    }

    /// Truncates, extends or changes a message.
    fn damage(&mut self, message: &mut Vec<u8>) {
        if self.one_in(12) {
            message.truncate(self.random.random_range(0..=message.len()));
        }
        if self.one_in(12) {
            let more = self.random.random_range(1..40);
            message.extend((0..more).map(|_| self.random.random::<u8>()));
        }
        if self.one_in(12) && !message.is_empty() {
            let at = self.random.random_range(0..message.len());
            message[at] = if self.one_in(2) {
                *ODD.choose(&mut self.random).unwrap()
            } else {
                self.random.random()
            };
        }
        if self.one_in(50) && message.len() > 14 {
            // A compression pointer in the question.
            let at = self.random.random_range(12..message.len() - 1);
            message[at] = 0xc0;
            message[at + 1] = 12;
        }
    }
}

/// A name's labels after their lengths; labels may be empty or too long.
pub(crate) fn wire(name: &str) -> Vec<u8> {
    let mut wire = Vec::new();
    for label in name.split('.') {
        wire.push(label.len() as u8);
        wire.extend(label.bytes());
    }
    wire.push(0);
    wire
}
