//! The little of RFC 1035 that the hot path needs: the header, one question, walking over records,
//! and a fixed buffer for a reply.
//!
//! Nothing here allocates and nothing trusts a length from the packet. What it must not do: decide
//! anything.

/// Length of the header.
pub(crate) const HEADER: usize = 12;
/// Longest name in wire form, its root label included (RFC 1035 section 2.3.4).
pub(crate) const MAX_NAME: usize = 255;
/// Payload size of UDP that we announce: one that crosses every path unfragmented (the DNS flag day
/// 2020 value).
pub(crate) const EDNS_PAYLOAD: u16 = 1232;
/// What a client without EDNS takes over UDP.
pub(crate) const CLASSIC_PAYLOAD: u16 = 512;

/// Bits of the second header word.
pub(crate) mod flag {
    pub(crate) const QR: u16 = 0x8000;
    pub(crate) const OPCODE: u16 = 0x7800;
    pub(crate) const AA: u16 = 0x0400;
    pub(crate) const TC: u16 = 0x0200;
    pub(crate) const RD: u16 = 0x0100;
    pub(crate) const RA: u16 = 0x0080;
    pub(crate) const CD: u16 = 0x0010;
    pub(crate) const RCODE: u16 = 0x000f;
}

/// Response codes that we give or look at.
pub(crate) mod rcode {
    pub(crate) const FORMERR: u16 = 1;
    pub(crate) const SERVFAIL: u16 = 2;
    pub(crate) const NOTIMP: u16 = 4;
    pub(crate) const REFUSED: u16 = 5;
    /// The extended code BADVERS is 16: its low four bits are zero and its high eight bits stand in
    /// the OPT record.
    pub(crate) const BADVERS_HIGH: u8 = 1;
}

/// Record types and classes that we treat differently.
pub(crate) mod code {
    pub(crate) const A: u16 = 1;
    pub(crate) const SOA: u16 = 6;
    pub(crate) const PTR: u16 = 12;
    pub(crate) const AAAA: u16 = 28;
    pub(crate) const OPT: u16 = 41;
    pub(crate) const IXFR: u16 = 251;
    pub(crate) const AXFR: u16 = 252;
    pub(crate) const ANY: u16 = 255;
    pub(crate) const CLASS_IN: u16 = 1;
    pub(crate) const CLASS_CHAOS: u16 = 3;
}

/// A message that ends too early or breaks a rule of its form.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Malformed;

/// The header.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Header {
    pub(crate) id: u16,
    pub(crate) flags: u16,
    /// Entries in the question, answer, authority and additional section.
    pub(crate) counts: [u16; 4],
}

impl Header {
    /// The header of `message`, or `None` if it is shorter than one.
    pub(crate) fn read(message: &[u8]) -> Option<Self> {
        let bytes: &[u8; HEADER] = message.first_chunk()?;
        let word = |at: usize| u16::from_be_bytes([bytes[at], bytes[at + 1]]);
        Some(Self { id: word(0), flags: word(2), counts: [word(4), word(6), word(8), word(10)] })
    }

    pub(crate) fn is_response(&self) -> bool {
        self.flags & flag::QR != 0
    }

    pub(crate) fn opcode(&self) -> u16 {
        self.flags & flag::OPCODE
    }

    pub(crate) fn rcode(&self) -> u16 {
        self.flags & flag::RCODE
    }
}

/// A name in wire form and lower case, without compression.
#[derive(Clone, Copy)]
pub(crate) struct LowerName {
    bytes: [u8; MAX_NAME],
    len: u8,
    labels: u8,
}

impl LowerName {
    /// The wire form, its root label included.
    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }

    /// Number of labels, the root not counted.
    pub(crate) fn labels(&self) -> u8 {
        self.labels
    }
}

/// The first question of a message.
pub(crate) struct RawQuestion {
    pub(crate) name: LowerName,
    pub(crate) kind: u16,
    pub(crate) class: u16,
    /// Where the question ends in the message; it starts after the header.
    pub(crate) end: usize,
}

impl RawQuestion {
    /// The question that follows the header. A compressed name is malformed: there is nothing
    /// before it to point at.
    pub(crate) fn read(message: &[u8]) -> Result<Self, Malformed> {
        let mut name = LowerName { bytes: [0; MAX_NAME], len: 0, labels: 0 };
        let mut at = HEADER;
        loop {
            let len = usize::from(*message.get(at).ok_or(Malformed)?);
            if len > 63 {
                return Err(Malformed);
            }
            let label = message.get(at..=at + len).ok_or(Malformed)?;
            let used = at - HEADER;
            // Lengths are below 64 and therefore not upper-case letters, so the whole label is
            // lowered in one go.
            let room = name.bytes.get_mut(used..used + label.len()).ok_or(Malformed)?;
            room.copy_from_slice(label);
            room.make_ascii_lowercase();
            at += label.len();
            if len == 0 {
                break;
            }
            name.labels += 1;
        }
        name.len = u8::try_from(at - HEADER).map_err(|_| Malformed)?;
        let tail: &[u8; 4] =
            message.get(at..).and_then(|rest| rest.first_chunk()).ok_or(Malformed)?;
        let kind = u16::from_be_bytes([tail[0], tail[1]]);
        let class = u16::from_be_bytes([tail[2], tail[3]]);
        Ok(Self { name, kind, class, end: at + 4 })
    }
}

