//! Names as the agent publishes them: in lower-case wire form, in words.

use super::{
    labels::{self, MAX_NAME},
    name::{NAME_OCTETS, NameEntry, ReverseEntry, SHORT_OCTETS, ShortEntry},
    name_filter::{self, Tail},
};

/// A name in lower-case wire form without its final zero octet, padded with zeros.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Name {
    words: [u64; NAME_OCTETS / 8],
    length: u64,
}

impl Name {
    /// Of text such as `artifactory.internal.company.net`. None if it is empty, or if a label is
    /// empty or longer than 63 characters, or the name longer than 253.
    pub fn new(text: &str) -> Option<Self> {
        let mut octets = [0; NAME_OCTETS];
        let mut length = 0;
        for label in text.split('.') {
            if !(1..=63).contains(&label.len()) || length + 1 + label.len() > MAX_NAME as usize {
                return None;
            }
            octets[length] = label.len() as u8;
            octets[length + 1..][..label.len()].copy_from_slice(label.as_bytes());
            length += 1 + label.len();
        }
        octets.make_ascii_lowercase();
        Some(Self::from_octets(&octets, length))
    }

    /// The same name below one more label: `*` or `**`, as a wildcard's reverse entry has it.
    pub fn below(&self, label: &str) -> Option<Self> {
        let (first, length) = (1 + label.len(), self.length as usize);
        if length + first > MAX_NAME as usize {
            return None;
        }
        let mut octets = [0; NAME_OCTETS];
        octets[0] = label.len() as u8;
        octets[1..first].copy_from_slice(label.as_bytes());
        octets[first..first + length].copy_from_slice(&self.octets()[..length]);
        Some(Self::from_octets(&octets, length + first))
    }

    /// Of a table's element. None if it is no name in lower case.
    pub fn from_words(element: &[u64], length: u64) -> Option<Self> {
        let mut words = [0; NAME_OCTETS / 8];
        words.get_mut(..element.len())?.copy_from_slice(element);
        let name = Self { words, length };
        let found = labels::labels(|at| words[at as usize])?;
        let is_padded = name.octets().iter().skip(length as usize).all(|&octet| octet == 0);
        let mut lower = name.octets();
        lower.make_ascii_lowercase();
        let is_name = length > 0 && found.length == length && is_padded && lower == name.octets();
        is_name.then_some(name)
    }

    /// Of the octets of a wildcard's key, which are in reverse order.
    pub fn from_reversed(reversed: &[u8]) -> Option<Self> {
        let mut octets = [0; NAME_OCTETS];
        for (octet, &last) in octets.iter_mut().zip(reversed.iter().rev()) {
            *octet = last;
        }
        if reversed.len() > MAX_NAME as usize {
            return None;
        }
        let name = Self::from_octets(&octets, reversed.len());
        Self::from_words(&name.words, name.length)
    }

    fn from_octets(octets: &[u8; NAME_OCTETS], length: usize) -> Self {
        let mut words = [0; NAME_OCTETS / 8];
        for (word, octets) in words.iter_mut().zip(octets.as_chunks().0) {
            *word = u64::from_le_bytes(*octets);
        }
        Self { words, length: length as u64 }
    }

    /// The octets, in words.
    pub const fn words(&self) -> [u64; NAME_OCTETS / 8] {
        self.words
    }

    /// The octets, padded with zeros.
    pub fn octets(&self) -> [u8; NAME_OCTETS] {
        let mut octets = [0; NAME_OCTETS];
        for (octets, word) in octets.as_chunks_mut().0.iter_mut().zip(self.words) {
            *octets = word.to_le_bytes();
        }
        octets
    }

    /// The number of octets.
    pub const fn length(&self) -> u64 {
        self.length
    }

    /// Its hash, the key of its table.
    pub fn hash(&self, seed: u64) -> u64 {
        let hashed = labels::hash(seed, |at| self.words[at as usize], |_, _| ());
        hashed.expect("a name has at most 254 octets, then a zero").hash
    }

    /// The octets in reverse order, the key of a wildcard's table, padded with zeros.
    pub fn reversed(&self) -> [u8; NAME_OCTETS] {
        let mut reversed = [0; NAME_OCTETS];
        let octets = self.octets();
        for (to, &from) in reversed.iter_mut().zip(octets[..self.length as usize].iter().rev()) {
            *to = from;
        }
        reversed
    }

