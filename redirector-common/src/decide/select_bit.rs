//! Searching the bits of a word by arithmetic alone: no branch, no loop, nothing for the verifier
//! to multiply.

/// The place of the set bit that has `rank` set ones below it. Meaningless when there are no more
/// than `rank`.
#[inline(always)]
pub(super) const fn select(bits: u64, rank: u32) -> u32 {
    let search = (0, rank);
    let search = narrow(bits, search, 32);
    let search = narrow(bits, search, 16);
    let search = narrow(bits, search, 8);
    let search = narrow(bits, search, 4);
    let search = narrow(bits, search, 2);
    narrow(bits, search, 1).0
}

/// Leaves the lower `width` bits from `place` on behind if the one that is searched for is above
/// them.
#[inline(always)]
const fn narrow(bits: u64, (place, rank): (u32, u32), width: u32) -> (u32, u32) {
    let below = (bits >> place & ((1 << width) - 1)).count_ones();
    // All ones if `below <= rank`, else 0.
    let above = ((below.wrapping_sub(rank + 1) as i32) >> 31) as u32;
    (place + (width & above), rank - (below & above))
}

/// 1 for 0, else 0.
#[inline(always)]
pub(super) const fn zero_bit(number: u32) -> u64 {
    (number as u64).wrapping_sub(1) >> 63
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_set_bit_is_found_by_its_rank() {
        for bits in
            [1, 1 << 63, u64::MAX, 0x8000_0001_0000_8001, 0x0123_4567_89ab_cdef, 0b1011_0000]
        {
            let places = (0..64).filter(|place| bits >> place & 1 != 0);
            for (rank, place) in places.enumerate() {
                assert_eq!(select(bits, rank as u32), place, "{bits:x}, {rank}");
            }
        }
    }
}
