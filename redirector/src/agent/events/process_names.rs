//! Names for the processes and cgroups of events: the kernel emits a number for the cgroup, and not
//! always the command.

use std::{
    collections::HashMap,
    fs,
    os::unix::fs::MetadataExt,
    path::PathBuf,
    time::{Duration, Instant},
};

use crate::datapath;

/// Cgroups and processes that are remembered, including those that are gone.
const MAX_REMEMBERED: usize = 16 * 1024;
/// The hierarchy is searched for an unknown cgroup at most a twentieth of the time, so this many
/// times the last search is the pause: a job's step and its cgroup may be gone within milliseconds.
const SEARCH_PAUSE: u32 = 20;
/// After which pause it is searched again for one that was not found.
const MISSING_PAUSE: Duration = Duration::from_secs(1);
/// A process is read again at most this often: a busy one makes many connects.
const PROCESS_INTERVAL: Duration = Duration::from_millis(100);
/// The inode of the initial pid namespace (`PROC_PID_INIT_INO`, include/linux/proc_ns.h), in which
/// the programs number processes.
const INITIAL_PID_NAMESPACE: u64 = 0xefff_fffc;

/// The known names of processes and cgroups.
pub(crate) struct ProcessNames {
    cgroups: HashMap<u64, Option<PathBuf>>,
    /// When the last search ended, and how long it took.
    searched: Option<(Instant, Duration)>,
    commands: HashMap<u32, (Option<String>, Instant)>,
    /// Whether our `/proc` numbers processes as the programs do.
    sees_processes: bool,
}

impl Default for ProcessNames {
    fn default() -> Self {
        let sees_processes = fs::metadata("/proc/self/ns/pid")
            .is_ok_and(|namespace| namespace.ino() == INITIAL_PID_NAMESPACE);
        Self { cgroups: HashMap::new(), searched: None, commands: HashMap::new(), sees_processes }
    }
}

impl ProcessNames {
    /// The directory of cgroup `id`.
    pub(crate) fn cgroup(&mut self, id: u64) -> Option<PathBuf> {
        self.find(id, Instant::now, datapath::cgroup_paths)
    }

    fn find(
        &mut self,
        id: u64,
        now: impl Fn() -> Instant,
        search: impl FnOnce() -> HashMap<u64, PathBuf>,
    ) -> Option<PathBuf> {
        if id == 0 {
            return None;
        }
        let known = self.cgroups.get(&id);
        let is_recent = self.searched.is_some_and(|(at, took)| {
            let pause = if known.is_some() { MISSING_PAUSE } else { took * SEARCH_PAUSE };
            now() < at + pause
        });
        if !is_recent && known.is_none_or(Option::is_none) {
            let started = now();
            if self.cgroups.len() > MAX_REMEMBERED {
                self.cgroups.clear();
            }
            // A cgroup that is gone keeps its name for its last events.
            self.cgroups.extend(search().into_iter().map(|(id, path)| (id, Some(path))));
            self.cgroups.entry(id).or_default();
            let ended = now();
            self.searched = Some((ended, ended - started));
        }
        self.cgroups.get(&id).cloned().flatten()
    }

    /// Reads the commands that the kernel did not provide, before their processes end. Returns
    /// whether there were any to read.
    pub(crate) fn read_commands(&mut self, events: &[datapath::Event]) -> bool {
        let mut any = false;
        if self.sees_processes {
            for event in events.iter().filter(|event| event.command.is_empty() && event.pid != 0) {
                self.command(event);
                any = true;
            }
        }
        any
    }

    /// The command of the process that called connect. Without one in the event, the process is
    /// read while it lives, and its command kept for the end of its connections.
    pub(crate) fn command(&mut self, event: &datapath::Event) -> Option<String> {
        if !event.command.is_empty() {
            return Some(event.command.clone());
        }
        if !self.sees_processes || event.pid == 0 {
            return None;
        }
        let known = self.commands.get(&event.pid);
        if let Some((command, read_at)) = known
            && read_at.elapsed() < PROCESS_INTERVAL
        {
            return command.clone();
        }
        let read = fs::read_to_string(format!("/proc/{}/comm", event.pid))
            .ok()
            .map(|comm| comm.trim_end_matches('\n').to_owned());
        let command = read.or_else(|| known.and_then(|(command, _)| command.clone()));
        if self.commands.len() > MAX_REMEMBERED {
            self.commands.clear();
        }
        self.commands.insert(event.pid, (command.clone(), Instant::now()));
        command
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    /// Steps of a job, each of which is gone when the next one connects a little later. A search
    /// takes two milliseconds, and is repeated after forty.
    #[test]
    fn a_short_step_after_another_is_found() {
        let mut names = ProcessNames::default();
        let clock = Cell::new(Instant::now());
        let advance = |millis| clock.set(clock.get() + Duration::from_millis(millis));
        let cgroup = |id: u64| PathBuf::from(format!("/sys/fs/cgroup/job/{id}"));
        let mut find = |id, exists: bool| {
            let search = || {
                advance(2);
                exists.then(|| (id, cgroup(id))).into_iter().collect()
            };
            names.find(id, || clock.get(), search)
        };
        for id in 1..=50 {
            assert_eq!(find(id, true), Some(cgroup(id)));
            advance(40);
        }
        assert_eq!(find(1, false), Some(cgroup(1)), "one that is gone");
        assert_eq!(find(51, false), None);
        advance(39);
        assert_eq!(find(52, true), None, "too soon after a search");
        advance(1);
        assert_eq!(find(52, true), Some(cgroup(52)));
        advance(40);
        assert_eq!(find(51, true), None, "not found less than a second ago");
        assert_eq!(find(53, true), Some(cgroup(53)));
    }
}
