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
    attach::{
        cgroups::{Cgroup, cgroup_paths},
        interfaces::attacher::Versions,
    },
    error::{self, DatapathError},
    load::object::{self, Object},
    pins::layout::{self, Pins},
    status::Attachment,
    sys,
};

/// Separates the name of a program that an upgrade left in place from its version.
const KEPT_SEPARATOR: &str = "@";

/// A cgroup that not all programs could be attached to.
#[derive(Debug)]
pub struct AttachFailure {
    /// The cgroup.
    pub cgroup: Cgroup,
    /// The reason, with the program.
    pub error: DatapathError,
}

/// The result of attaching to many cgroups.
#[derive(Debug, Default)]
pub struct AttachOutcome {
    /// The cgroups that every program is newly attached to.
    pub attached: Vec<Cgroup>,
    /// The cgroups that failed.
    pub failures: Vec<AttachFailure>,
    /// The number of cgroups beyond the limit, which were not tried.
    pub not_tried: usize,
}

/// Our links.
pub(crate) struct Links {
    pins: Pins,
    /// Older versions' pins, until each of their links is moved or removed. The programs of the
    /// newest one serve; the others are remains of interrupted upgrades.
    older: Vec<Pins>,
    /// The cgroups whose links have our programs, by ID.
    current: BTreeMap<u64, PathBuf>,
    /// Removed cgroups with open sockets, whose links are still attached.
    draining: BTreeSet<u64>,
    /// Whether no cgroup has links of an older version any more.
    all_moved: bool,
}

impl Links {
    pub(crate) fn new(pins: Pins) -> Self {
        Self {
            older: pins.older(),
            pins,
            current: BTreeMap::new(),
            draining: BTreeSet::new(),
            all_moved: false,
        }
    }

    /// Moves prepared pins to their final directory.
    pub(crate) fn commit(&mut self) -> Result<(), DatapathError> {
        self.pins.commit()
    }

    /// Our pins, and those of older versions that are left.
    pub(crate) fn versions(&self) -> Versions<'_> {
        Versions { ours: &self.pins, older: &self.older }
    }

    pub(crate) fn attachments(&self) -> Vec<Attachment> {
        let mut all = attachments(&self.pins.with_older(), |id| self.current.get(&id).cloned());
        all.retain(|at| !self.draining.contains(&at.id));
        all
    }

    /// The number of removed cgroups with open sockets.
    pub(crate) fn draining(&self) -> usize {
        self.draining.len()
    }

    /// See [`crate::datapath::Datapath::attach`].
    ///
    /// CRITICAL SECTION of an upgrade, from the commit to the removal of the older directories: if
    /// the agent is killed in it, every link has one whole program, old or new, and its pin is in
    /// one of the two directories, so the next start completes the upgrade.
    pub(crate) fn attach(
        &mut self,
        object: &mut Object,
        cgroups: &[Cgroup],
        limit: usize,
    ) -> Result<AttachOutcome, DatapathError> {
        self.commit()?;
        let mut outcome = AttachOutcome::default();
        let new: Vec<_> =
            cgroups.iter().filter(|cgroup| !self.current.contains_key(&cgroup.id)).collect();
        for cgroup in new.iter().take(limit) {
            match self.attach_one(object, cgroup) {
                Ok(()) => {
                    self.current.insert(cgroup.id, cgroup.path.clone());
                    outcome.attached.push((*cgroup).clone());
                }
                // The cgroup was removed meanwhile; its links are handled like those of a cgroup
                // removed later.
                Err(_) if !cgroup.exists() => drop(self.draining.insert(cgroup.id)),
                Err(error) => {
                    outcome.failures.push(AttachFailure { cgroup: (*cgroup).clone(), error })
                }
            }
        }
        self.detach_unlisted(cgroups)?;
        outcome.not_tried = new.len().saturating_sub(limit);
        self.all_moved = outcome.failures.is_empty() && outcome.not_tried == 0;
        self.remove_older()?;
        Ok(outcome)
    }

    /// Detaches from cgroups that are not listed. A removed cgroup keeps its links until its last
    /// socket is closed, or the end of its last connections would not be counted; then the kernel
    /// detaches them, and their pins are removed.
    fn detach_unlisted(&mut self, listed: &[Cgroup]) -> Result<(), DatapathError> {
        let mut host_cgroups = None;
        self.draining.retain(|id| self.pins.cgroup_dir(*id).exists());
        for id in self
            .pins
            .cgroups()
            .into_iter()
            .filter(|id| !listed.iter().any(|cgroup| cgroup.id == *id))
        {
            let known = self.current.remove(&id).map(|path| Cgroup { path, id });
            let was_removed = self.draining.contains(&id)
                || match known {
                    Some(cgroup) => !cgroup.exists(),
                    // An earlier agent attached to it.
                    None => !host_cgroups.get_or_insert_with(cgroup_paths).contains_key(&id),
                };
            if was_removed && self.pins.in_use(id) {
                self.draining.insert(id);
                continue;
            }
            self.pins.detach(id)?;
            self.draining.remove(&id);
        }
        Ok(())
    }

    /// Removes the pins of older versions, once nothing is attached with them.
    pub(crate) fn remove_older(&mut self) -> Result<(), DatapathError> {
        if !self.all_moved {
            return Ok(());
        }
        for old in std::mem::take(&mut self.older) {
            let in_use = !old.interfaces().is_empty();
            let removed = if in_use { Ok(()) } else { old.remove().map(drop) };
            if in_use || removed.is_err() {
                self.older.push(old);
            }
            removed?;
        }
        Ok(())
    }

    /// Attaches or swaps every program, in the order of [`names::PROGRAMS`].
    fn attach_one(&self, object: &mut Object, cgroup: &Cgroup) -> Result<(), DatapathError> {
        let opening = |error| {
            DatapathError::call(format!("open the cgroup {}", cgroup.path.display()), error)
        };
        let folder = File::open(&cgroup.path).map_err(opening)?;
        let pins = self.pins.cgroup_dir(cgroup.id);
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

    /// Swaps the program under an older version's link and moves the pin to our directory. False if
    /// there is none.
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

    /// Whether `old` records sockets in another map than ours. Then its programs must stay for the
    /// sockets that they know, and for those that its connect programs keep recording until they
    /// are swapped. Old and new programs ignore each other's sockets.
    fn uses_other_origins(&self, old: &Pins) -> Result<bool, DatapathError> {
        let map = |pins: &Pins| {
            let path = pins.map(names::ORIGINS);
            if !path.exists() {
                return Ok(None);
            }
            MapInfo::from_pin(&path).map(|info| Some(info.id())).map_err(|error| {
                DatapathError::call(format!("read the pinned map {}", path.display()), error)
            })
        };
        Ok(map(old)? != map(&self.pins)?)
    }
}

fn rename(from: &Path, to: &Path) -> Result<(), DatapathError> {
    fs::rename(from, to).map_err(|error| {
        DatapathError::call(format!("move {} to {}", from.display(), to.display()), error)
    })?;
    debug!(pin = %to.display(), "moved");
    Ok(())
}

/// Swaps the program under a pinned link. False if there is no link, or if its cgroup was removed:
/// then the pin is removed too.
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

/// The pinned links by cgroup, with the paths that `path_of` finds.
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
