//! Keeping the programs on the cgroups that `attach.cgroups` stands for, as those come and go.

use std::{
    path::PathBuf,
    time::{Duration, Instant},
};

use tracing::{error, info};

use crate::{
    agent::{attach::cgroup_watch::CgroupWatch, event_loop::Owner},
    config::CgroupSpec,
    datapath::{self, AttachOutcome, Attachment, Cgroup, DatapathError},
    error::error_chain,
};

/// How often everything is looked at where all changes are told.
const RESCAN_WATCHED: Duration = Duration::from_secs(10);

/// New cgroups that are attached to at one time: the agent's commands and its sign of life don't
/// wait for more (some milliseconds each on a busy machine).
const AT_ONCE: usize = 50;

/// Where the programs are attached.
#[derive(Debug)]
pub(crate) struct Attached {
    pub(crate) list: Vec<Attachment>,
    /// Cgroups that could not be attached to, and why.
    pub(crate) waiting: Vec<(PathBuf, String)>,
    /// Why it is not even known where to attach, or nothing could be changed.
    pub(crate) error: Option<String>,
    /// Whether the root is among them, so that what is attached is every process's.
    pub(crate) at_root: bool,
    /// Tells when to look again.
    pub(crate) watch: CgroupWatch,
    /// The cgroups that were there at the last look, and are attached to.
    cgroups: Vec<u64>,
    /// Whether some that are there have not been tried yet.
    unfinished: bool,
    at_once: usize,
    looked_at: Instant,
}

impl Attached {
    pub(crate) fn new() -> Self {
        Self {
            list: Vec::new(),
            waiting: Vec::new(),
            error: None,
            at_root: false,
            watch: CgroupWatch::new(),
            cgroups: Vec::new(),
            unfinished: false,
            at_once: usize::MAX,
            looked_at: Instant::now(),
        }
    }

    /// The start is over, which attached to all that were there; from now on nothing else waits for
    /// many.
    pub(crate) fn started(&mut self) {
        self.at_once = AT_ONCE;
    }

    /// Whether it is time to look although no change was told.
    fn is_due(&self) -> bool {
        let unfinished = self.error.is_some() || !self.waiting.is_empty();
        unfinished
            || self.watch.incomplete().is_some()
            || self.looked_at.elapsed() >= RESCAN_WATCHED
    }
}

impl Owner {
    /// A cgroup has come or gone.
    pub(crate) fn cgroups_changed(&mut self) {
        if self.live.datapath.lacks_routes() {
            // An older version's programs serve until the start is over, and then everything is
            // looked at.
            let _ = look(&mut self.attached.watch, &self.config.attach.cgroups);
        } else {
            self.attach();
        }
    }

    /// Tries again what has failed, and looks at everything where not all changes are told. Called
    /// every two seconds.
    pub(crate) fn rescan(&mut self) {
        if !self.live.datapath.lacks_routes() && self.attached.is_due() {
            self.attach();
        }
    }

    /// Attaches to cgroups that have appeared and lets go of those that have gone.
    pub(crate) fn attach(&mut self) {
        let started = Instant::now();
        let attached = look(&mut self.attached.watch, &self.config.attach.cgroups)
            .and_then(|cgroups| self.attach_to(&cgroups));
        if let Err(error) = attached {
            let error = error_chain(&error);
            if self.attached.error.as_ref() != Some(&error) {
                error!("failed to attach; trying again: {error}");
                self.attached.error = Some(error);
            }
        }
        self.attached.looked_at = Instant::now();
        self.attached.watch.rest(started.elapsed());
    }

    fn attach_to(&mut self, cgroups: &[Cgroup]) -> Result<(), DatapathError> {
        let at = &self.attached;
        let mut ids: Vec<_> = cgroups.iter().map(|cgroup| cgroup.id).collect();
        ids.sort_unstable();
        let settled = at.error.is_none()
            && at.waiting.is_empty()
            && !at.unfinished
            && self.live.datapath.draining() == 0;
        if settled && ids == at.cgroups {
            return Ok(());
        }
        let AttachOutcome { attached: new, failures: refused, not_tried: left } =
            self.live.datapath.attach_each(cgroups, at.at_once)?;
        let mut list = self.live.datapath.attachments();
        // One that took only some of the programs waits for the others.
        list.retain(|at| !refused.iter().any(|refused| refused.cgroup.id == at.id));
        tell_new(&new);
        let waiting: Vec<_> = refused
            .iter()
            .map(|refused| (refused.cgroup.path.clone(), error_chain(&refused.error)))
            .collect();
        for (_, why) in waiting.iter().filter(|waits| !at.waiting.contains(waits)) {
            error!("failed to attach; trying again: {why}");
        }
        // A cgroup that vanished meanwhile is tried again if it comes back under the same number.
        ids.retain(|id| {
            list.iter().any(|at| at.id == *id)
                && !refused.iter().any(|refused| refused.cgroup.id == *id)
        });
        self.attached.unfinished = left > 0;
        if self.attached.unfinished {
            self.attached.watch.look_again();
        }
        self.attached.cgroups = ids;
        self.attached.at_root = datapath::cgroup2_mount()
            .is_ok_and(|root| list.iter().any(|at| at.cgroup.as_ref() == Some(&root)));
        self.attached.list = list;
        self.attached.waiting = waiting;
        self.attached.error = None;
        Ok(())
    }
}

/// A line for each cgroup, or one for many that came at once.
fn tell_new(new: &[Cgroup]) {
    const EACH: usize = 5;
    match new {
        few if few.len() <= EACH => {
            few.iter().for_each(|cgroup| info!(cgroup = %cgroup.path.display(), "attached"))
        }
        [first, .., last] => {
            info!(first = %first.path.display(), last = %last.path.display(), "attached to {} \
                cgroups", new.len())
        }
        [] | [_] => {}
    }
}

/// The cgroups that there are. The watch comes first, so that it tells of those that come while
/// this looks.
fn look(watch: &mut CgroupWatch, specs: &[CgroupSpec]) -> Result<Vec<Cgroup>, DatapathError> {
    watch.follow(&datapath::watched_dirs(&datapath::cgroup2_mount()?, specs));
    datapath::cgroups(specs)
}
