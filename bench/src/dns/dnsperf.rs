//! Runs dnsperf and reads its results.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use testbed::{packages, process};

use super::servers::{Launcher, Server};
use crate::host;

/// How long dnsperf may take beyond the time of its load.
pub(super) const GRACE: Duration = Duration::from_secs(20);

/// The results of one turn of a server.
#[derive(Clone, Copy)]
pub(super) struct Measured {
    /// Queries a second.
    pub(super) rate: f64,
    /// Processor time of the server, in microseconds per query.
    pub(super) cpu: f64,
    /// How busy cores 0 and 1 were, in percent.
    pub(super) busy: [f64; 2],
    /// Queries without an answer.
    pub(super) lost: u64,
}

/// Writes the file that dnsperf reads its queries from.
pub(super) fn write_queries(
    folder: &Path,
    name: &str,
    lines: impl IntoIterator<Item = String>,
) -> Result<PathBuf> {
    let path = folder.join(name);
    let text: String = lines.into_iter().map(|line| line + "\n").collect();
    fs::write(&path, text).with_context(|| format!("failed to write {}", path.display()))?;
    Ok(path)
}

/// The arguments of a dnsperf run.
pub(super) struct Dnsperf<'a> {
    /// The file of queries.
    pub(super) queries: &'a Path,
    /// The largest number of queries in flight.
    pub(super) outstanding: u32,
    pub(super) seconds: u32,
}

impl Dnsperf<'_> {
    /// Puts a server under load, from core 0.
    pub(super) fn run(&self, launcher: &Launcher<'_>, server: &Server) -> Result<Measured> {
        let Self { queries, outstanding, seconds } = *self;
        let mut command = launcher.pinned(0, &packages::path_of("dnsperf")?)?;
        command
            .args(["-s", "127.0.0.1", "-c", "8", "-T", "1", "-t", "1"])
            .args(["-p", &server.address.port().to_string(), "-q", &outstanding.to_string()])
            .args(["-l", &seconds.to_string(), "-d"])
            .arg(queries);
        let (before, cores) = (host::cpu_time(server.child.id())?, host::core_times()?);
        let output = process::finish(command, GRACE + Duration::from_secs(seconds.into()))?
            .success()?
            .stdout;
        let cpu = host::cpu_time(server.child.id())? - before;
        let since: Vec<[u64; 2]> = host::core_times()?
            .iter()
            .zip(cores)
            .map(|(now, then)| [now[0] - then[0], now[1] - then[1]])
            .collect();
        let busy = [0, 1].map(|core| {
            since.get(core).map_or(0.0, |[busy, all]| *busy as f64 * 100.0 / (*all).max(1) as f64)
        });
        let completed = figure(&output, "Queries completed:")?;
        ensure!(completed > 0.0, "{} answered no query", server.name);
        Ok(Measured {
            rate: figure(&output, "Queries per second:")?,
            cpu: cpu / completed,
            busy,
            lost: figure(&output, "Queries lost:")? as u64,
        })
    }
}

/// The number behind a label of dnsperf's output.
pub(super) fn figure(output: &str, label: &str) -> Result<f64> {
    let line = output
        .lines()
        .find_map(|line| line.trim().strip_prefix(label))
        .with_context(|| format!("dnsperf printed no {label}"))?;
    let word = line.split_ascii_whitespace().next().and_then(|word| word.parse().ok());
    word.with_context(|| format!("dnsperf's {label} is not a number"))
}
