//! Links: one for each program and cgroup, pinned, so that they outlive the agent. An upgrade swaps
//! the program under a live link.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File},
    io,
    ops::Bound,
    os::fd::{AsRawFd, OwnedFd},
    path::{Path, PathBuf},
    time::Duration,
};

use ipnet::IpNet;
use redirector_common::{
    agent::AgentState,
    names::{self, Role},
};
use tracing::debug;

use crate::{
    datapath::{
        attach::{
            held::{self, Held},
            hierarchy::{Cgroup, cgroup_paths},
            intact::{Intact, PinDir},
            interfaces::attacher::Versions,
        },
        error::{self, DatapathError},
        load::object::{self, Object},
        pins::{
            compat,
            layout::{self, Pins},
            mark::Mark,
            pools::pools_of,
            upgrade,
        },
        status::Attachment,
        sys,
    },
    pool::Pool,
};

/// Cgroups that are compared with what should be there in one step: some 15 µs each.
const MAX_COMPARED: usize = 512;

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
    /// newest one serve; the others are remains of interrupted upgrades. And those of former pools.
    older: Vec<Pins>,
    /// Our pool.
    pool: Pool,
    /// The cgroups whose links have our programs, by ID.
    current: BTreeMap<u64, PathBuf>,
    /// Removed cgroups with open sockets, whose links are still attached.
    draining: BTreeSet<u64>,
    /// What keeps everything in force while the pins are gone.
    held: Held,
    /// The cgroup that was compared last.
    compared: u64,
    /// Whether no cgroup has links of an older version any more.
    all_moved: bool,
    /// The directories of pins in which nothing was missing.
    intact: Intact,
}

impl Links {
    pub(crate) fn new(pins: Pins, pool: &Pool) -> Self {
        Self {
            older: [pins.former(), pins.older()].concat(),
            pool: pool.clone(),
            held: Held::maps_of(&pins),
            pins,
            current: BTreeMap::new(),
            draining: BTreeSet::new(),
            compared: 0,
            all_moved: false,
            intact: Intact::default(),
        }
    }

    /// Moves prepared pins to their final directory.
    pub(crate) fn commit(&mut self) -> Result<(), DatapathError> {
        self.older.extend(self.pins.commit()?);
        Ok(())
    }

    /// What the last agent of older pins wrote whose links stay: those of a former pool whose
    /// addresses are not ours.
    fn kept(&self, old: &Pins) -> Option<AgentState> {
        if !old.is_former() {
            return None;
        }
        let state = upgrade::agent_state(old).ok().flatten()?;
        let (pools, ours) = (pools_of(&state), self.pool.nets());
        let overlaps = |net: &IpNet| ours.iter().any(|own| own.contains(net) || net.contains(own));
        (!pools.is_empty() && !pools.iter().any(overlaps)).then_some(state)
    }

    /// See [`crate::datapath::Datapath::former_pools`].
    pub(crate) fn former_pools(&self) -> Vec<IpNet> {
        let states = self.older.iter().filter_map(|old| self.kept(old));
        states.flat_map(|state| pools_of(&state)).collect()
    }

    /// See [`crate::datapath::Datapath::retire_former_pools`].
    pub(crate) fn retire(&mut self, max_age: Duration) -> Result<Vec<IpNet>, DatapathError> {
        let mut retired = Vec::new();
        for old in self.older.clone() {
            let Some(state) = self.kept(&old) else { continue };
            let age = Duration::from_nanos(sys::monotonic_ns().saturating_sub(state.heartbeat_ns));
            if age < max_age || !old.interfaces()?.is_empty() {
                continue;
            }
            old.remove()?;
            self.older.retain(|other| *other != old);
            retired.extend(pools_of(&state));
        }
        Ok(retired)
    }

