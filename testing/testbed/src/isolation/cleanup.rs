//! On SIGINT, SIGTERM and SIGHUP: removes every rig of this process, then lets the signal take its
//! default action.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, Once, PoisonError};

use anyhow::{Context, Result};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use super::cgroup;

/// What outlives the process unless it is removed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Remains {
    /// The rig's cgroup directory.
    pub(crate) cgroup: PathBuf,
    /// Its folder of logs, keys and configurations.
    pub(crate) files: PathBuf,
}

impl Remains {
    /// Kills what runs in the cgroup and removes both, and the rig's directories of controllers.
    pub(crate) fn remove(&self) -> Result<()> {
        cgroup::remove(&self.cgroup)?;
        // A node with a kubelet has directories of the same name in the controllers' trees.
        let name = self.cgroup.file_name().unwrap_or_default();
        for tree in cgroup::controller_trees() {
            cgroup::remove(&tree.join(name))?;
        }
        match std::fs::remove_dir_all(&self.files) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(error).with_context(|| format!("failed to remove {}", self.files.display()))
            }
            _ => Ok(()),
        }
    }
}

/// Set before the first removal.
static INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// Whether a signal is ending this process, which then causes other failures.
pub fn interrupted() -> bool {
    INTERRUPTED.load(Ordering::SeqCst)
}

static LIVING: Mutex<Vec<Remains>> = Mutex::new(Vec::new());

/// Registers `remains` for removal when a signal ends this process.
pub(crate) fn guard(remains: &Remains) -> Result<()> {
    static LISTENING: Once = Once::new();
    let mut result = Ok(());
    LISTENING.call_once(|| result = listen());
    result?;
    living().push(remains.clone());
    Ok(())
}

/// Unregisters `remains`, which have been removed.
pub(crate) fn release(remains: &Remains) {
    living().retain(|other| other != remains);
}

fn living() -> std::sync::MutexGuard<'static, Vec<Remains>> {
    LIVING.lock().unwrap_or_else(PoisonError::into_inner)
}

fn listen() -> Result<()> {
    let mut signals =
        Signals::new([SIGINT, SIGTERM, SIGHUP]).context("failed to listen for signals")?;
    std::thread::spawn(move || {
        let Some(signal) = signals.forever().next() else { return };
        INTERRUPTED.store(true, Ordering::SeqCst);
        // The lock stays held: from here on no rig may be made or dropped.
        let living = living();
        for remains in living.iter() {
            if let Err(error) = remains.remove() {
                eprintln!("{error:#}");
            }
        }
        eprintln!(
            "\ninterrupted: {} removed",
            if living.len() == 1 { "the rig was" } else { "all rigs were" }
        );
        // Namespaces, with their mounts and devices, go with the process.
        let _ = signal_hook::low_level::emulate_default_handler(signal);
    });
    Ok(())
}
