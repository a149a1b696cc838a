//! A rig's name: unique on the machine, and sufficient to find out later whether its process still
//! lives.

use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context, Result};

/// The prefix of all names, of cgroup directories as well as of folders.
pub(crate) const PREFIX: &str = "redirector-rig-";

/// A new name: `redirector-rig-<pid namespace>-<pid>-<start time of the pid>-<count>`.
///
/// The start time distinguishes processes with the same pid; the namespace keeps a container from
/// sweeping rigs whose owner it cannot see.
pub(crate) fn new_name() -> Result<String> {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let pid = std::process::id();
    let start =
        start_time(pid).context("failed to read the start time of this process from /proc")?;
    Ok(format!(
        "{PREFIX}{}-{pid}-{start}-{}",
        pid_namespace()?,
        COUNT.fetch_add(1, Ordering::Relaxed)
    ))
}

/// Whether `name` belongs to a process of our pid namespace that has ended.
pub(crate) fn is_orphan(name: &str) -> bool {
    let Some(rest) = name.strip_prefix(PREFIX) else { return false };
    let parts: Vec<&str> = rest.split('-').collect();
    let [namespace, pid, start, _count] = parts[..] else { return false };
    let (Ok(pid), Ok(ours)) = (pid.parse(), pid_namespace()) else { return false };
    namespace == ours && start_time(pid).as_deref() != Some(start)
}

/// The entries of `folder` that are named like a rig.
pub(crate) fn named_in(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|name| name.starts_with(PREFIX))
        .collect()
}

fn pid_namespace() -> Result<String> {
    let link = fs::read_link("/proc/self/ns/pid").context("failed to read /proc/self/ns/pid")?;
    Ok(link.to_string_lossy().chars().filter(char::is_ascii_digit).collect())
}

/// Field 22 of /proc/PID/stat, in clock ticks since boot; `None` when there is no such process.
fn start_time(pid: u32) -> Option<String> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The command name may hold spaces and parentheses: count from the last one. The field after it
    // is the third.
    stat[stat.rfind(')')? + 1..].split_whitespace().nth(22 - 3).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rig_is_an_orphan_once_its_process_is_gone() {
        let name = new_name().unwrap();
        assert!(!is_orphan(&name), "{name}");
        let mut parts: Vec<&str> = name.split('-').collect();
        let earlier = parts.len() - 2;
        parts[earlier] = "1";
        assert!(is_orphan(&parts.join("-")), "{parts:?}");
    }

    #[test]
    fn names_of_other_pid_namespaces_are_never_orphans() {
        assert!(!is_orphan("redirector-rig-1-1-1-0"));
        assert!(!is_orphan("kubepods"));
        assert!(!is_orphan("redirector-rig-something-else"));
    }

    #[test]
    fn two_rigs_of_one_process_have_different_names() {
        assert_ne!(new_name().unwrap(), new_name().unwrap());
    }
}
