//! One at a time across processes: an advisory lock on a file, let go when dropped or when the
//! process dies.

use std::{
    fs::{self, File},
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};

use crate::progress::Step;

/// How long a task waits for another one that does the same; the longest such task installs
/// packages and builds a linker.
const PATIENCE: Duration = Duration::from_secs(900);

/// The lock, held.
pub(crate) struct Lock(
    #[expect(dead_code, reason = "held for its lock, which closing the file lets go")] File,
);

/// Takes the lock on `path`, which it creates, waiting for whoever holds it.
pub(crate) fn acquire(path: &Path) -> anyhow::Result<Lock> {
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent)
            .with_context(|| format!("failed to create {}", parent.display()))?;
    }
    let file = File::create(path)
        .with_context(|| format!("failed to open the lock {}", path.display()))?;
    if take(&file, path)? {
        return Ok(Lock(file));
    }
    let step = Step::start(format!("waiting for another task that holds {}", path.display()));
    let deadline = Instant::now() + PATIENCE;
    while Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(100));
        if take(&file, path)? {
            step.done();
            return Ok(Lock(file));
        }
    }
    step.failed();
    bail!("another task has held {} for {} s: see `fuser {0}`", path.display(), PATIENCE.as_secs())
}

fn take(file: &File, path: &Path) -> anyhow::Result<bool> {
    match file.try_lock() {
        Ok(()) => Ok(true),
        Err(fs::TryLockError::WouldBlock) => Ok(false),
        Err(fs::TryLockError::Error(error)) => {
            Err(error).with_context(|| format!("failed to lock {}", path.display()))
        }
    }
}
