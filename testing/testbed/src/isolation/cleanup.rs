//! Takes every living rig down when the process is told to stop, then lets the signal do what it
//! does by default.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, Once, PoisonError};

use anyhow::{Context, Result};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use super::cgroup;

/// What the kernel does not drop by itself when a process dies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Remains {
    /// The rig's cgroup directory.
    pub(crate) cgroup: PathBuf,
    /// Its folder of logs, keys and configurations.
    pub(crate) files: PathBuf,
}

impl Remains {
    /// Kills what runs in the cgroup and removes both.
    pub(crate) fn remove(&self) -> Result<()> {
        cgroup::remove(&self.cgroup)?;
        match std::fs::remove_dir_all(&self.files) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(error).with_context(|| format!("failed to remove {}", self.files.display()))
            }
            _ => Ok(()),
        }
    }
}

/// Set before anything is taken down.
static HAPPENED: AtomicBool = AtomicBool::new(false);

/// Whether a signal is ending this process right now, so that what fails fails because of it.
pub fn interrupted() -> bool {
    HAPPENED.load(Ordering::SeqCst)
}

static LIVING: Mutex<Vec<Remains>> = Mutex::new(Vec::new());

/// From now on `remains` are removed when a signal ends this process.
pub(crate) fn guard(remains: &Remains) -> Result<()> {
    static LISTENING: Once = Once::new();
    let mut result = Ok(());
    LISTENING.call_once(|| result = listen());
    result?;
    living().push(remains.clone());
    Ok(())
}

/// `remains` are gone.
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
        HAPPENED.store(true, Ordering::SeqCst);
        // The lock is kept: no new rig may be made, and none dropped, from here on.
        let living = living();
        for remains in living.iter() {
            if let Err(error) = remains.remove() {
                eprintln!("{error:#}");
            }
        }
        eprintln!(
            "\ninterrupted: {} taken down, nothing left behind",
            if living.len() == 1 { "the rig was" } else { "all rigs were" }
        );
        // Namespaces, with their mounts and devices, go with the process.
        let _ = signal_hook::low_level::emulate_default_handler(signal);
    });
    Ok(())
}
