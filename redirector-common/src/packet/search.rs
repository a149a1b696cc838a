//! The searches of the programs, over what their arguments read: names, wildcards and cgroups.

use core::cell::Cell;

use super::{
    labels::{MAX_LABEL, MAX_NAME, reversed},
    name::{NAME_OCTETS, WildcardEntry},
};
use crate::unroll::unroll;

/// Whether the first `length` octets of two names, and the zeros behind them in their last words,
/// are the same.
#[inline(always)]
pub fn is_same(length: u64, one: impl Fn(u32) -> u64, other: impl Fn(u32) -> u64) -> bool {
    let mut difference = 0;
    unroll!(at in 0..32 {
        if u64::from(8 * at) >= length {
            break;
        }
        difference |= one(at) ^ other(at);
    });
    difference == 0
}

/// Copies the words of a name, one by one: the compiler would call a function that copies octets in
/// a loop.
#[inline(always)]
pub fn copy(read: impl Fn(u32) -> u64, mut write: impl FnMut(u32, u64)) {
    unroll!(at in 0..32 {
        write(at, read(at));
    });
}

/// Octets that a name is read in, from its end on.
pub const CHUNK: u32 = 32;

/// Writes the key of a name's wildcards: its octets in reverse order. `read` reads the four words
/// of a chunk which ends that many octets before the name's end; false: they could not be read.
/// What follows the name's first octet in the key is arbitrary.
#[inline(always)]
pub fn reverse(
    length: u64,
    mut read: impl FnMut(u32) -> bool,
    chunk: impl Fn(u32) -> u64,
    mut write: impl FnMut(u32, u64),
) -> bool {
    unroll!(number in 0..8 {
        if u64::from(CHUNK * number) >= length {
            break;
        }
        if !read(CHUNK * number) {
            return false;
        }
        unroll!(word in 0..4 {
            write(4 * number + word, reversed(chunk(3 - word)));
        });
    });
    true
}

/// The wildcard of a name of `length` octets up to its first zero, by `look_up` with the bits of
/// the key that count: the longest suffix first. `below_first` is the octet after the name's first
/// label, and `starts_label` says whether one starts at an octet. Returns the index and the flags.
///
/// In the key, a suffix may match where no label begins, since a length may look like a character;
/// and the wildcard of the suffix may match one label only. Then shorter ones are tried.
#[inline(always)]
pub fn wildcard(
    length: u64,
    below_first: u64,
    starts_label: impl Fn(u64) -> bool,
    mut look_up: impl FnMut(u32) -> Option<WildcardEntry>,
) -> Option<(u32, u32)> {
    if length > MAX_NAME || below_first > MAX_LABEL + 1 {
        return None;
    }
    // Without the first length: the name itself is not below it.
    let limit = Cell::new(length.wrapping_sub(1));
    unroll!(_try in 0..8 {
        let octets = limit.get();
        if octets == 0 || octets > NAME_OCTETS as u64 {
            break;
        }
        let entry = look_up(octets as u32 * 8)?;
        let at = length.wrapping_sub(entry.length.into());
        if (at == below_first || starts_label(at))
            && let Some(found) = entry.select(at == below_first)
        {
            return Some(found);
        }
        limit.set(u64::from(entry.length).wrapping_sub(1));
    });
    None
}

/// Whether a label starts at this octet; `starts` is that of [`super::labels::Labels`].
#[inline(always)]
pub fn is_start(starts: [u64; 4], at: u64) -> bool {
    let [a, b, c, d] = starts;
    let word = if at < 64 {
        a
    } else if at < 128 {
        b
    } else if at < 192 {
        c
    } else {
        d
    };
    word >> (at % 64) & 1 == 1
}