    /// Our pins, and those of older versions that are left.
    pub(crate) fn versions(&self) -> Versions<'_> {
        Versions { ours: &self.pins, older: &self.older }
    }

    pub(crate) fn attachments(&self) -> Vec<Attachment> {
        let mut all = attachments(&self.pins.with_older(), |id| self.current.get(&id).cloned());
        let unpinned = self.current.iter().filter(|(id, _)| !all.iter().any(|at| at.id == **id));
        let unpinned: Vec<_> = unpinned
            .map(|(&id, path)| Attachment {
                cgroup: Some(path.clone()),
                id,
                programs: self.held.programs(id),
            })
            .collect();
        all.extend(unpinned);
        all.retain(|at| !self.draining.contains(&at.id));
        all.sort_by_key(|at| at.id);
        all
    }

    /// Whether the bpf file system is gone, so that nothing can be pinned.
    pub(crate) fn pins_are_lost(&self) -> bool {
        self.pins.are_lost()
    }

    /// Attaches and pins again what another process has detached or removed, at up to
    /// [`MAX_COMPARED`] cgroups, beginning after the one that was compared last.
    ///
    /// # Errors
    ///
    /// The first thing that can't be restored.
    pub(crate) fn heal(&mut self, object: &mut Object) -> Result<Vec<String>, DatapathError> {
        if !self.are_in_force() {
            return Ok(Vec::new());
        }
        let lost = self.pins.are_lost();
        let mut healed = Vec::new();
        if !lost {
            healed.extend(self.heal_maps()?);
        }
        for cgroup in self.due() {
            self.compared = cgroup.id;
            healed.extend(self.heal_cgroup(object, &cgroup, lost)?);
        }
        Ok(healed)
    }

    /// Whether the pins are neither prepared, nor has a newer version taken over.
    fn are_in_force(&mut self) -> bool {
        let mark = Mark::of(self.pins.all_versions());
        if self.intact.has(PinDir::Versions, mark) && !self.pins.is_staged() {
            return true;
        }
        let in_force = !self.pins.are_not_in_force();
        self.intact.note(PinDir::Versions, mark.filter(|_| in_force));
        in_force
    }

    /// Pins the maps again whose pins are gone.
    fn heal_maps(&mut self) -> Result<Option<String>, DatapathError> {
        let mark = Mark::of(&self.pins.maps());
        if self.intact.has(PinDir::Maps, mark) {
            return Ok(None);
        }
        let restored = self.held.restore_maps(&self.pins)?;
        self.intact.note(PinDir::Maps, mark.filter(|_| restored.is_none()));
        Ok(restored)
    }

    /// The cgroups that are compared next.
    fn due(&self) -> Vec<Cgroup> {
        let after = self.current.range((Bound::Excluded(self.compared), Bound::Unbounded));
        let due = after.chain(self.current.range(..=self.compared)).take(MAX_COMPARED);
        due.map(|(&id, path)| Cgroup { path: path.clone(), id }).collect()
    }

    fn heal_cgroup(
        &mut self,
        object: &mut Object,
        cgroup: &Cgroup,
        lost: bool,
    ) -> Result<Option<String>, DatapathError> {
        let (mut detached, mut unpinned) = (0, 0);
        let mark = Mark::of(&self.pins.cgroup_dir(cgroup.id));
        let is_intact = self.intact.has(PinDir::Cgroup(cgroup.id), mark);
        let pinned = if is_intact { Vec::new() } else { self.pins.programs(cgroup.id) };
        self.intact.forget(PinDir::Cgroup(cgroup.id));
        for name in names::program_names() {
            let pin = || self.pins.link(cgroup.id, name);
            let is_pinned = is_intact || pinned.iter().any(|pinned| pinned == name);
            match self.held.link(cgroup.id, name) {
                Some(link) if is_attached(link) => {
                    if !is_pinned && !lost {
                        layout::pin(link, &pin())?;
                        unpinned += 1;
                    }
                }
                None if is_pinned && sys::open_pin(&pin()).is_ok_and(|link| is_attached(&link)) => {
                }
                // The scan of cgroups releases it.
                _ if !cgroup.exists() => return Ok(None),
                _ => {
                    layout::remove(&pin())?;
                    let folder = open(cgroup)?;
                    self.create(object, name, (cgroup, &folder))?;
                    detached += 1;
                }
            }
        }
        if detached + unpinned == 0 {
            self.intact.note(PinDir::Cgroup(cgroup.id), mark);
        }
        Ok(held::describe(&cgroup.path, detached, unpinned))
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
        let known: BTreeSet<u64> =
            self.pins.cgroups().into_iter().chain(self.held.cgroups()).collect();
        for id in known.into_iter().filter(|id| !listed.iter().any(|cgroup| cgroup.id == *id)) {
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
            self.intact.forget(PinDir::Cgroup(id));
            self.held.detach(id);
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
            let removed = old.interfaces().and_then(|interfaces| {
                let in_use = !interfaces.is_empty() || self.kept(&old).is_some();
                if in_use { Ok(false) } else { old.remove().map(|_| true) }
            });
            if !matches!(removed, Ok(true)) {
                self.older.push(old);
            }
            removed?;
        }
        Ok(())
    }

    /// Attaches or swaps every program, in the order of [`names::PROGRAMS`].
    fn attach_one(&mut self, object: &mut Object, cgroup: &Cgroup) -> Result<(), DatapathError> {
        let folder = open(cgroup)?;
        if !self.pins.are_lost() {
            layout::create_dir(&self.pins.cgroup_dir(cgroup.id))?;
        }
        for name in names::program_names() {
            let pin = self.pins.link(cgroup.id, name);
            let swapped = match swap(object, name, &pin)? {
                None => self.take_over(object, name, cgroup.id)?,
                swapped => swapped,
            };
            match swapped {
                Some(link) => self.held.hold(cgroup.id, name, link),
                None => self.create(object, name, (cgroup, &folder))?,
            }
        }
        Ok(())
    }

    /// Attaches a program to the cgroup, whose directory is open, and pins the link. Without a bpf
    /// file system, only the agent holds it.
    fn create(
        &mut self,
        object: &mut Object,
        name: &'static str,
        (cgroup, folder): (&Cgroup, &File),
    ) -> Result<(), DatapathError> {
        let place = format!("{name} to {}", cgroup.path.display());
        let program = names::PROGRAMS.iter().find(|program| program.name == name);
        let hook = program.map_or_else(|| unreachable!("{name} is one of ours"), |one| one.hook);
        let program = object::program_fd(object.program(name)?)?;
        let link = sys::create_link(program, folder.as_raw_fd() as u32, hook.attach_type(), 0)
            .map_err(|error| explain_refusal(&place, error))?;
        if !self.pins.are_lost() {
            let pin = self.pins.link(cgroup.id, name);
            layout::pin(&link, &pin)?;
            debug!(pin = %pin.display(), "attached");
        }
        self.held.hold(cgroup.id, name, link);
        Ok(())
    }

    /// Swaps the program under an older version's link and moves the pin to our directory. Returns
    /// the link, if there is one.
    fn take_over(
        &self,
        object: &mut Object,
        name: &str,
        cgroup: u64,
    ) -> Result<Option<OwnedFd>, DatapathError> {
        for old in self.older.iter().rev() {
            let from = old.link(cgroup, name);
            if !from.exists() || self.kept(old).is_some() {
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
            if let Some(link) = swap(object, name, &from)? {
                rename(&from, &self.pins.link(cgroup, name))?;
                return Ok(Some(link));
            }
        }
        Ok(None)
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
            Ok(Some(compat::map_info(&path)?.id()))
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

/// Opens a cgroup's directory.
fn open(cgroup: &Cgroup) -> Result<File, DatapathError> {
    File::open(&cgroup.path).map_err(|error| {
        DatapathError::call(format!("open the cgroup {}", cgroup.path.display()), error)
    })
}

/// Whether a link is attached to a cgroup still.
fn is_attached(link: &OwnedFd) -> bool {
    sys::linked_cgroup_id(link).is_ok_and(|id| id != 0)
}

/// Swaps the program under a pinned link, and returns the link. None if there is none, or if it was
/// detached: then the pin is removed too.
fn swap(object: &mut Object, name: &str, pin: &Path) -> Result<Option<OwnedFd>, DatapathError> {
    if !pin.exists() {
        return Ok(None);
    }
    let link = sys::open_pin(pin).map_err(|error| {
        error::from_io(&format!("open the pinned link {}", pin.display()), error)
    })?;
    match sys::update_link(&link, object::program_fd(object.program(name)?)?) {
        Ok(()) => {
            debug!(pin = %pin.display(), "swapped");
            Ok(Some(link))
        }
        Err(error) if error.raw_os_error() == Some(libc::ENOLINK) => {
            layout::remove(pin).map(|_| None)
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

fn explain_refusal(place: &str, error: io::Error) -> DatapathError {
    if error.raw_os_error() == Some(libc::EPERM) {
        let cause =
            "another program may be attached there exclusively (`bpftool cgroup tree` names it)"
                .to_owned();
        return DatapathError::NotPermitted { action: format!("attach {place}"), cause };
    }
    DatapathError::call(format!("attach {place}"), error)
}
