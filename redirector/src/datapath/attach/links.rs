//! Links: one for each program and cgroup, pinned, so that they outlive the agent. An upgrade swaps
//! the program under a live link.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    fs::File,
    path::{Path, PathBuf},
};

use aya::maps::MapInfo;
use redirector_common::names::{self, Role};
use tracing::debug;

use crate::datapath::{
    attach::cgroups::{Cgroup, cgroup_paths},
    error::{self, DatapathError},
    load::object::{self, Object},
    pins::layout::{self, Pins},
    status::Attachment,
    sys,
};

/// Between the name of a program that an upgrade left in place and the version that it is of.
const KEPT_SEPARATOR: &str = "@";

/// A cgroup that the programs could not all be attached to.
#[derive(Debug)]
pub struct AttachFailure {
    /// Where.
    pub cgroup: Cgroup,
    /// Why, by program.
    pub error: DatapathError,
}

/// What came of attaching to many cgroups.
#[derive(Debug, Default)]
pub struct AttachOutcome {
    /// Those that every program is attached to since then.
    pub attached: Vec<Cgroup>,
    /// Those that could not all be attached to.
    pub failures: Vec<AttachFailure>,
    /// How many were not tried.
    pub not_tried: usize,
}

/// Our links.
pub(crate) struct Links {
    pins: Pins,
    /// Older versions' pins, until every link of theirs is ours or gone. The youngest has what
    /// serves; others can only be remains.
    older: Vec<Pins>,
    /// The cgroups whose links have this process's programs.
    current: BTreeMap<u64, PathBuf>,
    /// Cgroups that are gone, whose links the kernel still needs.
    draining: BTreeSet<u64>,
}

impl Links {
    pub(crate) fn new(pins: Pins) -> Self {
        Self { older: pins.older(), pins, current: BTreeMap::new(), draining: BTreeSet::new() }
    }

    pub(crate) fn attachments(&self) -> Vec<Attachment> {
        let mut all = attachments(&self.pins.with_older(), |id| self.current.get(&id).cloned());
        all.retain(|at| !self.draining.contains(&at.id));
        all
    }

    /// How many cgroups are gone whose sockets are not.
    pub(crate) fn draining(&self) -> usize {
        self.draining.len()
    }

    /// See [`crate::datapath::Datapath::attach`].
    ///
    /// CRITICAL SECTION of an upgrade from another version, from the commit to the removal of the
    /// old folders: killed anywhere in here, every link has one whole program, old or new, and its
    /// pin is in one of the two folders, so the next start goes on from what it finds.
    pub(crate) fn attach(
        &mut self,
        object: &mut Object,
        cgroups: &[Cgroup],
        limit: usize,
    ) -> Result<AttachOutcome, DatapathError> {
        self.pins.commit()?;
        let mut outcome = AttachOutcome::default();
        let new: Vec<_> =
            cgroups.iter().filter(|cgroup| !self.current.contains_key(&cgroup.id)).collect();
        for cgroup in new.iter().take(limit) {
            match self.attach_one(object, cgroup) {
                Ok(()) => {
                    self.current.insert(cgroup.id, cgroup.path.clone());
                    outcome.attached.push((*cgroup).clone());
                }
                // It went while it was attached to. What was attached by then has no other end than
                // that of cgroups that went later.
                Err(_) if !cgroup.exists() => drop(self.draining.insert(cgroup.id)),
                Err(error) => {
                    outcome.failures.push(AttachFailure { cgroup: (*cgroup).clone(), error })
                }
            }
        }
        self.detach_unlisted(cgroups)?;
        outcome.not_tried = new.len().saturating_sub(limit);
        if outcome.failures.is_empty() && outcome.not_tried == 0 {
            self.remove_older()?;
        }
        Ok(outcome)
    }

    /// Detaches from cgroups that are not listed. One that is gone has its links until its last
    /// socket is closed, or else the ends of its last connections would not be counted: the kernel
    /// detaches them then, and their pins go.
    fn detach_unlisted(&mut self, listed: &[Cgroup]) -> Result<(), DatapathError> {
        let mut here = None;
        self.draining.retain(|id| self.pins.cgroup(*id).exists());
        for id in self
            .pins
            .cgroups()
            .into_iter()
            .filter(|id| !listed.iter().any(|cgroup| cgroup.id == *id))
        {
            let known = self.current.remove(&id).map(|path| Cgroup { path, id });
            let gone = self.draining.contains(&id)
                || match known {
                    Some(cgroup) => !cgroup.exists(),
                    // Attached to by an earlier agent.
                    None => !here.get_or_insert_with(cgroup_paths).contains_key(&id),
                };
            if gone && self.pins.in_use(id) {
                self.draining.insert(id);
                continue;
            }
            self.pins.detach(id)?;
            self.draining.remove(&id);
        }
        Ok(())
    }

    fn remove_older(&mut self) -> Result<(), DatapathError> {
        for old in std::mem::take(&mut self.older) {
            let removed = old.remove();
            if removed.is_err() {
                self.older.push(old);
            }
            removed?;
        }
        Ok(())
    }

