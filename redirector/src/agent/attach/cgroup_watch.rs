//! Noticing that cgroups come and go: inotify on the folders in which that can change what
//! `attach.cgroups` stands for.
//!
//! It only says *that* something has changed; whoever is told looks for himself. So an event that
//! is lost, or names a cgroup that is gone by now, does no harm. What no event tells of (more
//! folders than are watched, no inotify at all) is found by looking now and then.

use std::{
    collections::BTreeSet,
    mem::MaybeUninit,
    os::fd::OwnedFd,
    path::PathBuf,
    time::{Duration, Instant},
};

use rustix::{
    fs::inotify::{self, CreateFlags, ReadFlags, WatchFlags},
    io::Errno,
};
use tokio::io::{Interest, unix::AsyncFd};

/// Folders that are watched at most; each takes about a kilobyte of the kernel's memory, and
/// `fs.inotify.max_user_watches` is shared by all of a user.
const MOST_FOLDERS: usize = 1024;

/// A cgroup is made or removed.
const EVENTS: WatchFlags = WatchFlags::CREATE.union(WatchFlags::DELETE).union(WatchFlags::ONLYDIR);

/// Watches the folders that decide where to attach.
#[derive(Debug)]
pub(crate) struct CgroupWatch {
    /// None where the kernel gave none.
    inotify: Option<AsyncFd<OwnedFd>>,
    watched: BTreeSet<i32>,
    /// Whether there is something to do without another change.
    again: bool,
    /// Why something may go unnoticed.
    incomplete: Option<String>,
    /// When the next change may be told: in a storm of cgroups at most half of the time goes into
    /// looking.
    rested_at: Instant,
}

impl CgroupWatch {
    pub(crate) fn new() -> Self {
        let made = inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC)
            .map_err(std::io::Error::from)
            .and_then(|descriptor| {
                // SAFETY: the AsyncFd owns the descriptor, which stays the same for as long as it
                // lives.
                Ok(unsafe { AsyncFd::register_with_interest(descriptor, Interest::READABLE) }?)
            });
        let incomplete = made.as_ref().err().map(|error| format!("inotify: {error}"));
        Self {
            inotify: made.ok(),
            watched: BTreeSet::new(),
            again: false,
            incomplete,
            rested_at: Instant::now(),
        }
    }

    /// Returns when there is a change that [`CgroupWatch::follow`] has not taken note of.
    pub(crate) async fn changed(&self) {
        if !self.again {
            let Some(inotify) = &self.inotify else { return std::future::pending().await };
            let Ok(_still_ready) = inotify.readable().await else {
                return std::future::pending().await;
            };
        }
        tokio::time::sleep_until(self.rested_at.into()).await;
    }

    /// Takes note of every change until now, and watches these folders from now on: call it
    /// *before* looking, so that what comes later is told.
    pub(crate) fn follow(&mut self, folders: &BTreeSet<PathBuf>) {
        self.again = false;
        let Some(inotify) = &self.inotify else { return };
        drain(inotify);
        let mut watched = BTreeSet::new();
        self.incomplete = (folders.len() > MOST_FOLDERS)
            .then(|| format!("{} folders, {MOST_FOLDERS} are watched", folders.len()));
        for folder in folders.iter().take(MOST_FOLDERS) {
            // The same folder again is the same watch; a new one in the place of an old one is a
            // new watch.
            match inotify::add_watch(inotify.get_ref(), folder, EVENTS) {
                Ok(watch) => drop(watched.insert(watch)),
                // Gone meanwhile, which the folder above tells.
                Err(Errno::NOENT) => {}
                Err(error) => {
                    self.incomplete =
                        Some(format!("{}: {}", folder.display(), std::io::Error::from(error)))
                }
            }
        }
        for gone in self.watched.difference(&watched) {
            // Those of removed folders are removed by the kernel.
            let _ = inotify::remove_watch(inotify.get_ref(), *gone);
        }
        self.watched = watched;
    }

    /// The last look has left something to do.
    pub(crate) fn look_again(&mut self) {
        self.again = true;
    }

    /// Looking took so long: the next change is told after as long a rest.
    pub(crate) fn rest(&mut self, looked: Duration) {
        self.rested_at = Instant::now() + looked;
    }

    /// Why something may go unnoticed; nothing when all is told.
    pub(crate) fn incomplete(&self) -> Option<&str> {
        self.incomplete.as_deref()
    }
}

/// Reads all events that are told by now. That some were lost (`IN_Q_OVERFLOW`) is one more reason
/// to look, and looking follows anyway.
fn drain(inotify: &AsyncFd<OwnedFd>) {
    let mut buffer = [MaybeUninit::uninit(); 16 * 1024];
    let mut reader = inotify::Reader::new(inotify.get_ref(), &mut buffer);
    // Ends with the error that there is nothing more to read, which makes the descriptor wait for
    // the next event.
    let _ = inotify.try_io(Interest::READABLE, |_| -> std::io::Result<()> {
        loop {
            match reader.next() {
                Ok(event) if event.events().contains(ReadFlags::QUEUE_OVERFLOW) => {
                    tracing::debug!("events of cgroups were lost")
                }
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    });
}
