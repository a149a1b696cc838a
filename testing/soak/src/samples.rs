//! Readings of what must not grow, and of the kernel's counters.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use procfs::net::{TcpNetEntries, TcpNetEntry, TcpState};
use procfs::{FromReadSI as _, current_system_info};
use testbed::Namespaces;
use testbed::clients::now_us;

use crate::field::{Field, OBSERVED};
use crate::history::{Counters, Sample};

/// The files of the product in the bpf file system.
const PINS: &str = "/sys/fs/bpf/redirector";
/// The state of a socket that waits for late segments, in /proc/net/tcp.
const TIME_WAIT: &str = "06";

/// Reads everything. `None`: the agent has just ended.
pub(crate) fn sample(field: &Field) -> Result<Option<Sample>> {
    let pid = match field.agent.try_lock() {
        Ok(agent) => agent.pid(),
        // A fault holds it.
        Err(_) => return Ok(None),
    };
    let Some((memory_kib, descriptors, map_kib)) = of_process(pid) else { return Ok(None) };
    let mut sockets = 0;
    for (_, namespaces) in places(field) {
        sockets += self::sockets(namespaces)?;
    }
    let node = field.rig.node.sandbox().namespaces();
    let pins = node.run(|| count_files(Path::new(PINS)))?;
    Ok(Some(Sample { at_us: now_us(), pid, memory_kib, descriptors, map_kib, sockets, pins }))
}

/// Memory, descriptors and memory of maps; `None` when the process ends meanwhile.
fn of_process(pid: u32) -> Option<(u64, u64, u64)> {
    let process = procfs::process::Process::new(i32::try_from(pid).ok()?).ok()?;
    let memory_kib = process.status().ok()?.vmrss?;
    let (mut descriptors, mut map_bytes) = (0, 0);
    for entry in fs::read_dir(format!("/proc/{pid}/fdinfo")).ok()?.flatten() {
        descriptors += 1;
        let text = fs::read_to_string(entry.path()).unwrap_or_default();
        map_bytes += map_memory(&text).unwrap_or(0);
    }
    Some((memory_kib, descriptors, map_bytes >> 10))
}

/// The kernel's memory of a map, from /proc/PID/fdinfo; `None` for any other descriptor.
fn map_memory(fdinfo: &str) -> Option<u64> {
    let field = |name: &str| {
        let line = fdinfo.lines().find_map(|line| line.strip_prefix(name))?;
        line.trim_start_matches(':').trim().parse::<u64>().ok()
    };
    field("map_type")?;
    field("memlock")
}

fn sockets(namespaces: &Namespaces) -> Result<u64> {
    namespaces.run(|| {
        let listed = ["tcp", "tcp6", "udp", "udp6"]
            .map(|name| fs::read_to_string(format!("/proc/thread-self/net/{name}")));
        listed.into_iter().map(|text| count_sockets(&text.unwrap_or_default())).sum()
    })
}

fn count_sockets(table: &str) -> u64 {
    let states = table.lines().skip(1).filter_map(|line| line.split_whitespace().nth(3));
    states.filter(|state| *state != TIME_WAIT).count() as u64
}

/// The node and the clients' places.
fn places(field: &Field) -> impl Iterator<Item = (&'static str, &Namespaces)> {
    let clients = field.clients.iter();
    let clients = clients.map(|place| (place.name, place.executor.sandbox().namespaces()));
    std::iter::once(("node", field.rig.node.sandbox().namespaces())).chain(clients)
}

/// The TCP sockets that are connected, by place.
pub(crate) fn connections(field: &Field) -> Vec<String> {
    let mut lines = Vec::new();
    for (name, namespaces) in places(field) {
        let listed = namespaces.run(|| {
            let tables = ["tcp", "tcp6"].map(|table| format!("/proc/thread-self/net/{table}"));
            tables.map(|table| {
                TcpNetEntries::from_file(table, current_system_info())
                    .map_or_else(|_| Vec::new(), |at| at.0)
            })
        });
        for socket in listed.into_iter().flatten().flatten() {
            if !matches!(socket.state, TcpState::Listen | TcpState::TimeWait) {
                let TcpNetEntry { local_address, remote_address, state, .. } = socket;
                lines.push(format!("{name}: {state:?} {local_address} to {remote_address}"));
            }
        }
    }
    lines
}

fn count_files(folder: &Path) -> u64 {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.map(|entry| if entry.path().is_dir() { count_files(&entry.path()) } else { 1 }).sum()
}

/// The kernel's counters of the route under observation.
pub(crate) fn counters(field: &Field) -> Result<Counters> {
    let route = field.route(OBSERVED)?;
    let mut counters: Counters = serde_json::from_value(route["counters"].clone())
        .with_context(|| format!("no counters: {route}"))?;
    counters.answered = route["answers"]["packet"].as_u64().unwrap_or(0);
    Ok(counters)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_maps_have_memory_of_maps() {
        let map = "pos:\t0\nmap_type:\t1\nkey_size:\t4\nmemlock:\t8192\nmap_id:\t7\n";
        assert_eq!(map_memory(map), Some(8192));
        assert_eq!(map_memory("pos:\t0\nprog_type:\t5\nmemlock:\t4096\n"), None);
    }

    #[test]
    fn sockets_that_wait_for_late_segments_are_not_counted() {
        let table = "  sl  local_address rem_address   st\n\
            \u{20}  0: 0100007F:0035 00000000:0000 0A 00000000:00000000\n\
            \u{20}  1: 0100007F:0035 0100007F:9C40 06 00000000:00000000\n";
        assert_eq!(count_sockets(table), 1);
    }
}
