//! Medians and their spread.

use serde::{Deserialize, Serialize};

/// The median of many measurements, and its confidence interval.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Spread {
    /// Half of the measurements are below it.
    pub median: f64,
    /// With 95 % confidence, the median is not below this.
    pub low: f64,
    /// With 95 % confidence, the median is not above this.
    pub high: f64,
    /// A quarter of the measurements are below it: the noise of a measurement, not of the median.
    pub quartile_1: f64,
    /// A quarter of the measurements are above it.
    pub quartile_3: f64,
}

impl Spread {
    /// The spread of some measurements; all zero if there are none.
    pub(crate) fn of(mut values: Vec<f64>) -> Self {
        values.sort_by(f64::total_cmp);
        let at = |position: f64| {
            values
                .get(position.round().clamp(0.0, values.len().saturating_sub(1) as f64) as usize)
                .copied()
        };
        let last = values.len().saturating_sub(1) as f64;
        // The order statistics that enclose the median: binomial, by its normal approximation.
        let reach = 1.96 * (values.len() as f64).sqrt() / 2.0;
        let pick = |position: f64| at(position).unwrap_or_default();
        Self {
            median: pick(last / 2.0),
            low: pick(last / 2.0 - reach),
            high: pick(last / 2.0 + reach),
            quartile_1: pick(last / 4.0),
            quartile_3: pick(last * 3.0 / 4.0),
        }
    }

    /// The spread of the same measurements, each multiplied by `factor`.
    pub(crate) fn scaled(self, factor: f64) -> Self {
        let Self { median, low, high, quartile_1, quartile_3 } = self;
        let [median, low, high, quartile_1, quartile_3] =
            [median, low, high, quartile_1, quartile_3].map(|value| value * factor);
        Self { median, low, high, quartile_1, quartile_3 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_confidence_interval_lies_between_the_quartiles() {
        let spread = Spread::of((0..=1000).rev().map(f64::from).collect());
        assert_eq!((spread.median, spread.quartile_1, spread.quartile_3), (500.0, 250.0, 750.0));
        assert!(
            (468.0..=470.0).contains(&spread.low) && (530.0..=532.0).contains(&spread.high),
            "{spread:?}"
        );
    }

    #[test]
    fn one_measurement_is_its_own_spread_and_none_is_zero() {
        let one = Spread::of(vec![3.0]);
        assert_eq!((one.low, one.median, one.high), (3.0, 3.0, 3.0));
        assert_eq!(Spread::of(Vec::new()), Spread::default());
    }
}