    /// The text of a name. None if it has octets that are no text.
    #[cfg(feature = "user")]
    pub fn text(&self) -> Option<std::string::String> {
        let octets = self.octets();
        let mut rest = &octets[..self.length as usize];
        let mut text = std::string::String::new();
        while let Some((&length, after)) = rest.split_first() {
            let (label, after) = after.split_at_checked(length.into())?;
            if !text.is_empty() {
                text.push('.');
            }
            text.push_str(core::str::from_utf8(label).ok()?);
            rest = after;
        }
        Some(text)
    }

    /// The last sixteen octets, after zeros if it has fewer.
    pub fn tail(&self) -> Tail {
        let (octets, length) = (self.octets(), self.length as usize);
        let mut last = [0; 16];
        let count = length.min(last.len());
        last[16 - count..].copy_from_slice(&octets[length - count..length]);
        let [first, second] =
            [0, 8].map(|at| u64::from_le_bytes(*last[at..].first_chunk().expect("sixteen octets")));
        [first, second]
    }

    /// The hash of the name as a wildcard's zone in the filter of names; none if it is too short.
    pub fn zone_hash(&self, seed: u64) -> Option<u64> {
        name_filter::of_zone(seed, self.tail(), self.length)
    }

    /// Whether its element is a [`ShortEntry`].
    pub const fn is_short(&self) -> bool {
        self.length <= SHORT_OCTETS
    }

    /// The element of an exact name, if it is short enough.
    pub fn short_entry(&self, index: u32, flags: u32) -> Option<ShortEntry> {
        if !self.is_short() {
            return None;
        }
        let name = *self.words.first_chunk()?;
        Some(ShortEntry { index, flags: flags as u16, length: self.length as u16, name })
    }

    /// The element of a longer exact name.
    pub const fn entry(&self, index: u32, flags: u32) -> NameEntry {
        NameEntry { index, flags, length: self.length, name: self.words }
    }

    /// The element of a VIP that has this name, which counts its final zero octet.
    pub const fn reverse_entry(&self) -> ReverseEntry {
        ReverseEntry { length: self.length + 1, name: self.words }
    }
}

#[cfg(test)]
mod tests {
    use std::{format, string::String};

    use super::*;

    #[test]
    fn a_name_is_its_labels_after_their_lengths() {
        let name = Name::new("Art.Company.net").unwrap();
        assert_eq!(name.length(), 16);
        assert_eq!(&name.octets()[..17], b"\x03art\x07company\x03net\0");
        assert_eq!(&name.reversed()[..17], b"ten\x03ynapmoc\x07tra\x03\0");
        assert_eq!(Name::from_words(&name.words(), 16), Some(name));
        assert_eq!(Name::from_words(&name.words()[..2], 16), Some(name));
        assert_eq!(Name::from_reversed(&name.reversed()[..16]), Some(name));
        let star = name.below("*").unwrap();
        assert_eq!(&star.octets()[..19], b"\x01*\x03art\x07company\x03net\0");
        assert_eq!(star.reverse_entry().length, 19);
        assert_eq!(star.entry(7, 1).length, 18);
    }

    #[test]
    fn text_that_is_no_name_is_refused() {
        let longest = format!("{0}.{0}.{0}.{1}", "a".repeat(63), "b".repeat(61));
        assert_eq!(longest.len(), 253);
        assert_eq!(Name::new(&longest).unwrap().length(), 254);
        assert_eq!(Name::new(&longest).unwrap().below("*"), None);
        for wrong in ["", ".", "a..b", &"a".repeat(64), &format!("{longest}b")] {
            assert_eq!(Name::new(wrong), None, "{wrong}");
        }
        let labels: String = ["a"; 127].join(".");
        assert_eq!(Name::new(&labels).unwrap().length(), 254);
    }

    #[test]
    fn words_that_are_no_name_are_refused() {
        let name = Name::new("art.net").unwrap();
        let changed = |at: usize, octet: u8| {
            let mut octets = name.octets();
            octets[at] = octet;
            Name::from_octets(&octets, 8).words
        };
        assert_eq!(Name::from_words(&name.words(), 7), None);
        assert_eq!(Name::from_words(&name.words(), 0), None);
        assert_eq!(Name::from_words(&name.words(), 400), None);
        for (at, octet) in [(0, 0), (0, 64), (1, b'A'), (8, 1), (20, 1), (4, 0)] {
            assert_eq!(Name::from_words(&changed(at, octet), 8), None, "{at}");
        }
        assert_eq!(Name::from_reversed(&[1; 300]), None);
    }

    #[cfg(feature = "user")]
    #[test]
    fn a_name_has_its_text_again() {
        let text = "art.internal.company.net";
        assert_eq!(Name::new(text).unwrap().text().as_deref(), Some(text));
    }
}
