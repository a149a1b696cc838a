//! Who calls connect, in words: the kernel tells a number for the cgroup, and not always the
//! command.

use std::{
    collections::HashMap,
    fs,
    os::unix::fs::MetadataExt,
    path::PathBuf,
    time::{Duration, Instant},
};

use crate::datapath;

/// Cgroups and processes that are remembered, those that are gone included.
const REMEMBERED: usize = 16 * 1024;
/// The whole hierarchy is read for an unknown cgroup at most so often.
const WALK: Duration = Duration::from_secs(1);
/// A process is looked at again at most so often: a busy one makes many connects.
const FRESH: Duration = Duration::from_millis(100);
/// The inode of the first pid namespace (`PROC_PID_INIT_INO`, include/linux/proc_ns.h), whose
/// numbers the programs tell.
const FIRST_PID_NAMESPACE: u64 = 0xefff_fffc;

/// What is known of callers.
pub(crate) struct Callers {
    cgroups: HashMap<u64, Option<PathBuf>>,
    walked: Option<Instant>,
    commands: HashMap<u32, (Option<String>, Instant)>,
    /// Whether our `/proc` has the processes by the numbers that the programs tell.
    sees_processes: bool,
}

impl Default for Callers {
    fn default() -> Self {
        let sees_processes = fs::metadata("/proc/self/ns/pid")
            .is_ok_and(|namespace| namespace.ino() == FIRST_PID_NAMESPACE);
        Self { cgroups: HashMap::new(), walked: None, commands: HashMap::new(), sees_processes }
    }
}

impl Callers {
    /// The folder of cgroup `id`. One that nobody knows yet is looked for, at most once a second.
    pub(crate) fn cgroup(&mut self, id: u64) -> Option<PathBuf> {
        if id == 0 {
            return None;
        }
        let fresh = self.walked.is_some_and(|walked| walked.elapsed() < WALK);
        if !fresh && self.cgroups.get(&id).is_none_or(Option::is_none) {
            self.walked = Some(Instant::now());
            if self.cgroups.len() > REMEMBERED {
                self.cgroups.clear();
            }
            // A cgroup that is gone keeps its name: its last events are still to come.
            self.cgroups
                .extend(datapath::cgroup_paths().into_iter().map(|(id, path)| (id, Some(path))));
            self.cgroups.entry(id).or_default();
        }
        self.cgroups.get(&id).cloned().flatten()
    }

    /// The caller's command. Where the kernel does not tell it, the process is looked up, as long
    /// as it lives; what was seen of it once is kept for the end of its connections.
    pub(crate) fn command(&mut self, event: &datapath::Event) -> Option<String> {
        if !event.command.is_empty() {
            return Some(event.command.clone());
        }
        if !self.sees_processes || event.pid == 0 {
            return None;
        }
        let known = self.commands.get(&event.pid);
        if let Some((command, looked)) = known
            && looked.elapsed() < FRESH
        {
            return command.clone();
        }
        let seen = fs::read_to_string(format!("/proc/{}/comm", event.pid))
            .ok()
            .map(|comm| comm.trim_end_matches('\n').to_owned());
        let command = seen.or_else(|| known.and_then(|(command, _)| command.clone()));
        if self.commands.len() > REMEMBERED {
            self.commands.clear();
        }
        self.commands.insert(event.pid, (command.clone(), Instant::now()));
        command
    }
}
