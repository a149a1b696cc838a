//! `cargo xtask test`: formatting, dependencies, lints, unit tests, documentation, the real-kernel
//! tests, the image, the demo, the other kernels and the fuzz targets.
//!
//! A stage that fails shows all of its output and does not stop the others, except those that need
//! it. The last line is `N passed, N failed`.

mod dependencies;
mod libtest;
mod outcome;
mod plan;
mod report;
mod run;
mod stage;

use std::time::Instant;

use crate::progress::seconds;

/// Arguments of `cargo xtask test`.
#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    /// Leave out what needs a release build: the image, the demo, the other kernels and the fuzz
    /// targets
    #[arg(long)]
    quick: bool,
    /// Only run the tests whose name contains this, and no other check
    filter: Option<String>,
}

/// Runs the stages; whether all passed.
pub(crate) fn run(args: &Args) -> anyhow::Result<bool> {
    let started = Instant::now();
    let phases = match &args.filter {
        Some(filter) => plan::filtered(filter, args.quick)?,
        None => plan::complete(args.quick)?,
    };
    let report = run::run(&phases);
    print!("{report}");
    println!("in {}", seconds(started.elapsed()));
    let counts = report.counts();
    println!("{} passed, {} failed", counts.passed, counts.failed);
    Ok(counts.failed == 0)
}
