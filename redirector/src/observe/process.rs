//! The metrics of this process, with the names that Prometheus clients share.

use procfs::{CurrentSI, KernelStats, ProcError, process::Process};

/// Name and value of each number that can be read.
pub(super) fn read() -> Vec<(&'static str, f64)> {
    let mut values = stat().unwrap_or_default();
    if let Ok(count) = Process::myself().and_then(|process| process.fd_count()) {
        // One of them is the directory itself.
        values.push(("process_open_fds", count.saturating_sub(1) as f64));
    }
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    values.push(("process_max_fds", limit.map_or(f64::INFINITY, |limit| limit as f64)));
    values
}

/// Values of proc_pid_stat(5).
fn stat() -> Result<Vec<(&'static str, f64)>, ProcError> {
    let stat = Process::myself()?.stat()?;
    let tick = procfs::ticks_per_second() as f64;
    let resident = stat.rss as f64 * procfs::page_size() as f64;
    let mut values = vec![
        ("process_cpu_seconds", (stat.utime + stat.stime) as f64 / tick),
        ("process_threads", stat.num_threads as f64),
        ("process_virtual_memory_bytes", stat.vsize as f64),
        ("process_resident_memory_bytes", resident),
    ];
    if let Ok(kernel) = KernelStats::current() {
        let started = kernel.btime as f64 + stat.starttime as f64 / tick;
        values.push(("process_start_time_seconds", started));
    }
    Ok(values)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_metrics_of_this_process_are_plausible() {
        let values: std::collections::BTreeMap<_, _> = read().into_iter().collect();
        assert_eq!(values.len(), 7, "{values:?}");
        assert!(
            values["process_resident_memory_bytes"] > 1e6
                && values["process_threads"] >= 1.0
                && values["process_open_fds"] >= 3.0
        );
        let now = jiff::Timestamp::now().as_second() as f64;
        assert!((now - values["process_start_time_seconds"]).abs() < 3600.0 * 24.0, "{values:?}");
    }
}
