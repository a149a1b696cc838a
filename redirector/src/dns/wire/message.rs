//! The header and the question of a message.

use std::io;

/// Length of the header, in bytes.
pub(crate) const HEADER_LEN: usize = 12;
/// Longest name in wire form, its root label included, in bytes (RFC 1035 section 2.3.4).
pub(super) const MAX_NAME_LEN: usize = 255;
/// UDP payload size that we announce, in bytes: the DNS flag day 2020 value, which crosses every
/// path unfragmented.
pub(crate) const EDNS_PAYLOAD: u16 = 1232;
/// UDP payload size of a client without EDNS, in bytes.
pub(crate) const CLASSIC_PAYLOAD: u16 = 512;

/// Bits of the second header word.
pub(crate) mod flag {
    pub(crate) const QR: u16 = 0x8000;
    pub(crate) const OPCODE: u16 = 0x7800;
    pub(crate) const AA: u16 = 0x0400;
    pub(crate) const RD: u16 = 0x0100;
    pub(crate) const RA: u16 = 0x0080;
    pub(crate) const CD: u16 = 0x0010;
    pub(crate) const RCODE: u16 = 0x000f;
}

/// Response codes.
pub(crate) mod rcode {
    pub(crate) const FORMERR: u16 = 1;
    pub(crate) const SERVFAIL: u16 = 2;
    pub(crate) const NOTIMP: u16 = 4;
    pub(crate) const REFUSED: u16 = 5;
    /// BADVERS is 16: its low four bits are zero, its high eight bits are in the OPT record.
    pub(crate) const BADVERS_HIGH: u8 = 1;
}

/// Record types.
pub(crate) mod rtype {
    pub(crate) const A: u16 = 1;
    pub(crate) const SOA: u16 = 6;
    pub(crate) const PTR: u16 = 12;
    pub(crate) const AAAA: u16 = 28;
    pub(crate) const OPT: u16 = 41;
    pub(crate) const IXFR: u16 = 251;
    pub(crate) const AXFR: u16 = 252;
    pub(crate) const ANY: u16 = 255;
}

/// Record classes.
pub(crate) mod class {
    pub(crate) const IN: u16 = 1;
    pub(crate) const CHAOS: u16 = 3;
}

/// A message that ends too early or breaks a rule of the format.
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
    /// The header of `message`; `None` if the message is shorter than a header.
    pub(crate) fn parse(message: &[u8]) -> Option<Self> {
        let bytes: &[u8; HEADER_LEN] = message.first_chunk()?;
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
    bytes: [u8; MAX_NAME_LEN],
    len: u8,
    labels: u8,
}

impl LowerName {
    /// The wire form, its root label included.
    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }

    /// Number of labels without the root.
    pub(crate) fn labels(&self) -> u8 {
        self.labels
    }
}

/// The first question of a message.
pub(crate) struct ParsedQuestion {
    pub(crate) name: LowerName,
    pub(crate) qtype: u16,
    pub(crate) class: u16,
    /// Offset in the message of the byte after the question.
    pub(crate) end: usize,
}

impl ParsedQuestion {
    /// The question that follows the header. A compressed name is malformed, since there is no
    /// earlier name.
    pub(crate) fn parse(message: &[u8]) -> Result<Self, Malformed> {
        let mut name = LowerName { bytes: [0; MAX_NAME_LEN], len: 0, labels: 0 };
        let mut at = HEADER_LEN;
        loop {
            let len = usize::from(*message.get(at).ok_or(Malformed)?);
            if len > 63 {
                return Err(Malformed);
            }
            let label = message.get(at..=at + len).ok_or(Malformed)?;
            let used = at - HEADER_LEN;
            let target = name.bytes.get_mut(used..used + label.len()).ok_or(Malformed)?;
            target.copy_from_slice(label);
            // Leaves the length byte unchanged: it is below 64, so it is no upper-case letter.
            target.make_ascii_lowercase();
            at += label.len();
            if len == 0 {
                break;
            }
            name.labels += 1;
        }
        name.len = u8::try_from(at - HEADER_LEN).map_err(|_| Malformed)?;
        let tail: &[u8; 4] =
            message.get(at..).and_then(|rest| rest.first_chunk()).ok_or(Malformed)?;
        let qtype = u16::from_be_bytes([tail[0], tail[1]]);
        let class = u16::from_be_bytes([tail[2], tail[3]]);
        Ok(Self { name, qtype, class, end: at + 4 })
    }
}

/// The type of the first question. Does not check the rest of the message.
pub(crate) fn question_type(message: &[u8]) -> Option<u16> {
    let mut at = HEADER_LEN;
    while let label @ 1..=63 = usize::from(*message.get(at)?) {
        at += 1 + label;
    }
    let rest = message.get(at..at + 3)?;
    (rest[0] == 0).then(|| u16::from_be_bytes([rest[1], rest[2]]))
}

/// The message with its length before it, as over TCP (RFC 1035 section 4.2.2).
///
/// # Errors
///
/// If the message is longer than 65,535 bytes.
pub(crate) fn length_prefixed(message: &[u8]) -> io::Result<Vec<u8>> {
    let len = u16::try_from(message.len()).map_err(|_| {
        io::Error::new(io::ErrorKind::InvalidData, "a DNS message has at most 65535 bytes")
    })?;
    Ok([&len.to_be_bytes(), message].concat())
}
