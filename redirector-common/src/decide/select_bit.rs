//! Bit searches by arithmetic alone, since branches and loops add states for the verifier.

/// The position of the set bit with `rank` set bits below it. Meaningless if there are no more
/// than `rank`.
#[inline(always)]
pub(super) const fn nth_set_bit(bits: u64, rank: u32) -> u32 {
    let search = (0, rank);
    let search = narrow(bits, search, 32);
    let search = narrow(bits, search, 16);
    let search = narrow(bits, search, 8);
    let search = narrow(bits, search, 4);
    let search = narrow(bits, search, 2);
    narrow(bits, search, 1).0
}

/// Moves `position` past the next `width` bits if the bit searched for is above them.
#[inline(always)]
const fn narrow(bits: u64, (position, rank): (u32, u32), width: u32) -> (u32, u32) {
    let below = (bits >> position & ((1 << width) - 1)).count_ones();
    // 1 if `below <= rank`, else 0: both are below 64. Not a mask from an arithmetic shift, for
    // each of whose two values newer verifiers follow a path of its own (6.18).
    let above = (rank + 64 - below) >> 6 & 1;
    (position + width * above, rank - below * above)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_set_bit_is_found_by_its_rank() {
        for bits in
            [1, 1 << 63, u64::MAX, 0x8000_0001_0000_8001, 0x0123_4567_89ab_cdef, 0b1011_0000]
        {
            let positions = (0..64).filter(|position| bits >> position & 1 != 0);
            for (rank, position) in positions.enumerate() {
                assert_eq!(nth_set_bit(bits, rank as u32), position, "{bits:x}, {rank}");
            }
        }
    }
}
