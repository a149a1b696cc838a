//! Tests by arithmetic alone, since branches add states for the verifier.

/// 1 if `number` is 0, else 0.
#[inline(always)]
pub(crate) const fn zero_bit(number: u32) -> u64 {
    (number as u64).wrapping_sub(1) >> 63
}