    /// Attaches or swaps every program, those that others depend on first.
    fn attach_one(&self, object: &mut Object, cgroup: &Cgroup) -> Result<(), DatapathError> {
        let opening = |error| {
            DatapathError::call(format!("open the cgroup {}", cgroup.path.display()), error)
        };
        let folder = File::open(&cgroup.path).map_err(opening)?;
        let pins = self.pins.cgroup(cgroup.id);
        fs::create_dir_all(&pins)
            .map_err(|error| DatapathError::call(format!("create {}", pins.display()), error))?;
        for name in names::program_names() {
            let pin = self.pins.link(cgroup.id, name);
            if swap(object, name, &pin)? || self.take_over(object, name, cgroup.id)? {
                continue;
            }
            let place = format!("{name} to {}", cgroup.path.display());
            let link = object::attach(object.program(name)?, &folder)
                .map_err(|error| explain_refusal(&place, error))?;
            link.pin(&pin).map_err(|error| {
                DatapathError::call(format!("pin the link {name} at {}", pin.display()), error)
            })?;
            debug!(pin = %pin.display(), "attached");
        }
        Ok(())
    }

    /// Swaps the program under an older version's link and moves the pin to where ours are. False
    /// when there is none.
    fn take_over(
        &self,
        object: &mut Object,
        name: &str,
        cgroup: u64,
    ) -> Result<bool, DatapathError> {
        for old in self.older.iter().rev() {
            let from = old.link(cgroup, name);
            if !from.exists() {
                continue;
            }
            if names::programs_that(Role::FollowsOrigins).any(|follower| follower == name)
                && self.uses_other_origins(old)?
            {
                rename(
                    &from,
                    &self.pins.link(cgroup, &format!("{name}{KEPT_SEPARATOR}{}", old.abi())),
                )?;
                continue;
            }
            if swap(object, name, &from)? {
                rename(&from, &self.pins.link(cgroup, name))?;
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Whether `old` marks sockets in another table than we do. Then its programs must stay for the
    /// sockets that they know, and for those that its connect programs go on marking until they are
    /// swapped; they do nothing on ours, and ours nothing on theirs.
    fn uses_other_origins(&self, old: &Pins) -> Result<bool, DatapathError> {
        let table = |pins: &Pins| {
            let path = pins.map(names::ORIGINS);
            if !path.exists() {
                return Ok(None);
            }
            MapInfo::from_pin(&path).map(|info| Some(info.id())).map_err(|error| {
                DatapathError::call(format!("read the pinned table {}", path.display()), error)
            })
        };
        Ok(table(old)? != table(&self.pins)?)
    }
}

fn rename(from: &Path, to: &Path) -> Result<(), DatapathError> {
    fs::rename(from, to).map_err(|error| {
        DatapathError::call(format!("move {} to {}", from.display(), to.display()), error)
    })?;
    debug!(pin = %to.display(), "moved");
    Ok(())
}

/// Puts our program under a pinned link. False when there is none, or only a dead one (its cgroup
/// was removed): its pin is gone then.
fn swap(object: &mut Object, name: &str, pin: &Path) -> Result<bool, DatapathError> {
    if !pin.exists() {
        return Ok(false);
    }
    let link = sys::open_pin(pin).map_err(|error| {
        DatapathError::call(format!("open the pinned link {}", pin.display()), error)
    })?;
    match sys::update_link(&link, object::program_fd(object.program(name)?)?) {
        Ok(()) => {
            debug!(pin = %pin.display(), "swapped");
            Ok(true)
        }
        Err(error) if error.raw_os_error() == Some(libc::ENOLINK) => {
            layout::remove(pin).map(|_| false)
        }
        Err(error) => {
            Err(error::from_io(&format!("swap the program under {}", pin.display()), error))
        }
    }
}

/// What is pinned, with the paths that `path_of` knows.
pub(crate) fn attachments(
    versions: &[Pins],
    path_of: impl Fn(u64) -> Option<PathBuf>,
) -> Vec<Attachment> {
    let cgroups: BTreeSet<u64> = versions.iter().flat_map(Pins::cgroups).collect();
    let programs = |id| {
        let pinned = versions
            .iter()
            .flat_map(|pins| pins.programs(id))
            .filter(|name| !name.contains(KEPT_SEPARATOR));
        pinned.collect::<BTreeSet<_>>().into_iter().collect()
    };
    cgroups
        .into_iter()
        .map(|id| Attachment { cgroup: path_of(id), id, programs: programs(id) })
        .collect()
}

fn explain_refusal(place: &str, error: DatapathError) -> DatapathError {
    let DatapathError::Call { source, .. } = error else { return error };
    let errno =
        std::iter::successors(Some(&*source as &(dyn std::error::Error + 'static)), |error| {
            error.source()
        })
        .find_map(|error| error.downcast_ref::<std::io::Error>()?.raw_os_error());
    if errno == Some(libc::EPERM) {
        let cause =
            "another program may be attached there exclusively (`bpftool cgroup tree` names it)"
                .to_owned();
        return DatapathError::NotPermitted { action: format!("attach {place}"), cause };
    }
    DatapathError::call(format!("attach {place}"), source)
}
