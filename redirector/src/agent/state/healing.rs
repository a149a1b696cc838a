//! What other processes had removed, and was restored.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use jiff::Timestamp;
use tracing::{error, warn};

use crate::error::error_chain;

/// How long a restoration is shown in `status`.
const SHOWN_FOR: Duration = Duration::from_secs(3600);

/// The file in the run directory that `redirector unload --force` makes.
const UNLOADED: &str = "unloaded";

/// What is checked, and fails apart from the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Part {
    /// Links to cgroups, and all pins of ours.
    Cgroups,
    /// Programs on interfaces.
    Interfaces,
    /// The guard and the shim's addresses.
    Host,
}

/// What was restored since the start.
#[derive(Debug)]
pub(crate) struct Healing {
    unloaded: PathBuf,
    count: u64,
    last: Option<Restored>,
    errors: BTreeMap<Part, String>,
    pins_are_lost: bool,
}

/// The last thing that was restored.
#[derive(Clone, Debug)]
pub(crate) struct Restored {
    /// What had happened to it.
    pub(crate) what: String,
    /// When it was restored.
    pub(crate) at: Timestamp,
    seen_at: Instant,
}

impl Healing {
    /// Of an agent that starts with this run directory.
    pub(crate) fn new(run_dir: &Path) -> Self {
        let unloaded = run_dir.join(UNLOADED);
        // Of an earlier agent.
        let _ = fs::remove_file(&unloaded);
        Self { unloaded, count: 0, last: None, errors: BTreeMap::new(), pins_are_lost: false }
    }

    /// Records what was restored.
    pub(crate) fn record(&mut self, restored: impl IntoIterator<Item = String>) {
        for what in restored {
            warn!("{what} by another process; restored");
            self.count += 1;
            self.last = Some(Restored { what, at: Timestamp::now(), seen_at: Instant::now() });
        }
    }

    /// Records the result of a check.
    pub(crate) fn check<I, E>(&mut self, part: Part, checked: Result<I, E>)
    where
        I: IntoIterator<Item = String>,
        E: std::error::Error + 'static,
    {
        match checked {
            Ok(restored) => {
                self.errors.remove(&part);
                self.record(restored);
            }
            Err(error) => {
                let error = error_chain(&error);
                if self.errors.get(&part) != Some(&error) {
                    error!("failed to restore what was removed; retrying: {error}");
                    self.errors.insert(part, error);
                }
            }
        }
    }

    /// Records whether the bpf file system is gone.
    pub(crate) fn set_pins_are_lost(&mut self, lost: bool) {
        if lost && !self.pins_are_lost {
            error!("the bpf file system was unmounted: redirecting ends with this process");
        }
        self.pins_are_lost = lost;
    }

    /// Whether an operator has unloaded everything from under this agent: then nothing is restored.
    pub(crate) fn is_unloaded(&self) -> bool {
        self.unloaded.exists()
    }

    /// How often something was restored since the start.
    pub(crate) fn count(&self) -> u64 {
        self.count
    }

    /// What was restored last, for an hour.
    pub(crate) fn last(&self) -> Option<&Restored> {
        self.last.as_ref().filter(|last| last.seen_at.elapsed() < SHOWN_FOR)
    }

    /// What could not be restored at the last checks, and why.
    pub(crate) fn errors(&self) -> impl Iterator<Item = &str> {
        self.errors.values().map(String::as_str)
    }

    /// Whether the bpf file system is gone.
    pub(crate) fn pins_are_lost(&self) -> bool {
        self.pins_are_lost
    }
}

/// Makes the agent of a run directory restore nothing any more, until the next one starts.
///
/// # Errors
///
/// If the file can't be written.
pub fn end_restoring(run_dir: &Path) -> std::io::Result<()> {
    fs::write(run_dir.join(UNLOADED), "")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_restoration_is_shown_for_an_hour_and_counted_for_ever() {
        let directory = tempfile::tempdir().expect("a directory");
        let mut healing = Healing::new(directory.path());
        assert!(healing.last().is_none());
        healing.record(["the first".to_owned(), "the second".to_owned()]);
        assert_eq!(healing.last().map(|last| last.what.as_str()), Some("the second"));
        let last = healing.last.as_mut().expect("the last one");
        last.seen_at -= SHOWN_FOR;
        assert!(healing.last().is_none());
        assert_eq!(healing.count(), 2);
    }

    #[test]
    fn each_part_keeps_its_error_until_it_succeeds() {
        let directory = tempfile::tempdir().expect("a directory");
        let mut healing = Healing::new(directory.path());
        let failed = || Err::<Vec<String>, _>(std::io::Error::other("refused"));
        healing.check(Part::Host, failed());
        healing.check(Part::Cgroups, failed());
        healing.check(Part::Host, Ok::<_, std::io::Error>(vec!["it".to_owned()]));
        assert_eq!((healing.errors().count(), healing.count()), (1, 1));
    }

    #[test]
    fn an_unloaded_datapath_stays_unloaded_until_the_next_start() {
        let directory = tempfile::tempdir().expect("a directory");
        let healing = Healing::new(directory.path());
        assert!(!healing.is_unloaded());
        end_restoring(directory.path()).expect("written");
        assert!(healing.is_unloaded());
        assert!(!Healing::new(directory.path()).is_unloaded());
    }
}
