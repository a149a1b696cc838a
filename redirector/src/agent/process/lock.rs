//! One agent at a time for each run directory. The directory itself is locked: there is no lock
//! file to leave behind, or to race for.

use std::{
    fs::{self, File},
    io::{self, Write},
    path::{Path, PathBuf},
};

use rustix::fs::{FlockOperation, flock};

/// Why this agent may not run.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Another one does.
    #[error("another agent{} runs with {}: stop it first, or give this one another \
        `agent.run_dir`, `agent.state_dir` and `agent.bpffs`", pid.map(|pid| format!(", pid {pid},")).unwrap_or_default(), path.display())]
    Held {
        /// The run directory.
        path: PathBuf,
        /// The other agent, as far as its pid file tells.
        pid: Option<u32>,
    },
    /// The directory or its pid file can't be had.
    #[error("failed to {verb} {}", path.display())]
    Io {
        /// What was tried.
        verb: &'static str,
        /// The directory or file.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
}

/// The lock of a run directory, held until it is dropped or the process dies, however it dies.
#[derive(Debug)]
pub(crate) struct Lock {
    _directory: File,
    pid_file: PathBuf,
}

impl Lock {
    /// Locks `run_dir` and writes `agent.pid` into it.
    ///
    /// # Errors
    /// When another agent holds it (named by its pid), or a file can't be written.
    pub(crate) fn take(run_dir: &Path) -> Result<Self, LockError> {
        let failed = |verb, path: &Path| {
            let path = path.to_owned();
            move |source| LockError::Io { verb, path, source }
        };
        let directory = File::open(run_dir).map_err(failed("open", run_dir))?;
        match flock(&directory, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => {
                return Err(LockError::Held { path: run_dir.to_owned(), pid: pid(run_dir) });
            }
            Err(error) => return Err(failed("lock", run_dir)(error.into())),
        }
        let pid_file = pid_file(run_dir);
        let written =
            File::create(&pid_file).and_then(|mut pid| writeln!(pid, "{}", std::process::id()));
        written.map_err(failed("write", &pid_file))?;
        Ok(Self { _directory: directory, pid_file })
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        // The lock goes with the file descriptor, after this; so nobody else's pid is removed.
        let _ = fs::remove_file(&self.pid_file);
    }
}

fn pid_file(run_dir: &Path) -> PathBuf {
    run_dir.join("agent.pid")
}

fn pid(run_dir: &Path) -> Option<u32> {
    fs::read_to_string(pid_file(run_dir)).ok()?.trim().parse().ok()
}

/// The agent that runs with `run_dir`, or none: the pid file counts only while the lock is held.
pub fn running(run_dir: &Path) -> Option<u32> {
    is_running(run_dir).then(|| pid(run_dir))?
}

/// Whether an agent holds the lock of `run_dir`, be its pid known or not.
pub fn is_running(run_dir: &Path) -> bool {
    let Ok(directory) = File::open(run_dir) else { return false };
    // A shared lock that is given back at once: an agent that starts in this very instant would be
    // refused, and its supervisor try again.
    matches!(
        flock(&directory, FlockOperation::NonBlockingLockShared),
        Err(rustix::io::Errno::WOULDBLOCK)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_agent_is_refused_naming_the_first_and_may_run_after_it() {
        let directory = tempfile::tempdir().expect("a directory");
        let first = Lock::take(directory.path()).expect("the first one");
        assert!(is_running(directory.path()));
        let refusal = Lock::take(directory.path()).expect_err("the second one").to_string();
        assert!(
            refusal.contains(&format!("another agent, pid {}, runs with", std::process::id())),
            "{refusal}"
        );
        drop(first);
        assert_eq!(
            fs::read_dir(directory.path()).expect("the directory").count(),
            0,
            "nothing is left behind"
        );
        assert!(!is_running(directory.path()));
        Lock::take(directory.path()).expect("the next one");
    }

    #[test]
    fn the_pid_file_of_a_killed_agent_names_nobody() {
        let directory = tempfile::tempdir().expect("a directory");
        fs::write(directory.path().join("agent.pid"), "1\n").expect("a pid file");
        assert_eq!(running(directory.path()), None);
        Lock::take(directory.path()).expect("nobody holds it");
    }
}
