//! Options that the benchmarks share, and where results go.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, ensure};
use testbed::workspace;

/// Addresses that a pool of 65,536 has to lease: all but its first and last.
pub(crate) const FULL_POOL: u32 = 65_534;

/// Options of a benchmark.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct Options {
    /// A few rounds of everything, as a test; the figures mean little
    #[arg(long)]
    pub quick: bool,
    /// The redirector to measure [default: the release binary of `cargo xtask build`]
    #[arg(long, value_name = "FILE")]
    pub binary: Option<PathBuf>,
    /// The folder for the results [default: bench/results; none with --quick]
    #[arg(long, value_name = "DIR")]
    pub output: Option<PathBuf>,
}

impl Options {
    /// The folder for the results, if they are written.
    pub(crate) fn folder(&self) -> Option<PathBuf> {
        self.output
            .clone()
            .or_else(|| (!self.quick).then(|| workspace::root().join("bench/results")))
    }

    /// The redirector to measure; an error where this user cannot measure.
    pub(crate) fn measurable(&self) -> Result<PathBuf> {
        ensure!(
            rustix::process::geteuid().is_root(),
            "the benchmark makes namespaces, cgroups and eBPF programs: run it as root"
        );
        let binary = self.binary.clone().unwrap_or_else(workspace::release_binary);
        // Absolute, since programs of the rig start in other folders.
        binary.canonicalize().with_context(|| {
            format!("there is no {}: run `cargo xtask build` first", binary.display())
        })
    }
}

/// The last core that this process may use: the first one often serves the devices.
pub(crate) fn last_core() -> Result<usize> {
    let allowed =
        rustix::thread::sched_getaffinity(None).context("failed to read the allowed cores")?;
    (0..rustix::thread::CpuSet::MAX_CPU)
        .rev()
        .find(|&core| allowed.is_set(core))
        .context("no core is allowed")
}

/// A report as a file of JSON.
pub(crate) fn json(report: &impl serde::Serialize) -> Result<String> {
    Ok(serde_json::to_string_pretty(report).context("failed to write the report as JSON")? + "\n")
}

pub(crate) fn write_files(folder: &Path, files: &[(&str, String)]) -> Result<()> {
    fs::create_dir_all(folder).with_context(|| format!("failed to create {}", folder.display()))?;
    files.iter().try_for_each(|(name, text)| {
        let path = folder.join(name);
        fs::write(&path, text).with_context(|| format!("failed to write {}", path.display()))
    })
}
