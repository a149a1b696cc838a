//! Attaches the packet programs to interfaces, and keeps them in front of other programs.

use std::{
    collections::BTreeMap,
    ops::Bound,
    time::{Duration, Instant},
};

use crate::{
    datapath::{
        attach::interfaces::{
            elements::Elements,
            hook::{self, HeldLink, Place, Step},
            removal::InterfacePins,
            target::{
                InterfaceAttachment, InterfaceFailure, InterfaceFinding, InterfaceRole,
                InterfaceTarget, TcHook,
            },
        },
        error::DatapathError,
        load::object::Object,
        maps::flow_expiry::Guests,
        pins::layout::Pins,
        sys::monotonic_ns,
    },
    net::route_socket::RouteSocket,
};

/// The shortest time between two moves to the front of one interface's hook: a neighbour that
/// insists on being first gets no race, and every move is a moment without our program.
const MOVE_INTERVAL: Duration = Duration::from_secs(10);

/// The pins of all versions: ours, and older ones until their links are taken over.
#[derive(Clone, Copy)]
pub(crate) struct Versions<'p> {
    pub(crate) ours: &'p Pins,
    pub(crate) older: &'p [Pins],
}

/// The interfaces with our programs.
pub(crate) struct Interfaces {
    hook: TcHook,
    elements: Elements,
    attached: BTreeMap<u32, Attached>,
    /// The interface that was checked last.
    checked: u32,
}

/// An interface with our programs.
struct Attached {
    target: InterfaceTarget,
    /// The programs, each with its link.
    programs: Vec<(&'static str, HeldLink)>,
    reattached: u32,
    moved_at: Option<Instant>,
    preceded_by: Vec<String>,
    /// `CLOCK_MONOTONIC` in nanoseconds when the interface was new; 0 for one that an earlier agent
    /// attached to.
    new_since_ns: u64,
}

impl Interfaces {
    pub(crate) fn open(object: &mut Object) -> Result<Self, DatapathError> {
        Ok(Self {
            hook: hook::detect(),
            elements: Elements::open(object)?,
            attached: BTreeMap::new(),
            checked: 0,
        })
    }

    /// Uses filters although this kernel has the TCX hook.
    pub(crate) fn force_clsact(&mut self) {
        self.hook = TcHook::Clsact;
    }

    pub(crate) fn attachments(&self) -> Vec<InterfaceAttachment> {
        self.attached.values().map(|attached| attached.describe(self.hook)).collect()
    }

    /// Attaches to each interface, or swaps the programs there to ours. An interface that is gone
    /// by now is no failure.
    pub(crate) fn attach(
        &mut self,
        object: &mut Object,
        versions: Versions<'_>,
        targets: &[InterfaceTarget],
    ) -> Vec<InterfaceFailure> {
        let (mut failures, mut socket) = (Vec::new(), None);
        for target in targets {
            if let Err(error) = self.attach_one(object, versions, target, &mut socket) {
                let gone = error.is_missing_interface();
                // Both programs or none.
                let undone = self.detach_one(versions, target.index, &mut socket);
                if !gone {
                    failures.push(InterfaceFailure {
                        index: target.index,
                        name: target.name.clone(),
                        error: undone.err().unwrap_or(error),
                    });
                }
            }
        }
        failures
    }

    fn attach_one(
        &mut self,
        object: &mut Object,
        versions: Versions<'_>,
        target: &InterfaceTarget,
        socket: &mut Option<RouteSocket>,
    ) -> Result<(), DatapathError> {
        match self.attached.get_mut(&target.index) {
            Some(known) if known.target == *target => return Ok(()),
            Some(known) if known.target.role == target.role => {
                known.target = target.clone();
                return self.elements.set(target);
            }
            Some(_) => drop(self.detach_one(versions, target.index, socket)?),
            None => {}
        }
        let state = InterfacePins::new(versions.ours, target.index);
        state.create_dir()?;
        for pins in std::iter::once(versions.ours).chain(versions.older) {
            InterfacePins::new(pins, target.index).release_others(target.role, socket)?;
        }
        for old in versions.older.iter().rev() {
            for &program in target.role.programs() {
                Place { pins: versions.ours, target, program }.take_over(old, object)?;
            }
            let old = InterfacePins::new(old, target.index);
            old.move_filters(&state)?;
            old.remove_dir()?;
        }
        // Before the programs run: they do nothing without it.
        self.elements.set(target)?;
        let since_ns = monotonic_ns();
        let mut steps = Vec::new();
        for &program in target.role.programs() {
            let place = Place { pins: versions.ours, target, program };
            steps.push((program, place.attach(self.hook, object, socket)?));
        }
        let is_new = steps.iter().all(|(_, step)| matches!(step, Step::Attached(_)));
        if is_new {
            self.elements.reset(target)?;
        }
        let programs =
            steps.into_iter().map(|(program, step)| (program, step.into_link())).collect();
        let mut attached = Attached::new(target.clone(), programs);
        attached.new_since_ns = if is_new { since_ns } else { 0 };
        self.attached.insert(target.index, attached);
        Ok(())
    }

