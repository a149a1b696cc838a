//! The octets of a query's frame before its name, which a reply replaces at once: the headers of
//! Ethernet, IP, UDP and DNS. The name begins at a word.

use super::header::{FRAME4_LEN, FRAME6_LEN, HEAD_LEN, QueryHead};

/// Octets of memory before the name. The frame ends them, since IP headers differ in length.
pub const BEFORE_NAME: u32 = 80;
/// Words of memory before the name.
pub const BEFORE_WORDS: usize = BEFORE_NAME as usize / 8;
/// Octets of the frame before the name over IPv4.
pub const FRONT4_LEN: u32 = FRAME4_LEN + HEAD_LEN;
/// Octets of the frame before the name over IPv6.
pub const FRONT6_LEN: u32 = FRAME6_LEN + HEAD_LEN;

/// The UDP and DNS headers, with the first four octets of the name. `word` returns a word of the
/// memory, by its number; the name's first one is number [`BEFORE_WORDS`].
#[inline(always)]
pub fn head(word: impl Fn(u32) -> u64) -> QueryHead {
    let [a, b, c, name] = [word(7), word(8), word(9), word(10)];
    [a >> 32 | b << 32, b >> 32 | c << 32, c >> 32 | name << 32]
}

/// The Ethernet and IPv4 headers, with octets that follow.
#[inline(always)]
pub fn frame4(word: impl Fn(u32) -> u64) -> [u64; 5] {
    let shifted = |at| word(at) >> 16 | word(at + 1) << 48;
    [shifted(3), shifted(4), shifted(5), shifted(6), shifted(7)]
}

/// The Ethernet and IPv6 headers, with octets that follow.
#[inline(always)]
pub fn frame6(word: impl Fn(u32) -> u64) -> [u64; 7] {
    let shifted = |at| word(at) >> 48 | word(at + 1) << 16;
    [shifted(0), shifted(1), shifted(2), shifted(3), shifted(4), shifted(5), shifted(6)]
}

/// The first [`FRONT4_LEN`] octets of a reply.
#[inline(always)]
pub const fn front4(frame: [u64; 5], head: QueryHead) -> [u64; 7] {
    let [a, b, c, d, e] = frame;
    let [f, g, h] = head;
    [a, b, c, d, e & 0xffff | f << 16, f >> 48 | g << 16, g >> 48 | h << 16]
}

/// The first [`FRONT6_LEN`] octets of a reply.
#[inline(always)]
pub const fn front6(frame: [u64; 7], head: QueryHead) -> [u64; 10] {
    let [a, b, c, d, e, f, g] = frame;
    let [h, i, j] = head;
    let g = g & 0xffff_ffff_ffff | h << 48;
    [a, b, c, d, e, f, g, h >> 16 | i << 48, i >> 16 | j << 48, j >> 16]
}

/// The sixteen octets that begin at octet `at` of the words that `read` returns by their number.
#[inline(always)]
pub fn unaligned(at: u32, read: impl Fn(u32) -> u64) -> [u64; 2] {
    let (first, bits) = (at / 8, at % 8 * 8);
    let [a, b, c] = [read(first), read(first + 1), read(first + 2)];
    // A shift by 64 would be one by 0.
    let join = |low: u64, high: u64| low >> bits | high << 1 << (63 - bits);
    [join(a, b), join(b, c)]
}

#[cfg(test)]
mod tests {
    use std::vec::Vec;

    use super::*;

    fn word_of(octets: &[u8]) -> impl Fn(u32) -> u64 {
        |at| u64::from_le_bytes(octets[at as usize * 8..][..8].try_into().expect("eight octets"))
    }

    fn octets(words: &[u64]) -> Vec<u8> {
        words.iter().flat_map(|word| word.to_le_bytes()).collect()
    }

    #[test]
    fn the_front_is_divided_and_joined_again() {
        let memory: Vec<u8> = (1..=88).collect();
        let read = word_of(&memory);
        assert_eq!(octets(&head(&read)), memory[60..84]);
        assert_eq!(octets(&frame4(&read))[..34], memory[26..60]);
        assert_eq!(octets(&frame6(&read))[..54], memory[6..60]);
        assert_eq!(octets(&front4(frame4(&read), head(&read)))[..54], memory[26..80]);
        assert_eq!(octets(&front6(frame6(&read), head(&read)))[..74], memory[6..80]);
        assert_eq!((FRONT4_LEN, FRONT6_LEN), (54, 74));
    }

    #[test]
    fn octets_are_read_from_any_place() {
        let memory: Vec<u8> = (1..=88).collect();
        let read = word_of(&memory);
        for at in 0..64 {
            assert_eq!(octets(&unaligned(at, &read)), memory[at as usize..][..16], "{at}");
        }
    }
}
