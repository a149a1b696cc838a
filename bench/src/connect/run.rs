//! `cargo xtask bench connect`: the cost of a connect with redirector, compared with a bare one,
//! with empty programs, and with redirector's peers.

use std::{
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Context, Result};

use super::{
    plan::{self, Effort},
    plot, render,
    report::Report,
};
use crate::options::{self, json, write_files};

/// Options of `cargo xtask bench connect`.
#[derive(Clone, Debug, Default, clap::Args)]
#[group(skip)]
pub struct Options {
    /// Options of all benchmarks.
    #[command(flatten)]
    pub common: options::Options,
    /// Another build of the redirector, which takes turns with this one on a node of its own
    #[arg(long, value_name = "FILE")]
    pub baseline: Option<PathBuf>,
}

/// Measures, prints the result, and writes it into the results' folder.
pub fn run(options: &Options) -> Result<()> {
    let report = measure(options)?;
    print!("{}", render::table(&report));
    if let Some(folder) = options.common.folder() {
        write(&report, &folder)?;
        eprintln!("written to {}", folder.join("connect.{json,md,svg}").display());
    }
    Ok(())
}

/// Measures connects; needs root. Takes less than three minutes, a quick run some seconds.
pub fn measure(options: &Options) -> Result<Report> {
    let binary = options.common.measurable()?;
    let baseline = options
        .baseline
        .as_ref()
        .map(|path| path.canonicalize().with_context(|| format!("there is no {}", path.display())))
        .transpose()?;
    let started = Instant::now();
    let effort = if options.common.quick { Effort::QUICK } else { Effort::FULL };
    let mut report = Report::begin()?;
    report.baseline = baseline.as_ref().map(|path| path.display().to_string());
    plan::run(&binary, baseline.as_deref(), &effort, &mut report)?;
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
