//! How many successes the kernel emits: all of them, or one of 2^n while there are many.

use std::time::{Duration, Instant};

use redirector_common::sampling::Sampling;

use crate::datapath::Event;

/// Above this many successes a second they are sampled.
pub(crate) const MAX_RATE: u64 = 2000;
/// The same while nobody reads: only the last thousand events are kept for the next reader, and
/// emitting an event costs as much as selecting a backend.
pub(crate) const MAX_RATE_UNREAD: u64 = 200;

/// Counts successes by the second.
pub(crate) struct SuccessRate {
    since: Instant,
    successes: u64,
}

impl Default for SuccessRate {
    fn default() -> Self {
        Self { since: Instant::now(), successes: 0 }
    }
}

impl SuccessRate {
    /// Adds the successes among `events`. Returns the number of the last second once it is over.
    pub(crate) fn add(&mut self, events: &[Event]) -> Option<u64> {
        self.successes += events.iter().filter(|event| event.kind.is_sampled()).count() as u64;
        if self.since.elapsed() < Duration::from_secs(1) {
            return None;
        }
        Some(std::mem::take(self).successes)
    }
}

/// The next sampling, as a power of two, after a second with `emitted` successes of which `max`
/// are wanted: as much higher as they need to fit, or lower while twice as many still fit.
pub(crate) fn next_sampling(now: u8, emitted: u64, max: u64) -> u8 {
    if emitted > max {
        let steps = emitted.div_ceil(max).next_power_of_two().trailing_zeros();
        now.saturating_add(u8::try_from(steps).unwrap_or(Sampling::MAX_RATIO_LOG2))
            .min(Sampling::MAX_RATIO_LOG2)
    } else {
        let steps = (max / 2 / emitted.max(1)).checked_ilog2().unwrap_or(0);
        now.saturating_sub(u8::try_from(steps).unwrap_or(Sampling::MAX_RATIO_LOG2))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sampling_follows_the_rate_of_successes() {
        assert_eq!(next_sampling(0, 0, MAX_RATE), 0);
        assert_eq!(next_sampling(0, MAX_RATE, MAX_RATE), 0);
        // 40,000 a second: one in 32 makes 1,250.
        assert_eq!(next_sampling(0, 40_000, MAX_RATE), 5);
        assert_eq!(next_sampling(5, 1250, MAX_RATE), 5, "unchanged");
        assert_eq!(
            next_sampling(5, 500, MAX_RATE),
            4,
            "twice as many fit, four times as many would not"
        );
        assert_eq!(next_sampling(9, u64::MAX, MAX_RATE), Sampling::MAX_RATIO_LOG2);
        assert_eq!(next_sampling(9, 0, MAX_RATE), 0, "idle");
        // 5,000 a second, while a reader comes and goes.
        assert_eq!(
            [
                next_sampling(5, 156, MAX_RATE),
                next_sampling(3, 625, MAX_RATE),
                next_sampling(3, 625, MAX_RATE_UNREAD)
            ],
            [3, 3, 5]
        );
    }
}