/// The type that the first question asks for, without a look at anything else.
pub(crate) fn asked_type(message: &[u8]) -> Option<u16> {
    let mut at = HEADER;
    while let label @ 1..=63 = usize::from(*message.get(at)?) {
        at += 1 + label;
    }
    let rest = message.get(at..at + 3)?;
    (rest[0] == 0).then(|| u16::from_be_bytes([rest[1], rest[2]]))
}

/// What an OPT record says (RFC 6891).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Edns {
    pub(crate) payload: u16,
    pub(crate) version: u8,
    pub(crate) dnssec_ok: bool,
}

/// Walks over every record from `at` on and returns the OPT record among the additional ones. More
/// than one, or one with a name, is malformed (RFC 6891 section 6.1.1). Bytes after the last record
/// are not looked at.
pub(crate) fn edns(message: &[u8], at: usize, header: &Header) -> Result<Option<Edns>, Malformed> {
    let mut at = at;
    for _ in 0..u32::from(header.counts[1]) + u32::from(header.counts[2]) {
        at = skip_record(message, at)?.1;
    }
    let mut found = None;
    for _ in 0..header.counts[3] {
        let (fixed, end) = skip_record(message, at)?;
        let fields: &[u8; 10] =
            message.get(fixed..).and_then(|rest| rest.first_chunk()).ok_or(Malformed)?;
        if u16::from_be_bytes([fields[0], fields[1]]) == code::OPT {
            if found.is_some() || fixed != at + 1 {
                return Err(Malformed);
            }
            let payload = u16::from_be_bytes([fields[2], fields[3]]);
            found = Some(Edns { payload, version: fields[5], dnssec_ok: fields[6] & 0x80 != 0 });
        }
        at = end;
    }
    Ok(found)
}

/// Steps over one record: where its fixed part (type, class, TTL, length) starts, and where it
/// ends.
fn skip_record(message: &[u8], at: usize) -> Result<(usize, usize), Malformed> {
    let fixed = skip_name(message, at)?;
    let fields: &[u8; 10] =
        message.get(fixed..).and_then(|rest| rest.first_chunk()).ok_or(Malformed)?;
    let end = fixed + 10 + usize::from(u16::from_be_bytes([fields[8], fields[9]]));
    if end > message.len() { Err(Malformed) } else { Ok((fixed, end)) }
}

/// Steps over a name. It ends at its first pointer, which is not followed, hence there is no loop;
/// but it must point backwards.
fn skip_name(message: &[u8], start: usize) -> Result<usize, Malformed> {
    let mut at = start;
    loop {
        let len = usize::from(*message.get(at).ok_or(Malformed)?);
        match len {
            0 => return Ok(at + 1),
            1..=63 => at += 1 + len,
            192..=255 => {
                let low = usize::from(*message.get(at + 1).ok_or(Malformed)?);
                let target = (len & 0x3f) << 8 | low;
                return if (HEADER..start).contains(&target) { Ok(at + 2) } else { Err(Malformed) };
            }
            _ => return Err(Malformed),
        }
        if at - start >= MAX_NAME {
            return Err(Malformed);
        }
    }
}

/// Whether every record of a message is where the counts say.
pub(crate) fn is_well_formed(message: &[u8], at: usize, header: &Header) -> bool {
    let records: u32 = header.counts[1..].iter().map(|count| u32::from(*count)).sum();
    let mut at = at;
    (0..records).all(|_| skip_record(message, at).map(|(_, end)| at = end).is_ok())
}

/// A reply of ours under construction. The largest is 8 real v6 addresses of the longest name:
/// header 12, question 255 + 4, 8 records of 12 + 16, OPT 11, together 506 bytes. Hence none is
/// ever truncated, EDNS or not.
pub struct Reply {
    bytes: [u8; Self::CAPACITY],
    len: usize,
}

impl Reply {
    /// Room for any reply of ours, and what every client takes.
    const CAPACITY: usize = CLASSIC_PAYLOAD as usize;

    /// An empty one. Make it once and use it again: each answer starts over.
    pub fn new() -> Self {
        Self { bytes: [0; Self::CAPACITY], len: 0 }
    }

    /// The message.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }

    pub(crate) fn clear(&mut self) {
        self.len = 0;
    }

    /// Appends bytes. The builder's sums prove that they fit; should one be wrong, the reply is cut
    /// and not the process.
    pub(crate) fn push(&mut self, bytes: &[u8]) {
        debug_assert!(
            self.len + bytes.len() <= Self::CAPACITY,
            "a reply of ours outgrew its buffer"
        );
        let room = &mut self.bytes[self.len..];
        let take = bytes.len().min(room.len());
        room[..take].copy_from_slice(&bytes[..take]);
        self.len += take;
    }

    pub(crate) fn push_u16(&mut self, value: u16) {
        self.push(&value.to_be_bytes());
    }

    pub(crate) fn push_u32(&mut self, value: u32) {
        self.push(&value.to_be_bytes());
    }

    /// Sets the count of a section (0 question to 3 additional).
    pub(crate) fn set_count(&mut self, section: usize, count: u8) {
        self.bytes[5 + 2 * section] = count;
    }
}

impl Default for Reply {
    fn default() -> Self {
        Self::new()
    }
}