    /// The guests' interfaces, each with the time since which it has its index.
    pub(crate) fn guests(&self) -> Guests {
        let guests = self.attached.iter().filter(|(_, at)| at.target.role == InterfaceRole::Guest);
        guests.map(|(&index, at)| (index, at.new_since_ns)).collect()
    }

    /// Counts established flows of a guest that were removed since they were idle.
    pub(crate) fn count_expired(&mut self, index: u32, flows: u64) -> Result<(), DatapathError> {
        self.elements.count_expired(index, flows)
    }

    /// Detaches from interfaces; those without our programs are no error. Returns the number of
    /// programs removed.
    pub(crate) fn detach(
        &mut self,
        versions: Versions<'_>,
        indices: &[u32],
    ) -> Result<usize, DatapathError> {
        let (mut removed, mut socket) = (0, None);
        for &index in indices {
            removed += self.detach_one(versions, index, &mut socket)?;
        }
        Ok(removed)
    }

    fn detach_one(
        &mut self,
        versions: Versions<'_>,
        index: u32,
        socket: &mut Option<RouteSocket>,
    ) -> Result<usize, DatapathError> {
        self.attached.remove(&index);
        let mut removed = 0;
        for pins in std::iter::once(versions.ours).chain(versions.older) {
            let state = InterfacePins::new(pins, index);
            if state.exist() {
                removed += state.detach(socket)?;
            }
        }
        self.elements.remove(index)?;
        Ok(removed)
    }

    /// Checks whether our programs still run first, on up to `limit` interfaces, beginning after
    /// the one that was checked last. Attaches those again that are gone or behind another program.
    pub(crate) fn check(
        &mut self,
        object: &mut Object,
        pins: &Pins,
        limit: usize,
    ) -> Result<Vec<InterfaceFinding>, DatapathError> {
        let (mut findings, mut socket) = (Vec::new(), None);
        let mut due: Vec<u32> = self.attached.range(after(self.checked)).map(|at| *at.0).collect();
        due.extend(self.attached.range(..=self.checked).map(|at| *at.0));
        for index in due.into_iter().take(limit) {
            self.checked = index;
            let Some(attached) = self.attached.get_mut(&index) else { continue };
            match attached.check(self.hook, object, pins, &mut socket) {
                Ok(finding) => findings.extend(finding),
                // The watcher of interfaces reports that.
                Err(error) if error.is_missing_interface() => {}
                Err(error) => return Err(error),
            }
        }
        Ok(findings)
    }
}

fn after(index: u32) -> (Bound<u32>, Bound<u32>) {
    (Bound::Excluded(index), Bound::Unbounded)
}

impl Attached {
    fn new(target: InterfaceTarget, programs: Vec<(&'static str, HeldLink)>) -> Self {
        Self {
            target,
            programs,
            reattached: 0,
            moved_at: None,
            preceded_by: Vec::new(),
            new_since_ns: 0,
        }
    }

    fn describe(&self, hook: TcHook) -> InterfaceAttachment {
        InterfaceAttachment {
            index: self.target.index,
            name: Some(self.target.name.clone()),
            role: self.target.role,
            hook,
            programs: self.programs.iter().map(|(name, _)| (*name).to_owned()).collect(),
            redirects: self.target.role == InterfaceRole::Guest && self.target.redirects,
            reattached: self.reattached,
            preceded_by: self.preceded_by.clone(),
        }
    }

    /// Checks every program; `None` if all of them run first, as at the last check.
    fn check(
        &mut self,
        hook: TcHook,
        object: &mut Object,
        pins: &Pins,
        socket: &mut Option<RouteSocket>,
    ) -> Result<Option<InterfaceFinding>, DatapathError> {
        let Self { target, moved_at, .. } = self;
        let may_move = moved_at.is_none_or(|at| at.elapsed() >= MOVE_INTERVAL);
        let mut finding = InterfaceFinding {
            index: target.index,
            name: target.name.clone(),
            ..InterfaceFinding::default()
        };
        for (program, link) in &mut self.programs {
            let place = Place { pins, target, program };
            finding.was_unpinned |= place.restore_pin(link)?;
            match place.preceding(hook, link.id, socket)? {
                Some(before) if !before.can_be_overtaken || !may_move => {
                    finding.preceded_by.extend(before.labels);
                    continue;
                }
                Some(before) => finding.overtaken.extend(before.labels),
                None => finding.was_missing = true,
            }
            *link = place.move_to_front(hook, object, (&*link, &mut *socket))?.into_link();
            let before = place.preceding(hook, link.id, socket)?.unwrap_or_default();
            finding.overtaken.retain(|label| !before.labels.contains(label));
            finding.preceded_by.extend(before.labels);
        }
        let moved = finding.was_missing || !finding.overtaken.is_empty();
        if moved {
            self.reattached += 1;
            self.moved_at = Some(Instant::now());
        }
        let is_news = moved || finding.was_unpinned || finding.preceded_by != self.preceded_by;
        self.preceded_by.clone_from(&finding.preceded_by);
        Ok(is_news.then_some(finding))
    }
}
