//! One measurement of each variant in every round, each round in another order.

use std::time::{Duration, Instant};

use anyhow::Result;

/// Rounds whose times are discarded: caches, predictors and the core's clock settle.
pub(crate) const WARM_UP: usize = 3;

/// Nanoseconds, by variant and round.
#[derive(Clone, Debug)]
pub(crate) struct Turns(Vec<Vec<f64>>);

impl Turns {
    /// All times.
    pub(crate) fn into_times(self) -> Vec<Vec<f64>> {
        self.0
    }

    /// The quotients of two variants within each round.
    pub(crate) fn ratios(&self, mine: usize, base: usize) -> Vec<f64> {
        self.0[mine].iter().zip(&self.0[base]).map(|(mine, base)| mine / base).collect()
    }

    /// The times of a variant.
    pub(crate) fn microseconds(&self, which: usize) -> Vec<f64> {
        self.0[which].iter().map(|nanoseconds| nanoseconds / 1e3).collect()
    }
}

/// Measures until one of the limits is reached: rounds, or time.
pub(crate) fn alternate(
    variants: usize,
    (rounds, time): (usize, Duration),
    mut measure: impl FnMut(usize) -> Result<f64>,
) -> Result<Turns> {
    let mut times = vec![Vec::new(); variants];
    let began = Instant::now();
    for round in 0..rounds + WARM_UP {
        if round > 2 * WARM_UP && began.elapsed() > time {
            break;
        }
        for position in 0..variants {
            // Rotated, and every other round backwards: no variant always follows the same one.
            let turn = if round % 2 == 0 { position } else { variants - 1 - position };
            let which = (turn + round / 2) % variants;
            let nanoseconds = measure(which)?;
            if round >= WARM_UP {
                times[which].push(nanoseconds);
            }
        }
    }
    Ok(Turns(times))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_variant_has_one_time_in_each_round() {
        let turns = alternate(3, (4, Duration::from_secs(60)), |which| Ok(which as f64)).unwrap();
        assert_eq!(turns.0, [vec![0.0; 4], vec![1.0; 4], vec![2.0; 4]]);
        assert_eq!(turns.ratios(2, 1), [2.0; 4]);
    }
}
