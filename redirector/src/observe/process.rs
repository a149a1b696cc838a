//! What the system says of this process, in the names that Prometheus clients share.

use std::fs;

/// Name and value of each number that can be read.
pub(super) fn read() -> Vec<(&'static str, f64)> {
    let mut told = Vec::new();
    if let Some((user_and_system, threads, started, virtual_size, resident)) = stat() {
        told.push(("process_cpu_seconds", user_and_system));
        told.push(("process_threads", threads));
        told.push(("process_virtual_memory_bytes", virtual_size));
        told.push(("process_resident_memory_bytes", resident));
        if let Some(booted) = booted() {
            told.push(("process_start_time_seconds", booted + started));
        }
    }
    if let Ok(descriptors) = fs::read_dir("/proc/self/fd") {
        // One of them is the directory itself.
        told.push(("process_open_fds", descriptors.count().saturating_sub(1) as f64));
    }
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    told.push(("process_max_fds", limit.map_or(f64::INFINITY, |limit| limit as f64)));
    told
}

/// Seconds of CPU, threads, seconds from boot to start, bytes virtual and resident
/// (proc_pid_stat(5)).
fn stat() -> Option<(f64, f64, f64, f64, f64)> {
    let text = fs::read_to_string("/proc/self/stat").ok()?;
    // The command may have blanks and parentheses; the third field follows the last one.
    let fields: Vec<&str> = text.rsplit_once(')')?.1.split_ascii_whitespace().collect();
    let field = |number: usize| fields.get(number - 3)?.parse::<f64>().ok();
    let tick = rustix::param::clock_ticks_per_second() as f64;
    let page = rustix::param::page_size() as f64;
    Some((
        (field(14)? + field(15)?) / tick,
        field(20)?,
        field(22)? / tick,
        field(23)?,
        field(24)? * page,
    ))
}

/// When the machine was booted, seconds since 1970.
fn booted() -> Option<f64> {
    let text = fs::read_to_string("/proc/stat").ok()?;
    text.lines().find_map(|line| line.strip_prefix("btime "))?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_is_told() {
        let told: std::collections::BTreeMap<_, _> = read().into_iter().collect();
        assert_eq!(told.len(), 7, "{told:?}");
        assert!(
            told["process_resident_memory_bytes"] > 1e6
                && told["process_threads"] >= 1.0
                && told["process_open_fds"] >= 3.0
        );
        let now = jiff::Timestamp::now().as_second() as f64;
        assert!((now - told["process_start_time_seconds"]).abs() < 3600.0 * 24.0, "{told:?}");
    }
}
