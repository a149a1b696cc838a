//! A histogram of durations.

use std::{
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Duration,
};

/// Upper bounds of the buckets, in microseconds: a local answer takes tens of microseconds, a round
/// trip over the Internet 100,000.
const BOUNDS: [u64; 18] = [
    10, 25, 50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000,
    500_000, 1_000_000, 2_500_000, 5_000_000,
];

/// Times of one kind, counted by bucket.
#[derive(Debug, Default)]
pub(crate) struct Histogram {
    /// The last bucket has no upper bound.
    buckets: [AtomicU64; BOUNDS.len() + 1],
    sum_nanoseconds: AtomicU64,
}

/// The content of a histogram at one time.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct HistogramSnapshot {
    /// Sum of all times, in seconds.
    pub sum_seconds: f64,
    /// For each bucket its upper bound in seconds, the last one infinite, and the number of times
    /// in this bucket alone.
    pub buckets: Vec<(f64, u64)>,
}

impl Histogram {
    /// Adds `time` to the histogram, `count` times.
    pub(crate) fn record(&self, time: Duration, count: u64) {
        let micros = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        let bucket = BOUNDS.partition_point(|bound| *bound < micros);
        self.buckets[bucket].fetch_add(count, Relaxed);
        let nanos = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        self.sum_nanoseconds.fetch_add(nanos.saturating_mul(count), Relaxed);
    }

    pub(crate) fn snapshot(&self) -> HistogramSnapshot {
        let bounds = BOUNDS.iter().map(|micros| *micros as f64 / 1e6).chain([f64::INFINITY]);
        let buckets = bounds.zip(self.buckets.iter().map(|bucket| bucket.load(Relaxed))).collect();
        let sum_seconds = self.sum_nanoseconds.load(Relaxed) as f64 / 1e9;
        HistogramSnapshot { sum_seconds, buckets }
    }
}

impl HistogramSnapshot {
    /// Number of times in all buckets.
    pub fn count(&self) -> u64 {
        self.buckets.iter().map(|(_, count)| count).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_counts_in_the_first_bucket_whose_bound_it_meets() {
        let histogram = Histogram::default();
        for micros in [0, 10, 11, 25, 5_000_000, 5_000_001] {
            histogram.record(Duration::from_micros(micros), 2);
        }
        let HistogramSnapshot { sum_seconds, buckets } = histogram.snapshot();
        let full: Vec<_> = buckets.iter().filter(|(_, count)| *count > 0).copied().collect();
        assert_eq!(full, [(1e-5, 4), (2.5e-5, 4), (5.0, 2), (f64::INFINITY, 2)]);
        assert!((sum_seconds - 20.000_094).abs() < 1e-9, "{sum_seconds}");
    }
}
