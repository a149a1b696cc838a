//! Allows one agent for each run directory. The directory itself is locked, so that no lock file
//! can be left behind or raced for.

use std::{
    fs::{self, File},
    io::{self, Write},
    path::{Path, PathBuf},
};

use rustix::fs::{FlockOperation, flock};

/// Why this agent cannot run.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Another agent runs.
    #[error(
        "another agent{} runs with {}: stop it first, or give this one its own `agent.run_dir`, \
            `agent.state_dir` and `agent.bpffs`",
        pid.map(|pid| format!(", pid {pid},")).unwrap_or_default(),
        path.display()
    )]
    Held {
        /// The run directory.
        path: PathBuf,
        /// The other agent's process ID, if its pid file has one.
        pid: Option<u32>,
    },
    /// The directory or its pid file is not accessible.
    #[error("failed to {verb} {}", path.display())]
    Io {
        /// The operation.
        verb: &'static str,
        /// The directory or file.
        path: PathBuf,
        /// The system's error.
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
    /// When another agent holds it, or a file cannot be written.
    pub(crate) fn acquire(run_dir: &Path) -> Result<Self, LockError> {
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
        // The lock is released later, with the file descriptor, so another agent's pid is never
        // removed.
        let _ = fs::remove_file(&self.pid_file);
    }
}

fn pid_file(run_dir: &Path) -> PathBuf {
    run_dir.join("agent.pid")
}

fn pid(run_dir: &Path) -> Option<u32> {
    fs::read_to_string(pid_file(run_dir)).ok()?.trim().parse().ok()
}

/// The process ID of the agent that holds `run_dir`: the pid file counts only while the lock is
/// held.
pub fn running(run_dir: &Path) -> Option<u32> {
    is_running(run_dir).then(|| pid(run_dir))?
}

/// Whether an agent holds the lock of `run_dir`, even if its process ID is unknown.
pub fn is_running(run_dir: &Path) -> bool {
    let Ok(directory) = File::open(run_dir) else { return false };
    // A shared lock, released at once: an agent that starts at this very moment is refused, and its
    // supervisor starts it again.
    matches!(
        flock(&directory, FlockOperation::NonBlockingLockShared),
        Err(rustix::io::Errno::WOULDBLOCK)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_agent_is_refused_until_the_first_ends() {
        let directory = tempfile::tempdir().expect("a directory");
        let first = Lock::acquire(directory.path()).expect("the first one");
        assert!(is_running(directory.path()));
        let refusal = Lock::acquire(directory.path()).expect_err("the second one").to_string();
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
        Lock::acquire(directory.path()).expect("the next one");
    }

    #[test]
    fn the_pid_file_of_a_killed_agent_does_not_count() {
        let directory = tempfile::tempdir().expect("a directory");
        fs::write(directory.path().join("agent.pid"), "1\n").expect("a pid file");
        assert_eq!(running(directory.path()), None);
        Lock::acquire(directory.path()).expect("nobody holds it");
    }
}
