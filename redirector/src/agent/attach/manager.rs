//! Attaches the programs to the cgroups that match `attach.cgroups`, as these come and go.

use std::{
    path::PathBuf,
    time::{Duration, Instant},
};

use tracing::{error, info, warn};

use crate::{
    agent::attach::{cgroup_watch::CgroupWatch, pod_scope::PodScope},
    config::Attach,
    datapath::{self, AttachOutcome, Attachment, Cgroup, Datapath, DatapathError, Matches},
    error::error_chain,
};

/// How often all cgroups are scanned when inotify reports every change.
const FULL_SCAN_INTERVAL: Duration = Duration::from_secs(10);

/// New cgroups that are attached to in one step: commands and the heartbeat wait for no more than
/// that (some milliseconds each on a busy machine).
const MAX_PER_STEP: usize = 50;

/// What is wanted: by the configuration, and of pods by their names.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Scope<'a> {
    pub(crate) attach: &'a Attach,
    pub(crate) pods: &'a PodScope,
}

/// Where the programs are attached.
#[derive(Debug)]
pub(crate) struct AttachManager {
    attachments: Vec<Attachment>,
    pending: Vec<PendingCgroup>,
    /// The plain paths of `attach.cgroups` that were no cgroup at the last scan.
    missing: Vec<String>,
    /// Why the cgroups are unknown, or nothing could be changed.
    error: Option<String>,
    watch: CgroupWatch,
    /// Whether a cgroup namespace hides the cgroups beside ours: a process never leaves it.
    is_confined: bool,
    /// The IDs of cgroups that existed at the last scan and are attached.
    attached_ids: Vec<u64>,
    /// Whether some existing cgroups have not been tried yet.
    unfinished: bool,
    max_per_step: usize,
    scanned_at: Instant,
}

/// A cgroup that could not be attached to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PendingCgroup {
    /// Its directory.
    pub(crate) path: PathBuf,
    /// Why attaching failed.
    pub(crate) reason: String,
}

impl AttachManager {
    pub(crate) fn new() -> Self {
        Self {
            attachments: Vec::new(),
            pending: Vec::new(),
            missing: Vec::new(),
            error: None,
            watch: CgroupWatch::new(),
            is_confined: datapath::is_confined(),
            attached_ids: Vec::new(),
            unfinished: false,
            max_per_step: usize::MAX,
            scanned_at: Instant::now(),
        }
    }

    /// Where the programs are attached.
    pub(crate) fn attachments(&self) -> &[Attachment] {
        &self.attachments
    }

    /// Cgroups that could not be attached to.
    pub(crate) fn pending(&self) -> &[PendingCgroup] {
        &self.pending
    }

    /// The plain paths of `attach.cgroups` that are no cgroup now.
    pub(crate) fn missing(&self) -> &[String] {
        &self.missing
    }

    /// Why the last scan failed as a whole.
    pub(crate) fn error(&self) -> Option<&str> {
        self.error.as_deref()
    }

    /// Whether some existing cgroups have not been tried yet.
    pub(crate) fn is_unfinished(&self) -> bool {
        self.unfinished
    }

    /// Whether a cgroup namespace hides the cgroups beside the agent's own.
    pub(crate) fn is_confined(&self) -> bool {
        self.is_confined
    }

    /// Returns when cgroups have come or gone.
    pub(crate) async fn changed(&self) {
        self.watch.changed().await;
    }

    /// Ends the startup, whose first scan attaches to all cgroups in one step.
    pub(crate) fn limit_steps(&mut self) {
        self.max_per_step = MAX_PER_STEP;
    }

    /// A cgroup has come or gone.
    pub(crate) fn on_change(&mut self, datapath: &mut Datapath, scope: Scope<'_>) {
        if datapath.lacks_routes() {
            // An older version's programs serve until startup is over, which scans everything.
            let _ = self.scan(datapath, scope);
        } else {
            self.attach(datapath, scope);
        }
    }

    /// Retries what has failed, and scans everything when inotify may have missed changes. Called
    /// every two seconds.
    pub(crate) fn rescan(&mut self, datapath: &mut Datapath, scope: Scope<'_>) {
        if !datapath.lacks_routes() && self.is_scan_due() {
            self.attach(datapath, scope);
        }
    }

