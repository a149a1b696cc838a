//! Sums of the Internet checksum (RFC 1071). Words are as they are in memory: the sum does not
//! depend on the order of octets, as long as all words have the same.

/// The sum of the four 16-bit words of `word`.
#[inline(always)]
pub const fn sum(word: u64) -> u64 {
    (word & 0xffff_ffff) + (word >> 32)
}

/// Folds a sum into 16 bits.
#[inline(always)]
pub const fn fold(sum: u64) -> u64 {
    let sum = (sum & 0xffff_ffff) + (sum >> 32);
    let sum = (sum & 0xffff) + (sum >> 16 & 0xffff) + (sum >> 32);
    let sum = (sum & 0xffff) + (sum >> 16);
    (sum & 0xffff) + (sum >> 16)
}

/// A sum that takes away what `sum` adds.
#[inline(always)]
pub const fn negated(sum: u64) -> u64 {
    !fold(sum) & 0xffff
}

/// The sum of octets that begin at an offset whose lowest bit is `offset`'s: at an odd one they are
/// the other halves of words.
#[inline(always)]
pub const fn at_offset(sum: u64, offset: u64) -> u64 {
    let sum = fold(sum);
    // Without a branch, which would be one more state for the verifier.
    let odd = (offset & 1).wrapping_neg();
    (sum & !odd) | (sum as u16).swap_bytes() as u64 & odd
}

/// The checksum of a sum: its complement.
#[inline(always)]
pub const fn complement(sum: u64) -> u16 {
    !(fold(sum) as u16)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The definition: 16-bit words with an end-around carry.
    fn slow(octets: &[u8]) -> u64 {
        octets.chunks(2).fold(0, |sum, pair| {
            let word = u16::from_le_bytes([pair[0], pair.get(1).copied().unwrap_or(0)]);
            let sum = sum + u64::from(word);
            (sum & 0xffff) + (sum >> 16)
        })
    }

    fn octets(count: usize) -> impl Iterator<Item = u8> {
        (0..count).map(|number| (number.wrapping_mul(167) >> 2) as u8 ^ 0xa5)
    }

    #[test]
    fn sums_of_words_are_sums_of_halves() {
        let octets: std::vec::Vec<u8> = octets(4096).collect();
        let words = octets.chunks_exact(8).map(|word| u64::from_le_bytes(word.try_into().unwrap()));
        let total: u64 = words.map(sum).sum();
        assert_eq!(fold(total), slow(&octets));
        assert_eq!(fold(u64::MAX), 0xffff);
    }

    #[test]
    fn a_change_is_a_difference_at_any_offset() {
        for (offset, length) in [(0, 6), (1, 6), (2, 3), (3, 5), (7, 1)] {
            let mut message: std::vec::Vec<u8> = octets(16).collect();
            let before = slow(&message);
            let change = &mut message[offset..offset + length];
            let old = slow(change);
            change.iter_mut().for_each(|octet| *octet ^= 0x3c);
            let new = slow(change);
            let difference = at_offset(new, offset as u64) + at_offset(negated(old), offset as u64);
            let after = fold(before + difference);
            // 0 and 0xffff are the same number in one's complement.
            assert_eq!(after % 0xffff, slow(&message) % 0xffff, "{offset} {length}");
            assert_eq!(complement(after) as u64, !after & 0xffff);
        }
    }
}
