//! Frames of guests and backends, made from a seed: conversations that make sense, and damaged
//! ones.

use std::net::IpAddr;

use rand::{Rng, RngExt as _, SeedableRng as _, rngs::SmallRng, seq::IndexedRandom as _};

use crate::{
    flow_field::{BACKEND_START, GUEST_START, answer, socket},
    frames::{Ends, framed, ip_header},
    segments::{ACK, FIN, RST, SYN, Segment, error_about},
};

const GUESTS: &[&str] = &["10.61.1.2", "10.61.1.3", "fd61::2"];
/// Of both routes, of none, and addresses outside the pool.
const REMOTES: &[&str] = &[
    "198.18.0.7",
    "198.18.0.7",
    "198.18.0.8",
    "198.18.0.99",
    "203.0.113.7",
    "203.0.113.8",
    "203.0.113.9",
    "fd00:18::7",
    "fd00:18::7",
    "fd00:18::8",
    "fd00:18::63",
    "2001:db8::7",
    "2001:db8::9",
];
const ROUTERS: &[&str] = &["198.51.100.1", "2001:db8:1::1"];
const FLAGS: &[u8] =
    &[SYN, SYN, SYN | ACK, ACK, ACK, ACK, FIN | ACK, FIN, RST, RST | ACK, SYN | FIN, 0, 0xff];
/// Segments to a backend that are remembered, so that it can answer them.
const REMEMBERED: usize = 256;

/// A frame, and whether it is a segment that nothing is wrong with.
pub(crate) struct RandomFrame {
    pub(crate) octets: Vec<u8>,
    pub(crate) is_sound_segment: bool,
}

/// Makes frames.
pub(crate) struct Frames {
    random: SmallRng,
    /// As a backend gets them.
    sent: Vec<Segment>,
}

impl Frames {
    pub(crate) fn new(seed: u64) -> Self {
        Self { random: SmallRng::seed_from_u64(seed), sent: Vec::new() }
    }

    /// A segment has reached its backend, which may answer it later.
    pub(crate) fn remember(&mut self, segment: Segment) {
        if self.sent.len() < REMEMBERED {
            self.sent.push(segment);
        } else {
            let at = self.random.random_range(0..REMEMBERED);
            self.sent[at] = segment;
        }
    }

    pub(crate) fn one_in(&mut self, number: u32) -> bool {
        self.random.random_range(0..number) == 0
    }

    fn pick<T: Copy>(&mut self, of: &[T]) -> T {
        *of.choose(&mut self.random).unwrap()
    }

    /// A frame from a guest.
    pub(crate) fn of_guest(&mut self) -> RandomFrame {
        let segment = self.segment_of_guest();
        self.frame(&segment)
    }

    /// A frame to a guest.
    pub(crate) fn of_backend(&mut self) -> RandomFrame {
        let segment = self.segment_of_backend();
        self.frame(&segment)
    }

    /// The segment, or an ICMP error, or a packet of another protocol; most are as they should be.
    fn frame(&mut self, segment: &Segment) -> RandomFrame {
        let kind = self.random.random_range(0..20);
        let mut octets = match kind {
            0..4 => self.error(segment),
            4 => self.other_protocol(segment),
            _ => segment.frame(),
        };
        let is_damaged = self.one_in(6);
        if is_damaged {
            self.damage(&mut octets);
        }
        RandomFrame { octets, is_sound_segment: kind > 4 && !is_damaged }
    }

    fn segment_of_guest(&mut self) -> Segment {
        let text = self.pick(GUESTS);
        let address: IpAddr = text.parse().unwrap();
        let remote = loop {
            let remote: IpAddr = self.pick(REMOTES).parse().unwrap();
            if remote.is_ipv4() == address.is_ipv4() {
                break remote;
            }
        };
        let guest = (address, 40_000 + self.random.random_range(0..24)).into();
        let port = self.pick(&[443, 443, 443, 80]);
        let flags = self.pick(FLAGS);
        let segment = Segment::new(guest, (remote, port).into(), flags)
            .at(self.near(GUEST_START), self.near(BACKEND_START));
        self.vary(segment)
    }

