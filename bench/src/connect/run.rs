//! `cargo xtask bench connect`: what the redirector costs a connect, next to nothing at all, to
//! programs that do nothing, and to its peers.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use anyhow::Result;

use super::{
    plan::{self, Effort},
    plot, render,
    report::Report,
};
use crate::options::{Options, json, write_files};

/// Measures, prints the result, and writes it into the results' folder.
pub fn run(options: &Options) -> Result<()> {
    let report = measure(options)?;
    print!("{}", render::table(&report));
    if let Some(folder) = options.folder() {
        write(&report, &folder)?;
        eprintln!("written to {}", folder.join("connect.{json,md,svg}").display());
    }
    Ok(())
}

/// Measures connects; needs root. Takes less than three minutes, a quick run some seconds.
pub fn measure(options: &Options) -> Result<Report> {
    let binary = options.measurable()?;
    let started = Instant::now();
    let effort = if options.quick { Effort::QUICK } else { Effort::FULL };
    let mut report = Report::begin()?;
    plan::run(&binary, &effort, &mut report)?;
    report.finish(Duration::as_secs_f64(&started.elapsed()));
    Ok(report)
}

/// Writes `connect.json`, `connect.md` and `connect.svg` into `folder`.
pub fn write(report: &Report, folder: &Path) -> Result<()> {
    write_files(
        folder,
        &[
            ("connect.json", json(report)?),
            ("connect.md", render::markdown(report)),
            ("connect.svg", plot::svg(report)),
        ],
    )
}