    /// Attaches to cgroups that have appeared and releases those that are gone.
    pub(crate) fn attach(&mut self, datapath: &mut Datapath, scope: Scope<'_>) {
        let started = Instant::now();
        let attached =
            self.scan(datapath, scope).and_then(|cgroups| self.attach_to(datapath, &cgroups));
        if let Err(error) = attached {
            let error = error_chain(&error);
            if self.error.as_ref() != Some(&error) {
                error!("failed to attach; retrying: {error}");
                self.error = Some(error);
            }
        }
        self.scanned_at = Instant::now();
        self.watch.rest(started.elapsed());
    }

    /// The cgroups to attach to. The watch is updated first, so that it reports cgroups that appear
    /// during the scan.
    fn scan(
        &mut self,
        datapath: &Datapath,
        scope: Scope<'_>,
    ) -> Result<Vec<Cgroup>, DatapathError> {
        let Scope { attach, pods } = scope;
        let mut watched = datapath::watched_dirs(&datapath::cgroup2_mount()?, &attach.cgroups)?;
        if pods.is_known() {
            watched.extend(datapath::pod_parents(&attach.cgroups)?);
        }
        self.watch.follow(&watched);
        let earlier = || datapath.attachments().iter().map(|at| at.id).collect();
        let attached =
            if self.attached_ids.is_empty() { earlier() } else { self.attached_ids.clone() };
        let selects: &datapath::PodFilter<'_> = &|uid| pods.selects(&attach.pods, uid);
        let filter = pods.is_known().then_some(selects);
        let Matches { cgroups, missing } =
            datapath::cgroups_beside(&attach.cgroups, &attached, filter)?;
        self.set_missing(missing);
        Ok(cgroups)
    }

    /// Records the missing paths, and logs each when it becomes missing.
    fn set_missing(&mut self, missing: Vec<String>) {
        for new in missing.iter().filter(|path| !self.missing.contains(path)) {
            warn!("attach.cgroups: `{new}` is not a cgroup; attaching when it appears");
        }
        self.missing = missing;
    }

    fn is_scan_due(&self) -> bool {
        self.error.is_some()
            || !self.pending.is_empty()
            || self.watch.incomplete().is_some()
            || self.scanned_at.elapsed() >= FULL_SCAN_INTERVAL
    }

    fn attach_to(
        &mut self,
        datapath: &mut Datapath,
        cgroups: &[Cgroup],
    ) -> Result<(), DatapathError> {
        let mut ids: Vec<_> = cgroups.iter().map(|cgroup| cgroup.id).collect();
        ids.sort_unstable();
        let settled = self.error.is_none()
            && self.pending.is_empty()
            && !self.unfinished
            && datapath.draining() == 0;
        if settled && ids == self.attached_ids {
            return Ok(());
        }
        let outcome = datapath.attach_each(cgroups, self.max_per_step)?;
        log_attached(&outcome.attached);
        let failed = |id: u64| outcome.failures.iter().any(|failure| failure.cgroup.id == id);
        let mut attachments = datapath.attachments();
        // A cgroup with only some of the programs is pending.
        attachments.retain(|at| !failed(at.id));
        // A cgroup that has just vanished is tried again if it comes back with the same ID.
        ids.retain(|id| attachments.iter().any(|at| at.id == *id) && !failed(*id));
        self.unfinished = outcome.not_tried > 0;
        if self.unfinished {
            self.watch.request_rescan();
        }
        self.set_pending(&outcome);
        self.attached_ids = ids;
        datapath.set_name_cgroups(&datapath::name_cgroups(&attachments))?;
        self.attachments = attachments;
        self.error = None;
        Ok(())
    }

    /// Records the cgroups that failed, and logs the new failures.
    fn set_pending(&mut self, outcome: &AttachOutcome) {
        let pending = outcome.failures.iter().map(|failure| PendingCgroup {
            path: failure.cgroup.path.clone(),
            reason: error_chain(&failure.error),
        });
        let pending: Vec<_> = pending.collect();
        for new in pending.iter().filter(|one| !self.pending.contains(one)) {
            error!("failed to attach; retrying: {}", new.reason);
        }
        self.pending = pending;
    }
}

/// Logs a line for each cgroup, or one line for many that came together.
fn log_attached(cgroups: &[Cgroup]) {
    const MAX_LINES: usize = 5;
    match cgroups {
        few if few.len() <= MAX_LINES => {
            few.iter().for_each(|cgroup| info!(cgroup = %cgroup.path.display(), "attached"))
        }
        [first, .., last] => {
            info!(first = %first.path.display(), last = %last.path.display(), "attached to {} \
                cgroups", cgroups.len())
        }
        [] | [_] => {}
    }
}
