//! Names in words: their hash, the starts of their labels, and their octets in reverse order.

use core::cell::Cell;

use crate::{
    packet::{
        name::NAME_OCTETS,
        octets::{before_zero, mix, octets_in, to_lower},
    },
    unroll::unroll,
};

/// The most octets of a name without its final zero (RFC 1035 section 2.3.4).
pub const MAX_NAME: u64 = 254;
/// The most octets of a label (as above).
pub const MAX_LABEL: u64 = 63;

/// The hash of a name and its octets up to the first zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hashed {
    /// The hash.
    pub hash: u64,
    /// Octets before the zero.
    pub length: u64,
}

/// Hashes the words that `read` returns, up to the first zero octet, in lower case, and passes them
/// to `write`. None if there is no zero.
#[inline(always)]
pub fn hash(
    seed: u64,
    read: impl Fn(u32) -> u64,
    mut write: impl FnMut(u32, u64),
) -> Option<Hashed> {
    let mut hash = seed;
    unroll!(at in 0..32 {
        let word = read(at);
        let mask = before_zero(word);
        let word = to_lower(word & mask);
        write(at, word);
        hash = mix(hash, word);
        if mask != u64::MAX {
            return Some(Hashed { hash, length: u64::from(8 * at) + octets_in(mask) });
        }
    });
    None
}

/// The structure of a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Labels {
    /// Octets without the final zero.
    pub length: u64,
    /// A bit for each octet of the name that is a length: the start of a label.
    pub starts: [u64; NAME_OCTETS / 64],
}

/// Follows the labels in the words that `read` returns. None if a label or the name is too long, or
/// if a name ends with a compression pointer.
#[inline(always)]
pub fn labels(read: impl Fn(u32) -> u64) -> Option<Labels> {
    let walk = Cell::new(Walk { next: 0, long: 0 });
    let mut starts = [0; NAME_OCTETS / 64];
    unroll!(at in 0..32 {
        let end = u64::from(at + 1) * 8;
        if walk.get().next < end {
            let word = read(at);
            let (after, found) = walk.get().through(word, end);
            walk.set(after);
            starts[at as usize / 8] |= found;
            // A walk stays where the length is zero.
            if after.next < end {
                return if after.long == 0 && after.next <= MAX_NAME {
                    Some(Labels { length: after.next, starts })
                } else {
                    None
                };
            }
        }
    });
    None
}

/// A walk from label to label.
#[derive(Clone, Copy)]
struct Walk {
    /// The offset of the next length.
    next: u64,
    /// Bits that some length has above 63.
    long: u64,
}

impl Walk {
    /// Through the word before `end`: a label with its length has at least two octets. Returns the
    /// bits of the starts, too.
    #[inline(always)]
    fn through(self, word: u64, end: u64) -> (Self, u64) {
        let (one, first) = self.step(word, end);
        let (two, second) = one.step(word, end);
        let (three, third) = two.step(word, end);
        let (four, fourth) = three.step(word, end);
        (four, first | second | third | fourth)
    }

    /// One label, without a branch: each would be two more states for the verifier (222,260
    /// instructions on 6.18, and too many jumps on older kernels). Newer ones also take a mask that
    /// is made by an arithmetic shift for a branch, but not a factor of 0 or 1.
    #[inline(always)]
    const fn step(self, word: u64, end: u64) -> (Self, u64) {
        let Self { next, long } = self;
        let length = word >> (next % 8 * 8) & 0xff;
        // 1 if the length is in this word, and not zero.
        let is_label = next.wrapping_sub(end) >> 63 & (length + 0xff) >> 8;
        let start = is_label << (next % 64);
        let long = long | (length * is_label) & 0xc0;
        (Self { next: next + (length + 1) * is_label, long }, start)
    }
}

/// Eight octets in reverse order, in lower case.
#[inline(always)]
pub const fn reversed(word: u64) -> u64 {
    to_lower(word).swap_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::names::Name;

    fn words(octets: &[u8]) -> [u64; 33] {
        let mut words = [0xaaaa_aaaa_aaaa_aaaa; 33];
        for (at, word) in octets.chunks(8).enumerate() {
            let mut eight = [0xaa; 8];
            eight[..word.len()].copy_from_slice(word);
            words[at] = u64::from_le_bytes(eight);
        }
        words
    }

    fn labels_of(octets: &[u8]) -> Option<Labels> {
        let words = words(octets);
        labels(|at| words[at as usize])
    }

    #[test]
    fn labels_start_where_lengths_are() {
        let found = labels_of(b"\x01a\x02bc\x0812345678\x03net\0").unwrap();
        assert_eq!(found.length, 18);
        assert_eq!(found.starts, [1 | 1 << 2 | 1 << 5 | 1 << 14, 0, 0, 0]);
        assert_eq!(labels_of(b"\0"), Some(Labels { length: 0, starts: [0; 4] }));
        assert_eq!(labels_of(b"\x02a\0\x01b\0").map(|found| found.length), Some(5));
        let most = [b"\x01a".repeat(127), vec![0]].concat();
        let found = labels_of(&most).unwrap();
        assert_eq!(found.length, 254);
        let last = 0x5555_5555_5555_5555_u64;
        assert_eq!(found.starts, [last, last, last, last & !(1 << 62)]);
        for wrong in
            [&b"\x40a\0"[..], b"\x03abc\xc0\x0c", &[b"\x01a".repeat(128), vec![0]].concat()]
        {
            assert_eq!(labels_of(wrong), None, "{wrong:?}");
        }
    }

    use std::{vec, vec::Vec};

    #[test]
    fn the_hash_ignores_case_and_what_follows() {
        let hash_of = |octets: &[u8]| {
            let words = words(octets);
            let mut lower = Vec::new();
            let hashed = hash(7, |at| words[at as usize], |_, word| lower.push(word));
            (hashed, lower)
        };
        let (one, lower) = hash_of(b"\x05Alpha\x07COMPANY\x03net\0");
        let (other, _) = hash_of(b"\x05alpha\x07company\x03net\0\x03net\0");
        assert_eq!(one, other);
        let name = Name::new("alpha.company.net").unwrap();
        assert_eq!(one.unwrap(), Hashed { hash: name.hash(7), length: name.length() });
        assert_eq!(lower[..], name.words()[..lower.len()]);
        assert_ne!(name.hash(7), name.hash(8));
        assert_ne!(name.hash(7), Name::new("alpha.company.nets").unwrap().hash(7));
        assert_eq!(hash_of(&[1; 256]).0, None);
    }
}
