//! The machine of a benchmark, and the resources that a process uses.

use std::fs;

use anyhow::{Context as _, Result};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// The current time, in UTC.
pub(crate) fn now() -> String {
    jiff::Timestamp::now().strftime("%Y-%m-%d %H:%M UTC").to_string()
}

/// The kernel's release.
pub(crate) fn kernel() -> String {
    rustix::system::uname().release().to_string_lossy().into_owned()
}

/// The processor and the number of its cores.
pub(crate) fn processor() -> String {
    let cpu = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpu
        .lines()
        .find_map(|line| line.strip_prefix("model name")?.split_once(": "))
        .map_or("unknown processor", |(_, name)| name);
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    format!("{model}, {cores} cores")
}

/// Processor, cores and kernel, as a line.
pub(crate) fn machine() -> String {
    format!("{}, Linux {}", processor(), kernel())
}

/// The load average of one minute.
pub(crate) fn load() -> f64 {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split_ascii_whitespace().next().and_then(|word| word.parse().ok()).unwrap_or(0.0)
}

/// Whether other work may have disturbed a measurement, for the first lines of a report.
pub(crate) fn describe_load(load: f64) -> &'static str {
    if load > BUSY { "a busy machine" } else { "an otherwise idle machine" }
}

/// A load average above which other work disturbs a measurement on two cores.
pub(crate) const BUSY: f64 = 2.5;

/// Processor time of all threads of a process, in microseconds.
pub(crate) fn cpu_time(pid: u32) -> Result<f64> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task"))
        .with_context(|| format!("failed to list the threads of process {pid}"))?;
    let nanoseconds = |task: fs::DirEntry| -> Option<f64> {
        fs::read_to_string(task.path().join("schedstat"))
            .ok()?
            .split_ascii_whitespace()
            .next()?
            .parse()
            .ok()
    };
    Ok(tasks.filter_map(|task| nanoseconds(task.ok()?)).sum::<f64>() / 1e3)
}

/// Resident memory in KiB; 0 for a process that has ended.
pub(crate) fn resident_kib(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|line| line.split_ascii_whitespace().next()?.parse().ok()).unwrap_or(0)
}

/// The busy time and the whole time of each core since boot, in clock ticks.
pub(crate) fn core_times() -> Result<Vec<[u64; 2]>> {
    let text = fs::read_to_string("/proc/stat").context("failed to read /proc/stat")?;
    let cores = text.lines().filter(|line| line.starts_with("cpu") && !line.starts_with("cpu "));
    let core = |line: &str| {
        let ticks: Vec<u64> =
            line.split_ascii_whitespace().skip(1).map(|word| word.parse().unwrap_or(0)).collect();
        // The time of guests, from the ninth column on, is part of the user's. The fourth and fifth
        // columns are idle time and waiting for a disk.
        let all = ticks.iter().take(8).sum::<u64>();
        [all - ticks.iter().skip(3).take(2).sum::<u64>(), all]
    };
    Ok(cores.map(core).collect())
}

/// Allows as many descriptors as this process may have.
pub(crate) fn allow_descriptors() -> Result<()> {
    let maximum = getrlimit(Resource::Nofile).maximum;
    setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum })
        .context("failed to allow more descriptors")
}
