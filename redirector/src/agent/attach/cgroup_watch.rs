//! Notices that cgroups come and go: inotify on the directories in which a change can affect which
//! cgroups match `attach.cgroups`.
//!
//! It only reports *that* something has changed; the caller scans. So an event that is lost, or
//! names a cgroup that is already gone, does no harm. Changes that inotify does not report (too
//! many directories, no inotify at all) are found by periodic scans.

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
use tracing::warn;

/// Directories that are watched at most; each takes about a kilobyte of kernel memory, and
/// `fs.inotify.max_user_watches` is shared by all processes of a user.
const MAX_DIRS: usize = 1024;

/// A cgroup is created or removed.
const EVENTS: WatchFlags = WatchFlags::CREATE.union(WatchFlags::DELETE).union(WatchFlags::ONLYDIR);

/// Watches the directories that decide where to attach.
#[derive(Debug)]
pub(crate) struct CgroupWatch {
    /// None if the kernel refused an instance.
    inotify: Option<AsyncFd<OwnedFd>>,
    watched: BTreeSet<i32>,
    /// Whether a scan is due without another change.
    rescan_due: bool,
    /// Why changes may go unnoticed.
    incomplete: Option<String>,
    /// When the next change may be reported: in a storm of cgroups at most half of the time is
    /// spent on scans.
    quiet_until: Instant,
}

impl CgroupWatch {
    pub(crate) fn new() -> Self {
        let mut watch = Self {
            inotify: None,
            watched: BTreeSet::new(),
            rescan_due: false,
            incomplete: None,
            quiet_until: Instant::now(),
        };
        watch.open();
        watch
    }

    /// Asks for an instance of inotify: other processes of this user may have all of them for a
    /// while.
    fn open(&mut self) {
        let opened = inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC)
            .map_err(std::io::Error::from)
            .and_then(|descriptor| {
                // SAFETY: the AsyncFd owns the descriptor, which stays the same for as long as it
                // lives.
                Ok(unsafe { AsyncFd::register_with_interest(descriptor, Interest::READABLE) }?)
            });
        match opened {
            Ok(inotify) => self.inotify = Some(inotify),
            Err(error) => {
                if self.incomplete.is_none() {
                    warn!("new cgroups are found up to 2 s late: failed to watch them: {error}");
                }
                self.incomplete = Some(format!("inotify: {error}"));
            }
        }
    }

    /// Returns when there is a change since the last [`CgroupWatch::follow`].
    pub(crate) async fn changed(&self) {
        if !self.rescan_due {
            let Some(inotify) = &self.inotify else { return std::future::pending().await };
            let Ok(_still_ready) = inotify.readable().await else {
                return std::future::pending().await;
            };
        }
        tokio::time::sleep_until(self.quiet_until.into()).await;
    }

    /// Consumes every change until now, and watches these directories from now on. Call this
    /// *before* a scan, so that later changes are reported.
    pub(crate) fn follow(&mut self, dirs: &BTreeSet<PathBuf>) {
        self.rescan_due = false;
        if self.inotify.is_none() {
            self.open();
        }
        let Some(inotify) = &self.inotify else { return };
        drain(inotify);
        let mut watched = BTreeSet::new();
        self.incomplete = (dirs.len() > MAX_DIRS)
            .then(|| format!("{} directories, {MAX_DIRS} are watched", dirs.len()));
        for dir in dirs.iter().take(MAX_DIRS) {
            // The same directory again is the same watch; a new one with the name of an old one is
            // a new watch.
            match inotify::add_watch(inotify.get_ref(), dir, EVENTS) {
                Ok(watch) => drop(watched.insert(watch)),
                // Gone by now, which the directory above it reports.
                Err(Errno::NOENT) => {}
                Err(error) => {
                    self.incomplete =
                        Some(format!("{}: {}", dir.display(), std::io::Error::from(error)))
                }
            }
        }
        for gone in self.watched.difference(&watched) {
            // The kernel removes the watches of removed directories itself.
            let _ = inotify::remove_watch(inotify.get_ref(), *gone);
        }
        self.watched = watched;
    }

    /// The last scan has left something to do.
    pub(crate) fn request_rescan(&mut self) {
        self.rescan_due = true;
    }

    /// A scan took this long; the next change is reported after as long a rest.
    pub(crate) fn rest(&mut self, scan: Duration) {
        self.quiet_until = Instant::now() + scan;
    }

    /// Why changes may go unnoticed; none if all are reported.
    pub(crate) fn incomplete(&self) -> Option<&str> {
        self.incomplete.as_deref()
    }
}

/// Reads all pending events. Lost ones (`IN_Q_OVERFLOW`) are one more reason for the scan, which
/// follows in any case.
fn drain(inotify: &AsyncFd<OwnedFd>) {
    let mut buffer = [MaybeUninit::uninit(); 16 * 1024];
    let mut reader = inotify::Reader::new(inotify.get_ref(), &mut buffer);
    // Ends with EAGAIN, which makes the descriptor wait for the next event.
    let _ = inotify.try_io(Interest::READABLE, |_| -> std::io::Result<()> {
        loop {
            match reader.next() {
                Ok(event) if event.events().contains(ReadFlags::QUEUE_OVERFLOW) => {
                    tracing::debug!("the inotify queue overflowed: events of cgroups were lost")
                }
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    });
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[tokio::test]
    async fn an_instance_that_was_refused_is_asked_for_again() {
        const LIMIT: Duration = Duration::from_secs(60);
        let refused = Some("inotify: Too many open files".to_owned());
        let mut watch = CgroupWatch { inotify: None, incomplete: refused, ..CgroupWatch::new() };
        let dir = tempfile::tempdir().expect("a directory");
        watch.follow(&BTreeSet::from([dir.path().to_owned()]));
        assert_eq!(watch.incomplete(), None);
        fs::create_dir(dir.path().join("job")).expect("made");
        tokio::time::timeout(LIMIT, watch.changed()).await.expect("a change");
    }
}