/// Whether a socket belongs to an attached cgroup. Bit n of `levels` is set if some attached cgroup
/// is at level n; `ancestor` is the ID of the socket's cgroup at a level, 0 if there is none.
#[inline(always)]
pub fn is_attached(
    levels: u32,
    ancestor: impl Fn(u32) -> u64,
    is_listed: impl Fn(u64) -> bool,
) -> bool {
    unroll!(level in 0..32 {
        let left = levels >> level;
        if left == 0 {
            break;
        }
        if left & 1 == 1 {
            let id = ancestor(level);
            if id == 0 {
                break;
            }
            if is_listed(id) {
                return true;
            }
        }
    });
    false
}

#[cfg(test)]
mod tests {
    use core::cell::RefCell;
    use std::{vec, vec::Vec};

    use super::*;
    use crate::packet::{labels::labels, names::Name};

    const LABEL_ONLY: u32 = WildcardEntry::FLAG_NOT_DEEP | WildcardEntry::FLAG_LABEL;

    /// The wildcard that the search finds for `name`, by the rules of the kernel's trie, and the
    /// number of look-ups. A zone matches at any depth, `*.zone` one label.
    fn search(wildcards: &[&str], name: &[u8]) -> Option<(usize, usize)> {
        let end = name.iter().position(|&octet| octet == 0)?;
        let padded = [vec![0xdd; 64], name.to_vec()].concat();
        let chunk = RefCell::new([0_u64; 4]);
        let mut key = [0_u64; 32];
        let read = |before: u32| {
            let at = 64 + end - before as usize - 32;
            for (word, octets) in chunk.borrow_mut().iter_mut().zip(padded[at..].chunks(8)) {
                *word = u64::from_le_bytes(octets.try_into().unwrap());
            }
            true
        };
        let written = reverse(
            end as u64,
            read,
            |at| chunk.borrow()[at as usize],
            |at, word| key[at as usize] = word,
        );
        assert!(written);
        let key: Vec<u8> = key.iter().flat_map(|word| word.to_le_bytes()).collect();
        let mut tries = 0;
        let below_first = 1 + u64::from(name[0]);
        let labels = labels(|at| word_of(name, at)).filter(|all| all.length == end as u64);
        let starts_label = |at| labels.is_some_and(|labels| is_start(labels.starts, at));
        let found = wildcard(end as u64, below_first, starts_label, |bits| {
            tries += 1;
            let matches = wildcards.iter().enumerate().filter_map(|(index, text)| {
                let suffix = Name::new(text.trim_start_matches("*.")).unwrap();
                let one_label = text.starts_with("*.");
                let octets = suffix.length() as usize;
                let is_match =
                    octets <= bits as usize / 8 && suffix.reversed()[..octets] == key[..octets];
                let flags = if one_label { LABEL_ONLY } else { 0 };
                let index = index as u32;
                let length = suffix.length() as u32;
                is_match.then_some(WildcardEntry { index, flags, length, label_index: index })
            });
            matches.max_by_key(|entry| entry.length)
        });
        found.map(|(index, _)| (index as usize, tries))
    }

    /// A word of a name, behind which other octets follow.
    fn word_of(name: &[u8], at: u32) -> u64 {
        let mut eight = [0xee; 8];
        let octets = name.get(at as usize * 8..).unwrap_or_default();
        let count = octets.len().min(8);
        eight[..count].copy_from_slice(&octets[..count]);
        u64::from_le_bytes(eight)
    }

    #[test]
    fn the_deepest_wildcard_above_a_name_is_found() {
        let wildcards = ["net", "company.net", "a.company.net"];
        for (name, expected) in [
            (&b"\x01x\x01A\x07company\x03net\0"[..], Some((2, 1))),
            (b"\x01a\x07company\x03net\0", Some((1, 1))),
            (b"\x01b\x07company\x03NET\0", Some((1, 1))),
            (b"\x07company\x03net\0", Some((0, 1))),
            (b"\x03net\0", None),
            (b"\0", None),
            (b"\x08acompany\x03net\0", Some((0, 1))),
            (b"\x01x\x03org\0", None),
        ] {
            assert_eq!(search(&wildcards, name), expected, "{name:?}");
        }
    }

