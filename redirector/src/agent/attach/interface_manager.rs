//! Attaches the packet programs to interfaces as these come and go, within milliseconds of the
//! kernel's message; a periodic list of all of them covers what messages miss.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use tracing::{error, info, warn};

use crate::{
    agent::attach::interface_roles::{Decision, Surroundings, decide},
    config::InterfaceSpec,
    datapath::{
        Datapath, DatapathError, InterfaceAttachment, InterfaceFinding, InterfaceRole,
        InterfaceTarget,
    },
    error::error_chain,
    host::{self, Link, LinkChange, LinkWatch},
};

/// How often all interfaces are listed.
const FULL_SCAN_INTERVAL: Duration = Duration::from_secs(10);

/// How long one step may take, and up to two interfaces more: commands and the heartbeat wait for
/// it. The kernel takes about 16 ms for each link to the TCX hook, in which it waits for all
/// processors (`tcx_entry_sync`), and holds its network lock meanwhile.
const STEP_TIME: Duration = Duration::from_millis(60);

/// How long the first step may take, before the agent is ready.
const FIRST_STEP_TIME: Duration = Duration::from_millis(1000);

/// Interfaces whose programs are checked every second.
const MAX_CHECKS: usize = 128;

/// An interface, and what is done with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct InterfaceView {
    /// Its index.
    pub(crate) index: u32,
    /// Its name.
    pub(crate) name: String,
    /// Its kind; empty for a physical one.
    pub(crate) kind: String,
    /// Whose packets pass it; none if it gets no programs.
    pub(crate) role: Option<InterfaceRole>,
    /// Why nothing is attached, or only names are answered.
    pub(crate) reason: Option<String>,
    /// Why attaching failed; it is tried again.
    pub(crate) failure: Option<String>,
    /// What is attached.
    pub(crate) attachment: Option<InterfaceAttachment>,
}

/// The interfaces and their programs.
#[derive(Debug)]
pub(crate) struct InterfaceManager {
    /// None if the kernel refused the socket: then the periodic list has to do.
    watch: Option<LinkWatch>,
    specs: Vec<InterfaceSpec>,
    surroundings: Surroundings,
    /// Those that lead to pods that are not redirected.
    left_out: BTreeSet<u32>,
    decisions: BTreeMap<u32, Decision>,
    failures: BTreeMap<u32, String>,
    /// Interfaces that are gone and may still have programs of ours.
    gone: BTreeSet<u32>,
    /// Interfaces that are new, have changed or have failed.
    due: BTreeSet<u32>,
    /// Why nothing can be attached.
    error: Option<String>,
    step_time: Duration,
    /// None before the first list.
    scanned_at: Option<Instant>,
}

impl InterfaceManager {
    /// Begins to watch. Needs the runtime of tokio.
    pub(crate) fn new() -> Self {
        let watch = LinkWatch::new()
            .inspect_err(|error| warn!("interfaces are listed every 10 s only: {error}"));
        Self {
            watch: watch.ok(),
            specs: Vec::new(),
            surroundings: Surroundings::default(),
            left_out: BTreeSet::new(),
            decisions: BTreeMap::new(),
            failures: BTreeMap::new(),
            gone: BTreeSet::new(),
            due: BTreeSet::new(),
            error: None,
            step_time: FIRST_STEP_TIME,
            scanned_at: None,
        }
    }

    /// Every interface, and what is done with it.
    pub(crate) fn views(&self, datapath: &Datapath) -> Vec<InterfaceView> {
        let mut attachments: BTreeMap<u32, InterfaceAttachment> =
            datapath.interface_attachments().into_iter().map(|at| (at.index, at)).collect();
        let view = |(index, link): (&u32, &Link)| {
            let decision = self.decisions.get(index);
            InterfaceView {
                index: *index,
                name: link.name.clone(),
                kind: link.kind.clone(),
                role: decision.and_then(Decision::role),
                reason: decision.and_then(Decision::reason).map(str::to_owned),
                failure: self.failures.get(index).cloned(),
                attachment: attachments.remove(index),
            }
        };
        self.surroundings.links.iter().map(view).collect()
    }

    /// Why nothing can be attached to any interface.
    pub(crate) fn error(&self) -> Option<&str> {
        self.error.as_deref()
    }

    /// Whether the configuration wants packets to be looked at.
    pub(crate) fn is_on(&self) -> bool {
        !self.specs.is_empty()
    }

    /// Returns when interfaces have come, changed or gone, or some are left to do.
    pub(crate) async fn changed(&self) {
        match &self.watch {
            // Other tasks of this thread get their turn between two steps.
            _ if self.has_work() => tokio::task::yield_now().await,
            Some(watch) => watch.changed().await,
            None => std::future::pending().await,
        }
    }

    /// Whether some interfaces are left to do.
    pub(crate) fn has_work(&self) -> bool {
        self.error.is_none()
            && self.scanned_at.is_some()
            && !(self.due.is_empty() && self.gone.is_empty())
    }

    /// Ends the startup, whose first step attaches to many interfaces.
    pub(crate) fn limit_steps(&mut self) {
        self.step_time = STEP_TIME;
    }

