//! Memory over a long time: the shim under a steady, mixed load, its resident memory read every ten
//! seconds.

use std::{
    thread,
    time::{Duration, Instant},
};

use anyhow::Result;
use serde::{Deserialize, Serialize};

use super::{
    dnsperf::{GRACE, figure, write_queries},
    servers::{LOCAL, Launcher, NAMES, Server, ZONE},
};
use crate::host;
use testbed::{packages, process};

/// Queries a second, half of them for the upstream: the load of a busy node.
const RATE: u32 = 5000;
/// The interval of the readings.
const EVERY: Duration = Duration::from_secs(10);

/// The results of a soak.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Soak {
    /// Its duration in seconds.
    pub seconds: u32,
    /// Answered queries.
    pub queries: u64,
    /// Queries without an answer.
    pub lost: u64,
    /// Resident memory of the shim in KiB, every ten seconds.
    pub memory_kib: Vec<u64>,
}

impl Soak {
    /// The largest readings of the first and of the last minute; equal, except for noise, when
    /// memory is flat.
    pub(super) fn ends(&self) -> (u64, u64) {
        let minute = self.memory_kib.len().min(6);
        let most = |readings: &[u64]| readings.iter().max().copied().unwrap_or(0);
        (most(&self.memory_kib[..minute]), most(&self.memory_kib[self.memory_kib.len() - minute..]))
    }
}

/// Puts the shim under load for `seconds`.
pub(super) fn run(launcher: &Launcher<'_>, shim: &Server, seconds: u32) -> Result<Soak> {
    let names = (0..NAMES).flat_map(|n| [format!("{LOCAL} A"), format!("s{n}.{ZONE} A")]);
    let queries = write_queries(launcher.folder, "soak", names)?;
    let mut command = launcher.pinned(0, &packages::path_of("dnsperf")?)?;
    command
        .args(["-s", "127.0.0.1", "-c", "8", "-T", "1", "-q", "100", "-p"])
        .arg(shim.address.port().to_string());
    command
        .arg("-d")
        .arg(queries)
        .arg("-l")
        .arg(seconds.to_string())
        .arg("-Q")
        .arg(RATE.to_string());
    let limit = GRACE + Duration::from_secs(seconds.into());
    let load = thread::spawn(move || process::finish(command, limit));
    let (started, mut memory_kib) = (Instant::now(), Vec::new());
    while !load.is_finished() && started.elapsed() < limit {
        memory_kib.push(host::resident_kib(shim.child.id()));
        eprint!("\rsoak: {} of {seconds} s  ", started.elapsed().as_secs());
        let next = Instant::now() + EVERY;
        while !load.is_finished() && Instant::now() < next {
            thread::sleep(Duration::from_millis(200));
        }
    }
    eprintln!();
    let finished = load
        .join()
        .map_err(|_| anyhow::anyhow!("the thread that runs dnsperf panicked"))??
        .success()?;
    Ok(Soak {
        seconds,
        queries: figure(&finished.stdout, "Queries completed:")? as u64,
        lost: figure(&finished.stdout, "Queries lost:")? as u64,
        memory_kib,
    })
}
