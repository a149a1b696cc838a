//! Mutual exclusion across processes: an advisory lock on a file, released when dropped or when the
//! process dies.

use std::{
    fs::{self, File},
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};

use crate::progress::Step;

/// How long a task waits for another process; the longest such task installs packages and builds a
/// linker.
const WAIT_LIMIT: Duration = Duration::from_secs(900);

/// The lock, held.
pub(crate) struct Lock(
    #[expect(dead_code, reason = "held for its lock, which closing the file releases")] File,
);

/// Takes the lock on `path`, which it creates, waiting while another process holds it.
pub(crate) fn acquire(path: &Path) -> anyhow::Result<Lock> {
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent)
            .with_context(|| format!("failed to create {}", parent.display()))?;
    }
    let file = File::create(path)
        .with_context(|| format!("failed to open the lock {}", path.display()))?;
    if try_lock(&file, path)? {
        return Ok(Lock(file));
    }
    let step = Step::start(format!("waiting for another task that holds {}", path.display()));
    let deadline = Instant::now() + WAIT_LIMIT;
    while Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(100));
        if try_lock(&file, path)? {
            step.done();
            return Ok(Lock(file));
        }
    }
    step.failed();
    bail!(
        "another task has held {} for {} s: `fuser {0}` shows which",
        path.display(),
        WAIT_LIMIT.as_secs()
    )
}

fn try_lock(file: &File, path: &Path) -> anyhow::Result<bool> {
    match file.try_lock() {
        Ok(()) => Ok(true),
        Err(fs::TryLockError::WouldBlock) => Ok(false),
        Err(fs::TryLockError::Error(error)) => {
            Err(error).with_context(|| format!("failed to lock {}", path.display()))
        }
    }
}
