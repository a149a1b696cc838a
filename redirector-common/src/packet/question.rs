//! What a query asks for: the type of its question, and its EDNS record.

use super::record::{IN, OPT, OPT_LEN};

/// What a query asks for, in one word, as it passes between the programs' functions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Question(u64);

impl Question {
    const PLAIN: u64 = 1 << 63;
    const EDNS: u64 = 1 << 16;
    const OTHER_VERSION: u64 = 1 << 17;
    const DNSSEC_OK: u64 = 1 << 18;

    /// Of a question without an EDNS record. `word` has its type and class as they are in memory.
    /// None for another class than that of the Internet.
    #[inline(always)]
    pub const fn of(word: u64) -> Option<Self> {
        if word >> 16 & 0xffff != IN.to_be() as u64 {
            return None;
        }
        Some(Self(Self::PLAIN | u16::from_be(word as u16) as u64))
    }

    /// The same with the additional record that begins with these octets, of `room` octets that are
    /// left of the message. None if that is no EDNS record.
    #[inline(always)]
    pub const fn with_additional(self, record: [u64; 2], room: u32) -> Option<Self> {
        // The root's name and the type.
        const HEAD: u64 = (OPT.to_be() as u64) << 8;
        let [first, second] = record;
        let length = u16::from_be((second >> 8) as u16) as u32;
        if first & 0xff_ffff != HEAD || OPT_LEN + length > room {
            return None;
        }
        let mut bits = self.0 | Self::EDNS;
        if first >> 48 & 0xff != 0 {
            bits |= Self::OTHER_VERSION;
        }
        if first >> 56 & 0x80 != 0 {
            bits |= Self::DNSSEC_OK;
        }
        Some(Self(bits))
    }

    /// As a word; not zero.
    #[inline(always)]
    pub const fn to_bits(self) -> u64 {
        self.0
    }

    /// The inverse; none for zero.
    #[inline(always)]
    pub const fn from_bits(bits: u64) -> Option<Self> {
        if bits == 0 { None } else { Some(Self(bits)) }
    }

    /// The type of the record that it asks for.
    #[inline(always)]
    pub const fn record_type(self) -> u16 {
        self.0 as u16
    }

    /// Whether it has an EDNS record.
    #[inline(always)]
    pub const fn has_edns(self) -> bool {
        self.0 & Self::EDNS != 0
    }

    /// Whether the version of that record is not 0, the only one that exists.
    #[inline(always)]
    pub const fn has_other_version(self) -> bool {
        self.0 & Self::OTHER_VERSION != 0
    }

    /// The octet of that record with the bit DO: 0x80 or 0.
    #[inline(always)]
    pub const fn dnssec_ok(self) -> u8 {
        if self.0 & Self::DNSSEC_OK != 0 { 0x80 } else { 0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(octets: [u8; 16]) -> [u64; 2] {
        let word = |at: usize| u64::from_le_bytes(octets[at..at + 8].try_into().unwrap());
        [word(0), word(8)]
    }

    const RECORD: [u8; 16] = [0, 0, 41, 16, 0, 0, 0, 0x80, 0, 0, 12, 1, 2, 3, 4, 5];

    #[test]
    fn only_the_class_of_the_internet_is_plain() {
        let of = |octets: [u8; 8]| Question::of(u64::from_le_bytes(octets));
        let question = of([0, 28, 0, 1, 9, 9, 9, 9]).unwrap();
        assert_eq!((question.record_type(), question.has_edns()), (28, false));
        assert_eq!(question.dnssec_ok(), 0);
        assert_eq!(Question::from_bits(question.to_bits()), Some(question));
        assert_eq!(of([0, 28, 0, 3, 0, 0, 0, 0]), None);
        assert_eq!(of([0, 28, 1, 1, 0, 0, 0, 0]), None);
        assert_eq!(of([255, 255, 0, 1, 0, 0, 0, 0]).unwrap().record_type(), 65535);
        assert_eq!(Question::from_bits(0), None);
    }

    #[test]
    fn one_edns_record_is_read() {
        let plain = Question::of(u64::from_le_bytes([0, 1, 0, 1, 0, 0, 0, 0])).unwrap();
        let read = |record, room| plain.with_additional(words(record), room);
        let question = read(RECORD, 23).unwrap();
        assert_eq!((question.record_type(), question.dnssec_ok()), (1, 0x80));
        assert!(question.has_edns() && !question.has_other_version());
        assert_eq!(read(RECORD, 22), None);
        let with = |at: usize, octet: u8| {
            let mut record = RECORD;
            record[at] = octet;
            read(record, 23)
        };
        assert_eq!((with(0, 1), with(1, 1), with(2, 250), with(9, 1)), (None, None, None, None));
        assert!(with(6, 1).unwrap().has_other_version());
        assert_eq!(with(7, 0x7f).unwrap().dnssec_ok(), 0);
    }
}
