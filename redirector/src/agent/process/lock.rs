//! Allows one agent for each run directory, datapath and state directory. The directories
//! themselves are locked, so that no lock file can be left behind or raced for.

use std::{
    fs::{self, File},
    io::{self, Write},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use rustix::fs::{FlockOperation, flock};

use crate::atomic_file;

/// Why this agent cannot run.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Another agent uses the same directory.
    #[error(
        "another agent{} uses {}: stop it first, or give this one its own `agent.run_dir`, \
            `agent.state_dir` and `agent.bpffs`",
        pid.map(|pid| format!(", pid {pid},")).unwrap_or_default(),
        path.display()
    )]
    Held {
        /// The directory.
        path: PathBuf,
        /// The other agent's process ID, if it is known.
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

/// The locks of an agent's directories, held until it is dropped or the process dies, however it
/// dies.
#[derive(Debug)]
pub(crate) struct Locks {
    /// First, so that it is removed before the run directory is unlocked: another agent's pid is
    /// never removed.
    pid_file: Option<PidFile>,
    /// Whether the agent before this one was killed, or died.
    follows_unclean_end: bool,
    /// By path, the run directory first.
    directories: Vec<(PathBuf, File)>,
}

#[derive(Debug)]
struct PidFile(PathBuf);

/// The file of the run directory that a standby locks while it is ready.
const STANDBY: &str = "standby";

/// Shows that a standby is ready, until it is dropped or the process dies, however it dies.
#[derive(Debug)]
pub(crate) struct StandbyLock {
    /// Holds the lock.
    _file: File,
}

impl StandbyLock {
    /// Locks the file, which another standby may have left.
    ///
    /// # Errors
    /// When the file cannot be written, or another standby has it.
    pub(crate) fn acquire(run_dir: &Path) -> Result<Self, LockError> {
        let path = run_dir.join(STANDBY);
        File::create(&path).map_err(|source| LockError::Io {
            verb: "write",
            path: path.clone(),
            source,
        })?;
        Ok(Self { _file: lock(&path)? })
    }
}

/// What an agent does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// It is the agent.
    Agent,
    /// It is ready to become it.
    Standby,
}

/// What an agent in the PID namespace of this process does; none if there is no agent, or it is not
/// ready. In a pod, those of other pods do not count.
pub fn role_here(run_dir: &Path) -> Option<Role> {
    let is_held =
        |path: &Path| lock_of(path).is_some_and(|lock| lock.pid.is_some_and(|pid| pid > 0));
    if is_held(run_dir) {
        Some(Role::Agent)
    } else {
        is_held(&run_dir.join(STANDBY)).then_some(Role::Standby)
    }
}

impl Locks {
    /// Locks the directories of one agent, the run directory first, and writes `agent.pid` into it.
    /// The others are made with their modes if they are missing.
    ///
    /// # Errors
    /// When another agent holds one of them, or a file cannot be written.
    pub(crate) fn acquire(run_dir: &Path, others: &[(&Path, u32)]) -> Result<Self, LockError> {
        let mut directories = vec![(run_dir.to_owned(), lock(run_dir)?)];
        for &(path, mode) in others {
            let failed = |source| LockError::Io { verb: "create", path: path.to_owned(), source };
            atomic_file::make_directory(path, mode)
                .map_err(|error| failed(io::Error::other(error)))?;
            directories.push((path.to_owned(), lock(path)?));
        }
        let follows_unclean_end = pid_file(run_dir).exists();
        let pid_file = Some(PidFile::write(run_dir)?);
        Ok(Self { pid_file, follows_unclean_end, directories })
    }

    /// Whether the agent before this one was killed, or died: it has left its pid file.
    pub(crate) fn follows_unclean_end(&self) -> bool {
        self.follows_unclean_end
    }

    /// Releases the locks, before the process ends.
    pub(crate) fn release(&mut self) {
        self.pid_file = None;
        self.directories.clear();
    }

    /// Makes and locks again what was removed. Returns a description; an error is retried with the
    /// next call.
    pub(crate) fn restore(&mut self) -> Option<String> {
        let mut restored = Vec::new();
        for (path, held) in &mut self.directories {
            if !atomic_file::is_lost(path, held)
                || atomic_file::make_directory(path, 0o755).is_err()
            {
                continue;
            }
            if let Ok(locked) = lock(path) {
                *held = locked;
                restored.push(path.display().to_string());
            }
        }
        let (run_dir, _) = self.directories.first()?;
        if self.pid_file.as_ref().is_some_and(|pid_file| !pid_file.0.exists())
            && let Ok(written) = PidFile::write(run_dir)
        {
            // The former one has the same path, so it must not be removed.
            std::mem::forget(self.pid_file.replace(written));
        }
        (!restored.is_empty()).then(|| format!("{} was removed", restored.join(" and ")))
    }
}

impl PidFile {
    fn write(run_dir: &Path) -> Result<Self, LockError> {
        let path = pid_file(run_dir);
        let written =
            File::create(&path).and_then(|mut pid| writeln!(pid, "{}", std::process::id()));
        match written {
            Ok(()) => Ok(Self(path)),
            Err(source) => Err(LockError::Io { verb: "write", path, source }),
        }
    }
}

