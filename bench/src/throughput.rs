//! `cargo xtask bench throughput`: long transfers through redirector and each peer, and their
//! processor time.

use std::time::Duration;

use anyhow::Result;

use crate::{
    comparison::publish,
    options::Options,
    peers::{
        lineup::{Lineup, Measure},
        peer::Routes,
        report::Report,
    },
    worker::{BLOCK, Operation},
};

/// Blocks of 64 KiB of a batch.
const BLOCKS: u32 = 128;
/// Rounds and seconds of a comparison.
const FULL: (usize, Duration) = (2000, Duration::from_secs(60));
const QUICK: (usize, Duration) = (3, Duration::from_secs(2));

/// Measures, prints the result, and writes it into the results' folder.
pub fn run(options: &Options) -> Result<()> {
    publish(&measure(options)?, options, "throughput", "Long transfers")
}

/// Measures on a site of its own; needs root.
pub fn measure(options: &Options) -> Result<Report> {
    let (mut lineup, mut report) = Lineup::with_report(options, 1, 1)?;
    lineup.load(Routes::single(1))?;
    let chosen = lineup.select(|peer| !peer.is_dns_only());
    let limit = if options.quick { QUICK } else { FULL };
    for (operation, direction) in [(Operation::Upload, "up"), (Operation::Download, "down")] {
        eprintln!("measuring transfers {direction}");
        let rate = format!("transfer {direction}, all ends on one core");
        let time = format!("processor time of a transfer {direction}");
        let measures = [
            Measure::more_is_better(&rate, "GB/s", |nanoseconds| BLOCK as f64 / nanoseconds),
            // Seconds and gigabytes: a billion of each unit.
            Measure::less_is_better(&time, "s/GB", |nanoseconds| nanoseconds / BLOCK as f64),
        ];
        let figures = lineup.turns(&measures, (operation, BLOCKS), &chosen, limit)?;
        report.figures.extend(figures);
    }
    Ok(report.finish())
}