    /// Guests' interfaces with these indices are left alone from the next step on.
    pub(crate) fn leave_out(&mut self, interfaces: BTreeSet<u32>) {
        let changed: BTreeSet<u32> =
            self.left_out.symmetric_difference(&interfaces).copied().collect();
        self.left_out = interfaces;
        if self.scanned_at.is_some() && !changed.is_empty() {
            self.decide(changed);
        }
    }

    /// Attaches to the interfaces that `specs` want, and releases the others.
    pub(crate) fn attach(&mut self, datapath: &mut Datapath, specs: &[InterfaceSpec]) {
        if let Some(error) = datapath.packet_error() {
            self.report(error_chain(error));
            return;
        }
        self.specs = specs.to_vec();
        self.scan(datapath);
        self.step(datapath);
    }

    /// An interface has come, changed or gone, or some are left to do.
    pub(crate) fn on_change(&mut self, datapath: &mut Datapath) {
        let taken = self.watch.as_ref().map(LinkWatch::take).unwrap_or_default();
        if self.scanned_at.is_none() {
            // Until startup is over: the first list covers it.
            return;
        }
        if self.specs.is_empty() {
            // What is left to do is to release interfaces.
        } else if taken.lost {
            self.scan(datapath);
        } else {
            let mut changed = BTreeSet::new();
            taken.changes.into_iter().for_each(|change| self.note(change, &mut changed));
            self.decide_about(changed);
        }
        self.step(datapath);
    }

    /// Retries what has failed, and lists all interfaces from time to time. Called every two
    /// seconds.
    pub(crate) fn rescan(&mut self, datapath: &mut Datapath, specs: &[InterfaceSpec]) {
        let Some(scanned_at) = self.scanned_at else {
            // The first list may have failed.
            if self.error.is_some() {
                self.attach(datapath, specs);
            }
            return;
        };
        if self.specs != specs {
            // The configuration was reloaded.
            return self.attach(datapath, specs);
        }
        if self.specs.is_empty() {
            return self.step(datapath);
        }
        self.due.extend(self.failures.keys());
        let failed = self.error.take().is_some();
        if failed || scanned_at.elapsed() >= FULL_SCAN_INTERVAL || self.watch.is_none() {
            self.scan(datapath);
        }
        self.step(datapath);
    }

    /// Checks that our programs are there and run first. Returns what another process had removed.
    /// Called every second.
    pub(crate) fn heal(&self, datapath: &mut Datapath) -> Result<Vec<String>, DatapathError> {
        if self.scanned_at.is_none() || self.specs.is_empty() {
            return Ok(Vec::new());
        }
        let findings = datapath.check_interfaces(MAX_CHECKS)?;
        findings.iter().for_each(log_finding);
        Ok(findings.iter().filter_map(healed).collect())
    }

    fn note(&mut self, change: LinkChange, changed: &mut BTreeSet<u32>) {
        match change {
            LinkChange::Present(link) => {
                changed.insert(link.index);
                let (index, is_new) =
                    (link.index, !self.surroundings.links.contains_key(&link.index));
                if is_new {
                    self.due.insert(index);
                }
                self.surroundings.links.insert(index, link);
            }
            LinkChange::Gone(index) => {
                self.surroundings.links.remove(&index);
                self.decisions.remove(&index);
                self.failures.remove(&index);
                self.due.remove(&index);
                self.gone.insert(index);
                changed.extend(self.look_at_peers_of(index));
            }
        }
    }

    /// The other end of a veth that was moved to a container is that container's from now on. The
    /// kernel sends no message about the end that stays.
    fn look_at_peers_of(&mut self, gone: u32) -> Vec<u32> {
        let links = &mut self.surroundings.links;
        let peers = links.values().filter(|link| link.peer == Some(gone));
        let peers: Vec<u32> = peers.map(|link| link.index).collect();
        for peer in &peers {
            if let Ok(Some(link)) = host::link(*peer) {
                links.insert(*peer, link);
            }
        }
        peers
    }

    /// Lists all interfaces, and decides about each.
    fn scan(&mut self, datapath: &Datapath) {
        let first = self.scanned_at.is_none();
        let read = match self.specs.is_empty() {
            true => Ok(Surroundings::default()),
            false => Surroundings::read(datapath.bpffs()),
        };
        let surroundings = match read {
            Ok(surroundings) => surroundings,
            Err(error) => return self.report(format!("failed to list the interfaces: {error}")),
        };
        let pinned = match datapath.pinned_interfaces() {
            Ok(pinned) => pinned,
            Err(error) => return self.report(error_chain(&error)),
        };
        let known = self.surroundings.links.keys().copied();
        let is_gone = |index: &u32| !surroundings.links.contains_key(index);
        self.gone.extend(known.chain(pinned).filter(is_gone));
        self.surroundings = surroundings;
        let listed: BTreeSet<u32> = self.surroundings.links.keys().copied().collect();
        self.decisions.retain(|index, _| listed.contains(index));
        self.failures.retain(|index, _| listed.contains(index));
        self.due.retain(|index| listed.contains(index));
        if first {
            self.due.extend(&listed);
        }
        self.decide(listed);
        self.scanned_at = Some(Instant::now());
        self.error = None;
    }

