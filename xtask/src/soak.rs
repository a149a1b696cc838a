//! `cargo xtask soak`: builds the release binary, and calls the crate `soak`.

use std::fmt::Write as _;

use anyhow::Context as _;
pub(crate) use soak::Options as Args;

use crate::build;

/// Runs the soaks; false when one of them broke the contract.
pub(crate) fn run(args: &Args) -> anyhow::Result<bool> {
    // Before the build: a selection of nothing is refused at once.
    let schedules = args.schedules()?;
    if args.list {
        schedules.iter().for_each(|line| println!("{line}"));
        return Ok(true);
    }
    if args.binary.is_none() {
        build::ensure_with_tools()?;
    }
    let (mut flawless, mut text) = (true, String::new());
    let reports = soak::run(args, |report| println!("{report}"))?;
    for report in &reports {
        flawless &= report.is_flawless();
        writeln!(text, "{report}")?;
    }
    if let Some(path) = &args.output {
        std::fs::write(path, text)
            .with_context(|| format!("failed to write {}", path.display()))?;
    }
    Ok(flawless)
}