impl Drop for PidFile {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

fn lock(path: &Path) -> Result<File, LockError> {
    let failed = |verb| move |source| LockError::Io { verb, path: path.to_owned(), source };
    let directory = File::open(path).map_err(failed("open"))?;
    match flock(&directory, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(directory),
        Err(rustix::io::Errno::WOULDBLOCK) => {
            Err(LockError::Held { path: path.to_owned(), pid: holder(path) })
        }
        Err(error) => Err(failed("lock")(error.into())),
    }
}

/// The process that has locked a directory: its pid file's, else the kernel's list of locks, which
/// has no process of another pid namespace.
fn holder(directory: &Path) -> Option<u32> {
    pid(directory).or_else(|| {
        let pid = lock_of(directory)?.pid?;
        u32::try_from(pid).ok().filter(|pid| *pid != 0)
    })
}

/// The lock of a file or directory, unless a process of another PID namespace holds it.
fn lock_of(path: &Path) -> Option<procfs::Lock> {
    let found = fs::metadata(path).ok()?;
    let (major, minor) = (rustix::fs::major(found.dev()), rustix::fs::minor(found.dev()));
    let is_ours = |lock: &procfs::Lock| {
        lock.inode == found.ino() && (lock.devmaj, lock.devmin) == (major, minor)
    };
    procfs::locks().ok()?.into_iter().find(is_ours)
}

fn pid_file(run_dir: &Path) -> PathBuf {
    run_dir.join("agent.pid")
}

fn pid(run_dir: &Path) -> Option<u32> {
    fs::read_to_string(pid_file(run_dir)).ok()?.trim().parse().ok()
}

/// The process ID of the agent that holds a directory, if it is known.
pub fn running(directory: &Path) -> Option<u32> {
    is_running(directory).then(|| holder(directory))?
}

/// Whether an agent holds the lock of a directory, even if its process ID is unknown.
pub fn is_running(directory: &Path) -> bool {
    let Ok(directory) = File::open(directory) else { return false };
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
        let first = Locks::acquire(directory.path(), &[]).expect("the first one");
        assert!(is_running(directory.path()));
        let refusal =
            Locks::acquire(directory.path(), &[]).expect_err("the second one").to_string();
        assert!(
            refusal.contains(&format!("another agent, pid {}, uses", std::process::id())),
            "{refusal}"
        );
        drop(first);
        assert_eq!(
            fs::read_dir(directory.path()).expect("the directory").count(),
            0,
            "nothing is left behind"
        );
        assert!(!is_running(directory.path()));
        Locks::acquire(directory.path(), &[]).expect("the next one");
    }

    #[test]
    fn a_standby_is_ready_while_it_holds_its_lock() {
        let directory = tempfile::tempdir().expect("a directory");
        assert_eq!(role_here(directory.path()), None);
        let standby = StandbyLock::acquire(directory.path()).expect("the first one");
        assert_eq!(role_here(directory.path()), Some(Role::Standby));
        StandbyLock::acquire(directory.path()).expect_err("a second one");
        let agent = Locks::acquire(directory.path(), &[]).expect("another file");
        assert_eq!(role_here(directory.path()), Some(Role::Agent));
        drop((standby, agent));
        assert_eq!(role_here(directory.path()), None);
        StandbyLock::acquire(directory.path()).expect("the file that was left");
    }

    #[test]
    fn agents_with_their_own_run_directory_share_no_other() {
        let directories = [(); 4].map(|()| tempfile::tempdir().expect("a directory"));
        let [run, other_run, pins, state] = directories.each_ref().map(tempfile::TempDir::path);
        let _first = Locks::acquire(run, &[(pins, 0o755), (state, 0o750)]).expect("the first one");
        for shared in [pins, state] {
            let refusal =
                Locks::acquire(other_run, &[(shared, 0o755)]).expect_err("shared").to_string();
            let expected = format!("pid {}, uses {}", std::process::id(), shared.display());
            assert!(refusal.contains(&expected), "{refusal}");
            assert_eq!(running(shared), Some(std::process::id()));
        }
        assert_eq!(fs::read_dir(other_run).expect("the directory").count(), 0, "no pid file");
        Locks::acquire(other_run, &[]).expect("its own run directory stays free");
    }

    #[test]
    fn removed_directories_are_made_and_locked_again() {
        let directory = tempfile::tempdir().expect("a directory");
        let [run, state] = ["run", "state"].map(|name| directory.path().join(name));
        for path in [&run, &state] {
            fs::create_dir(path).expect("made");
        }
        let mut locks = Locks::acquire(&run, &[(&state, 0o750)]).expect("locked");
        assert_eq!(locks.restore(), None);
        for path in [&run, &state] {
            fs::remove_dir_all(path).expect("removed");
        }
        let restored = locks.restore().expect("restored");
        assert!(restored.contains(&format!("{} and", run.display())), "{restored}");
        assert_eq!((running(&run), pid(&run)), (Some(std::process::id()), running(&state)));
        assert_eq!(locks.restore(), None);
        drop(locks);
        assert_eq!(fs::read_dir(&run).expect("the directory").count(), 0, "no pid file");
    }

    #[test]
    fn the_pid_file_of_a_killed_agent_does_not_count() {
        let directory = tempfile::tempdir().expect("a directory");
        fs::write(directory.path().join("agent.pid"), "1\n").expect("a pid file");
        assert_eq!(running(directory.path()), None);
        Locks::acquire(directory.path(), &[]).expect("nobody holds it");
    }
}