    #[test]
    fn a_wildcard_of_one_label_hides_no_wider_one() {
        let wildcards = ["net", "*.company.net", "*.a.company.net"];
        for (name, expected) in [
            (&b"\x01x\x07company\x03net\0"[..], Some((1, 1))),
            (b"\x01a\x07company\x03net\0", Some((1, 1))),
            (b"\x01x\x01a\x07company\x03net\0", Some((2, 1))),
            (b"\x01y\x01x\x01a\x07company\x03net\0", Some((0, 3))),
            (b"\x01y\x01x\x07company\x03net\0", Some((0, 2))),
        ] {
            assert_eq!(search(&wildcards, name), expected, "{name:?}");
        }
        assert_eq!(search(&wildcards[1..], b"\x01y\x01x\x07company\x03net\0"), None);
    }

    #[test]
    fn six_nested_wildcards_of_one_label_hide_no_wider_one() {
        let deep = b"\x01y\x01x\x01f\x01e\x01d\x01c\x01b\x01a\x03net\0";
        let nets = [
            "net",
            "*.a.net",
            "*.b.a.net",
            "*.c.b.a.net",
            "*.d.c.b.a.net",
            "*.e.d.c.b.a.net",
            "*.f.e.d.c.b.a.net",
        ];
        assert_eq!(search(&nets, deep), Some((0, 7)));
    }

    #[test]
    fn an_element_has_the_wildcards_of_its_zone() {
        let both = WildcardEntry { index: 1, flags: 4 | 8, length: 4, label_index: 2 };
        assert_eq!((both.select(true), both.select(false)), (Some((2, 1)), Some((1, 0))));
        let label = WildcardEntry { flags: LABEL_ONLY, ..both };
        assert_eq!((label.select(true), label.select(false)), (Some((2, 0)), None));
        let earlier = WildcardEntry { index: 1, flags: 1, length: 4, label_index: 0 };
        assert_eq!((earlier.select(true), earlier.select(false)), (Some((1, 1)), Some((1, 1))));
    }

    #[test]
    fn a_length_that_looks_like_a_character_hides_no_wildcard() {
        // The 45 of the label's length is '-', and the trie matches inside of `x-`.
        let long = "a".repeat(45);
        let deep = std::format!("{long}.net");
        let mut name = b"\x2fx-".to_vec();
        name.extend(long.bytes());
        name.extend(b"\x03net\0");
        assert_eq!(search(&[&deep, "net"], &name), Some((1, 2)));
        assert_eq!(search(&[&deep], &name), None);
        let below = [b"\x01b\x2d", long.as_bytes(), b"\x03net\0"].concat();
        assert_eq!(search(&[&deep, "net"], &below), Some((0, 1)));
    }

    #[test]
    fn a_name_with_a_zero_inside_a_label_has_no_wildcard() {
        assert_eq!(search(&["net"], b"\x03a\0b\x03net\0"), None);
        assert_eq!(search(&["net"], b"\x05\x03net\0\x03org\0"), None);
    }

    #[test]
    fn names_are_compared_to_their_end() {
        let one = Name::new("art.company.net").unwrap().words();
        for (text, expected) in
            [("art.company.net", true), ("art.company.org", false), ("art.company.nets", false)]
        {
            let other = Name::new(text).unwrap().words();
            assert_eq!(is_same(16, |at| one[at as usize], |at| other[at as usize]), expected);
        }
    }

    #[test]
    fn a_socket_is_attached_at_any_listed_level() {
        let path = |level: u32| [1, 20, 30, 0].get(level as usize).copied().unwrap_or(0);
        let attached = |levels, id| is_attached(levels, path, |found| found == id);
        assert!(attached(1, 1) && attached(0b10, 20) && attached(0b111, 30));
        assert!(!attached(0b101, 20) && !attached(0, 1) && !attached(0b1000, 0));
        assert!(!attached(u32::MAX, 40));
    }
}
