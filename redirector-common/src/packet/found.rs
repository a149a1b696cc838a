//! The result of a search for a name, in one word, as it passes between the programs' functions.

/// What a name is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u64)]
pub enum NameKind {
    /// A source with an address.
    Live = 1,
    /// A source whose route has no backend yet.
    Pending = 2,
    /// The reverse name of a VIP.
    Pointer = 3,
}

/// A mapped name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found {
    /// The VIP's index in the pool.
    pub index: u32,
    /// What the name is.
    pub kind: NameKind,
    /// Octets of the name in the question, without its final zero.
    pub length: u32,
}

impl Found {
    /// A word that is not zero.
    #[inline(always)]
    pub const fn to_bits(self) -> u64 {
        self.index as u64 | (self.length as u64 & 0xff) << 32 | (self.kind as u64) << 40
    }

    /// The inverse; none for zero.
    #[inline(always)]
    pub const fn from_bits(bits: u64) -> Option<Self> {
        let kind = match bits >> 40 & 3 {
            0 => return None,
            1 => NameKind::Live,
            2 => NameKind::Pending,
            _ => NameKind::Pointer,
        };
        Some(Self { index: bits as u32, kind, length: (bits >> 32) as u32 & 0xff })
    }

    /// A source with the flags of its element.
    #[inline(always)]
    pub const fn source(index: u32, flags: u32, length: u32) -> Self {
        let is_pending = flags & super::name::NameEntry::FLAG_PENDING != 0;
        let kind = if is_pending { NameKind::Pending } else { NameKind::Live };
        Self { index, kind, length }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_keeps_all_of_it() {
        for kind in [NameKind::Live, NameKind::Pending, NameKind::Pointer] {
            for (index, length) in [(0, 2), (65_535, 254), (u32::MAX, 0)] {
                let found = Found { index, kind, length };
                assert_eq!(Found::from_bits(found.to_bits()), Some(found));
            }
        }
        assert_eq!(Found::from_bits(0), None);
        assert_eq!(Found::source(7, 1, 9).kind, NameKind::Pending);
        assert_eq!(Found::source(7, 0, 9).kind, NameKind::Live);
    }
}