    /// Most of them answer what a backend got.
    fn segment_of_backend(&mut self) -> Segment {
        let flags = self.pick(FLAGS);
        let known = self.sent.choose(&mut self.random).cloned();
        let segment = match known {
            Some(sent) if !self.one_in(10) => {
                let segment = answer(&sent, flags);
                if self.one_in(3) {
                    segment.at(self.near(BACKEND_START), self.near(GUEST_START))
                } else {
                    segment
                }
            }
            _ => {
                let guest = self.segment_of_guest();
                Segment { source: guest.destination, destination: guest.source, ..guest }
            }
        };
        self.vary(segment)
    }

    /// The start of a connection, a number close to it, or any.
    fn near(&mut self, start: u32) -> u32 {
        match self.random.random_range(0..8) {
            0..4 => start,
            4..7 => start.wrapping_add(self.random.random_range(0..70)),
            _ => self.random.random(),
        }
    }

    /// Options and data.
    fn vary(&mut self, segment: Segment) -> Segment {
        let mut segment = segment;
        if self.one_in(4) {
            segment.options = self.words(10);
        }
        if self.one_in(12) && segment.source.is_ipv4() {
            segment.ip_options = self.words(10);
        }
        if self.one_in(3) {
            segment.data = vec![0; self.random.random_range(0..80)];
            self.random.fill_bytes(&mut segment.data);
        }
        segment
    }

    /// Random octets, in words of four.
    fn words(&mut self, most: usize) -> Vec<u8> {
        let mut words = vec![0; 4 * self.random.random_range(0..=most)];
        self.random.fill_bytes(&mut words);
        words
    }

    /// The sender of the segment, or a router, reports an error about what the segment answers.
    fn error(&mut self, segment: &Segment) -> Vec<u8> {
        let quoted = Segment {
            source: segment.destination,
            destination: segment.source,
            sequence: segment.acknowledgment.wrapping_sub(1),
            ..segment.clone()
        };
        let is_v4 = segment.source.is_ipv4();
        let from = if self.one_in(2) {
            segment.source.ip()
        } else {
            let router = ROUTERS.iter().map(|text| text.parse::<IpAddr>().unwrap());
            router.into_iter().find(|router| router.is_ipv4() == is_v4).unwrap()
        };
        let kinds = if is_v4 { [3, 3, 11, 12, 5] } else { [1, 2, 3, 4, 129] };
        let head = [self.pick(&kinds), self.random.random_range(0..8), 0, 0, 0, 0, 5, 20];
        error_about(from, segment.destination.ip(), head, &quoted)
    }

    fn other_protocol(&mut self, segment: &Segment) -> Vec<u8> {
        let addresses = [segment.source.ip(), segment.destination.ip()];
        let payload = self.words(20);
        let protocol = self.pick(&[0, 1, 6, 17, 43, 44, 47, 50, 58, 60, 132]);
        framed(
            Ends::v4().macs,
            [ip_header(addresses, protocol, &[], payload.len()), payload].concat(),
        )
    }

    /// Changes octets behind the addresses of Ethernet, or the length.
    fn damage(&mut self, frame: &mut Vec<u8>) {
        const ETHERNET: usize = 12;
        match self.random.random_range(0..5) {
            0 => {
                // BPF_PROG_TEST_RUN takes whole IP headers only.
                let least = if frame[12] == 0x08 { 34 } else { 54 };
                frame.truncate(self.random.random_range(least..=frame.len()));
            }
            1 => frame.extend(self.words(8)),
            // The first word of the IP header: version, lengths, fragments' bits.
            2 => {
                let at = self.random.random_range(14..22);
                frame[at] = self.random.random();
            }
            _ => {
                for _ in 0..self.random.random_range(1..4) {
                    let at = self.random.random_range(ETHERNET..frame.len());
                    frame[at] ^= 1 << self.random.random_range(0..8);
                }
            }
        }
    }
}

#[test]
fn frames_of_both_families_and_directions_are_made() {
    let mut frames = Frames::new(1);
    frames.remember(Segment::new(socket("10.61.1.2:40000"), socket("203.0.113.7:443"), SYN));
    for make in [Frames::of_guest, Frames::of_backend] {
        let made: Vec<_> = (0..500).map(|_| make(&mut frames)).collect();
        for protocol in [[0x08, 0x00], [0x86, 0xdd]] {
            assert!(made.iter().filter(|frame| frame.octets[12..14] == protocol).count() > 20);
        }
    }
}
