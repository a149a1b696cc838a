//! Arithmetic on eight octets at once, as the programs read names: in words of 64 bits, whose
//! lowest bits are the first octet in memory.

/// The lowest bit of each octet.
const ONES: u64 = 0x0101_0101_0101_0101;
/// The highest bit of each octet.
const HIGH: u64 = 0x80 * ONES;

/// Makes ASCII upper-case octets lower-case.
#[inline(always)]
pub const fn to_lower(word: u64) -> u64 {
    let low = word & !HIGH;
    // The highest bit of an octet is set from 'A' on, or beyond 'Z'.
    let from_a = low + (0x80 - b'A' as u64) * ONES;
    let beyond_z = low + (0x80 - b'Z' as u64 - 1) * ONES;
    word | ((from_a ^ beyond_z) & HIGH & !word) >> 2
}

/// All bits of the octets before the first zero octet; of all, if none is zero.
#[inline(always)]
pub const fn before_zero(word: u64) -> u64 {
    let zeros = word.wrapping_sub(ONES) & !word & HIGH;
    let first = zeros & zeros.wrapping_neg();
    (first >> 7).wrapping_sub(1)
}

/// The number of octets in a mask of [`before_zero`].
#[inline(always)]
pub const fn octets_in(mask: u64) -> u64 {
    (mask & ONES).wrapping_mul(ONES) >> 56
}

/// Adds a word to the hash of a name.
#[inline(always)]
pub const fn mix(hash: u64, word: u64) -> u64 {
    let mixed = (hash ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    mixed ^ mixed >> 29
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_ascii_letters_change_case() {
        for octet in 0..=u8::MAX {
            for place in 0..8 {
                let mut word = [0xff, 0, b'A', b'Z', b'@', b'[', 0x80, 0xc1];
                word[place] = octet;
                let expected = word.map(|octet| octet.to_ascii_lowercase());
                assert_eq!(to_lower(u64::from_le_bytes(word)).to_le_bytes(), expected);
            }
        }
    }

    #[test]
    fn octets_before_the_first_zero_are_counted() {
        assert_eq!((before_zero(u64::MAX), octets_in(u64::MAX)), (u64::MAX, 8));
        for zero in 0..8 {
            let mut word = [1, 0x80, 0xff, 1, 0x81, 0x7f, 2, 1];
            word[zero] = 0;
            word[7] &= if zero == 7 { 0 } else { 0xff };
            let mask = before_zero(u64::from_le_bytes(word));
            assert_eq!(octets_in(mask), zero as u64);
            assert_eq!(mask, 1_u64.unbounded_shl(8 * zero as u32).wrapping_sub(1));
            word[6] = 0;
            assert_eq!(octets_in(before_zero(u64::from_le_bytes(word))), zero.min(6) as u64);
        }
    }
}
