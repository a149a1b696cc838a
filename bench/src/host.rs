//! The machine that a benchmark runs on, and what a process takes of it.

use std::fs;

use anyhow::{Context as _, Result};

/// Processor, cores and kernel, as a line.
pub(super) fn machine() -> String {
    let cpu = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpu
        .lines()
        .find_map(|line| line.strip_prefix("model name"))
        .map_or("?", |line| line.trim_start_matches([' ', '\t', ':']));
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    format!("{model}, {cores} cores, Linux {}", kernel.trim())
}

/// Load average of one minute.
pub(super) fn load() -> f64 {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split_ascii_whitespace().next().and_then(|word| word.parse().ok()).unwrap_or(0.0)
}

/// What else the machine did while something was measured, for a report's first lines.
pub(super) fn company(load: f64) -> &'static str {
    if load > 2.5 {
        "a machine whose cores others used, too"
    } else {
        "a machine that is idle otherwise"
    }
}

/// Time that all threads of a process were on a processor, in microseconds.
pub(super) fn processor_time(pid: u32) -> Result<f64> {
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

/// Resident memory in KiB; 0 of a process that is gone.
pub(super) fn resident_kib(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|line| line.split_ascii_whitespace().next()?.parse().ok()).unwrap_or(0)
}

/// How long each core was busy since the machine started, and how long it has run, in ticks of the
/// clock.
pub(super) fn cores() -> Result<Vec<[u64; 2]>> {
    let text = fs::read_to_string("/proc/stat").context("failed to read /proc/stat")?;
    let cores = text.lines().filter(|line| line.starts_with("cpu") && !line.starts_with("cpu "));
    let core = |line: &str| {
        let ticks: Vec<u64> =
            line.split_ascii_whitespace().skip(1).map(|word| word.parse().unwrap_or(0)).collect();
        // The guests' time, from the ninth on, is in the user's. Fourth and fifth: idle, and
        // waiting for a disk.
        let all = ticks.iter().take(8).sum::<u64>();
        [all - ticks.iter().skip(3).take(2).sum::<u64>(), all]
    };
    Ok(cores.map(core).collect())
}