    /// Decides about interfaces that have changed, and about all if the uplinks have.
    fn decide_about(&mut self, changed: BTreeSet<u32>) {
        if changed.is_empty() {
            return;
        }
        let uplinks = match host::uplinks() {
            Ok(uplinks) => uplinks,
            // Without them an uplink could be taken for a guest's interface.
            Err(error) => return self.report(format!("failed to ask for the uplinks: {error}")),
        };
        if self.surroundings.uplinks == uplinks {
            return self.decide(changed);
        }
        self.surroundings.uplinks = uplinks;
        self.decide(self.surroundings.links.keys().copied().collect());
    }

    /// Interfaces whose decision is another one than before are due.
    fn decide(&mut self, indices: BTreeSet<u32>) {
        for index in indices {
            let Some(link) = self.surroundings.links.get(&index) else { continue };
            let mut decision = decide(link, &self.surroundings, &self.specs);
            if self.left_out.contains(&index) && decision.role() == Some(InterfaceRole::Guest) {
                decision =
                    Decision::Skip("of a pod that attach.namespaces or names leave out".into());
            }
            if self.decisions.get(&index) != Some(&decision) {
                self.due.insert(index);
                self.decisions.insert(index, decision);
            }
        }
    }

    /// Releases what is gone, then attaches to what is due, until the time of a step is over.
    fn step(&mut self, datapath: &mut Datapath) {
        let end = Instant::now() + self.step_time;
        let mut attached = Vec::new();
        // An index that was given to another interface waits for the release of the first one.
        while let Some(index) = self.gone.pop_first() {
            self.detach(datapath, index);
            if Instant::now() > end {
                return;
            }
        }
        while let Some(index) = self.due.pop_first() {
            let Some(link) = self.surroundings.links.get(&index) else { continue };
            match self.decisions.get(&index).and_then(|decision| target(link, decision)) {
                Some(target) => attached.extend(self.attach_one(datapath, target)),
                None => self.detach(datapath, index),
            }
            if self.error.is_some() || Instant::now() > end {
                break;
            }
        }
        log_attached(&attached);
    }

    /// Returns the target if its programs are attached now.
    fn attach_one(
        &mut self,
        datapath: &mut Datapath,
        target: InterfaceTarget,
    ) -> Option<InterfaceTarget> {
        match datapath.attach_interfaces(std::slice::from_ref(&target)) {
            Ok(failures) => {
                let failure = failures.into_iter().next();
                let Some(failure) = failure.map(|failure| error_chain(&failure.error)) else {
                    self.failures.remove(&target.index);
                    return Some(target);
                };
                if self.failures.get(&target.index) != Some(&failure) {
                    error!(interface = target.name, "failed to attach; retrying: {failure}");
                }
                self.failures.insert(target.index, failure);
            }
            Err(error) => {
                self.due.insert(target.index);
                self.report(error_chain(&error));
            }
        }
        None
    }

    fn detach(&mut self, datapath: &mut Datapath, index: u32) {
        if let Err(error) = datapath.detach_interfaces(&[index]) {
            // The next list of all interfaces finds what is left.
            warn!(index, "failed to detach from an interface: {}", error_chain(&error));
        }
    }

    fn report(&mut self, error: String) {
        if self.error.as_ref() != Some(&error) {
            error!("failed to attach to interfaces; retrying: {error}");
            self.error = Some(error);
        }
    }
}

fn target(link: &Link, decision: &Decision) -> Option<InterfaceTarget> {
    let role = decision.role()?;
    Some(InterfaceTarget {
        index: link.index,
        name: link.name.clone(),
        role,
        redirects: *decision == Decision::Attach(InterfaceRole::Guest),
    })
}

/// Logs a line for each interface, or one line for many that came together.
fn log_attached(attached: &[InterfaceTarget]) {
    const MAX_LINES: usize = 5;
    match attached {
        few if few.len() <= MAX_LINES => few.iter().for_each(|target| {
            info!(interface = target.name, role = ?target.role, "attached");
        }),
        many => info!("attached to {} interfaces", many.len()),
    }
}

/// What another process had removed.
fn healed(finding: &InterfaceFinding) -> Option<String> {
    let name = &finding.name;
    match (finding.was_missing, finding.was_unpinned) {
        (true, _) => Some(format!("programs were detached from interface {name}")),
        (false, true) => Some(format!("the pins of interface {name} were removed")),
        (false, false) => None,
    }
}

fn log_finding(finding: &InterfaceFinding) {
    let InterfaceFinding { name, overtaken, preceded_by, .. } = finding;
    if !overtaken.is_empty() {
        let others = overtaken.join(", ");
        warn!(interface = name, "attached again in front of other programs: {others}");
    }
    if !preceded_by.is_empty() {
        let others = preceded_by.join(", ");
        warn!(interface = name, "other programs run before ours and may end the chain: {others}");
    }
}
