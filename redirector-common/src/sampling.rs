//! Samples the events of successful connects when there are more than a reader can process.

use crate::table_type::table_type;

/// The sampling of events in one byte, in [`crate::agent::Control`] for all connects and in
/// [`crate::origin::Origin`] for one of them, decided when it begins: a connect's events are
/// reported all or not at all. Failures have a budget of their own: see
/// [`crate::event_budget`].
///
/// | bits | content |
/// |---|---|
/// | 0–6 | 0: nobody reads events; `n`: one in 2ⁿ⁻¹ successes is reported |
/// | 7 | this connect's success is not reported |
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(transparent)]
pub struct Sampling(u8);
table_type!(Sampling, 1);

impl Sampling {
    /// Nobody reads events.
    pub const OFF: Self = Self(0);
    /// Every connect is reported.
    pub const ALL: Self = Self(1);
    /// The highest sampling ratio as a power of two.
    pub const MAX_RATIO_LOG2: u8 = 10;

    const SUCCESS_SKIPPED_SHIFT: u32 = 7;
    const SUCCESS_SKIPPED: u8 = 1 << Self::SUCCESS_SKIPPED_SHIFT;

    /// One in 2^`log2` successes is reported, at least one in 2^[`Sampling::MAX_RATIO_LOG2`].
    pub const fn with_ratio_log2(log2: u8) -> Self {
        Self(if log2 < Self::MAX_RATIO_LOG2 { log2 + 1 } else { Self::MAX_RATIO_LOG2 + 1 })
    }

    /// From the byte.
    #[inline(always)]
    pub const fn from_bits(bits: u8) -> Self {
        Self(bits)
    }

    /// Whether nobody reads events.
    #[inline(always)]
    pub const fn is_off(self) -> bool {
        self.0 == 0
    }

    /// 0: nobody reads events; 1: every connect is reported; more: successes are sampled. For code
    /// that must compile to comparisons with constants.
    #[inline(always)]
    pub const fn level(self) -> u8 {
        self.0
    }

    /// The sampling of one connect. Not for [`Sampling::OFF`].
    ///
    /// It has no branch: each would double the states that the verifier follows.
    #[inline(always)]
    pub const fn draw(self, random: u32) -> Self {
        let others = random & ((1 << (self.ratio_log2() & 31)) - 1);
        Self(self.0 & !Self::SUCCESS_SKIPPED | ((others != 0) as u8) << Self::SUCCESS_SKIPPED_SHIFT)
    }

    /// Whether a success of this connect is reported.
    #[inline(always)]
    pub const fn reports_success(self) -> bool {
        self.0 != 0 && self.0 & Self::SUCCESS_SKIPPED == 0
    }

    /// How many successes one reported success represents.
    pub const fn ratio(self) -> u32 {
        1 << Self(self.0 & !Self::SUCCESS_SKIPPED).ratio_log2()
    }

    #[inline(always)]
    const fn ratio_log2(self) -> u8 {
        let log2 = self.0.saturating_sub(1);
        if log2 > Self::MAX_RATIO_LOG2 { Self::MAX_RATIO_LOG2 } else { log2 }
    }
}

/// A pseudo-random number from the number of a route's connects, which saves the helper call for a
/// random number. It is 0 for the first connect, which is therefore reported.
#[inline(always)]
pub const fn scramble(connects: u32) -> u32 {
    connects.wrapping_mul(0x9e37_79b1) >> 16
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_success_in_two_to_the_n_is_reported_and_every_failure() {
        for log2 in [0, 1, 5, Sampling::MAX_RATIO_LOG2] {
            let draw = |random| Sampling::with_ratio_log2(log2).draw(random);
            assert_eq!(
                (0..4096).filter(|&random| draw(random).reports_success()).count(),
                4096 >> log2
            );
            assert!(
                (0..4096).all(|random| !draw(random).is_off() && draw(random).ratio() == 1 << log2)
            );
        }
        for log2 in 0..=Sampling::MAX_RATIO_LOG2 {
            let reported = (0..1 << 16)
                .filter(|&connects| {
                    Sampling::with_ratio_log2(log2).draw(scramble(connects)).reports_success()
                })
                .count();
            assert!(
                reported.abs_diff(1 << 16 >> log2) <= 1 << 16 >> log2 >> 3,
                "{reported} of 65,536 for one in 2^{log2}"
            );
        }
        assert!(!Sampling::OFF.reports_success());
        assert_eq!(
            Sampling(127).draw(0).ratio(),
            1 << Sampling::MAX_RATIO_LOG2,
            "no agent writes this"
        );
    }
}
