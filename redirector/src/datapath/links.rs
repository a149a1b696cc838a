//! Links: one for each program and cgroup, pinned, so that they outlive the agent. An upgrade swaps the program under a live link.

use std::{collections::BTreeMap, fs, fs::File, path::PathBuf};

use redirector_common::names;
use serde::{Deserialize, Serialize};

use super::{Cgroup, DatapathError, object, object::Object, pins, pins::Pins, sys};

/// A cgroup that the programs are attached to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attachment {
    /// The cgroup's folder on this host; absent when it could not be found.
    pub cgroup: Option<PathBuf>,
    /// The kernel's number for it.
    pub id: u64,
    /// The programs whose links are pinned.
    pub programs: Vec<String>,
}

/// Our links.
pub(super) struct Links {
    pins: Pins,
    /// The cgroups whose links have this process's programs.
    current: BTreeMap<u64, PathBuf>,
}

impl Links {
    pub(super) fn new(pins: Pins) -> Self {
        Self { pins, current: BTreeMap::new() }
    }

    pub(super) fn attachments(&self) -> Vec<Attachment> {
        attachments(&self.pins, |id| self.current.get(&id).cloned())
    }

    /// See [`super::Datapath::attach`].
    pub(super) fn attach(&mut self, object: &mut Object, cgroups: &[Cgroup]) -> Result<Vec<Attachment>, DatapathError> {
        for cgroup in cgroups.iter().filter(|cgroup| !self.current.contains_key(&cgroup.id)).collect::<Vec<_>>() {
            if self.attach_one(object, cgroup)? {
                self.current.insert(cgroup.id, cgroup.path.clone());
            }
        }
        for id in self.pins.cgroups() {
            if !cgroups.iter().any(|cgroup| cgroup.id == id) {
                detach(&self.pins, id)?;
                self.current.remove(&id);
            }
        }
        Ok(self.attachments())
    }

    /// Attaches or swaps every program, those that others depend on first. False when the cgroup vanished meanwhile.
    fn attach_one(&self, object: &mut Object, cgroup: &Cgroup) -> Result<bool, DatapathError> {
        let Ok(folder) = File::open(&cgroup.path) else { return Ok(false) };
        let pins = self.pins.cgroup(cgroup.id);
        fs::create_dir_all(&pins).map_err(|error| DatapathError::call(format!("create {}", pins.display()), error))?;
        for name in names::PROGRAMS {
            let pin = self.pins.link(cgroup.id, name);
            if pin.exists() && swap(object, name, &pin)? {
                continue;
            }
            let place = format!("{name} to {}", cgroup.path.display());
            let link = object::attach(object.program(name)?, &folder).map_err(|error| explain(&place, error))?;
            link.pin(&pin).map_err(|error| DatapathError::call(format!("pin the link {name} at {}", pin.display()), error))?;
        }
        Ok(true)
    }
}

/// Puts our program under a pinned link. False when the link is dead (its cgroup was removed): its pin is gone then.
fn swap(object: &mut Object, name: &str, pin: &std::path::Path) -> Result<bool, DatapathError> {
    let link = sys::open_pin(pin).map_err(|error| DatapathError::call(format!("open the pinned link {}", pin.display()), error))?;
    match sys::update_link(&link, object::program_fd(object.program(name)?)?) {
        Ok(()) => Ok(true),
        Err(error) if error.raw_os_error() == Some(libc::ENOLINK) => pins::remove(pin).map(|_| false),
        Err(error) => Err(object::from_io(&format!("swap the program under {}", pin.display()), error)),
    }
}

/// Removes every link of a cgroup, connect first: no connect is rewritten whose peer name can't be told.
pub(super) fn detach(pins: &Pins, cgroup: u64) -> Result<usize, DatapathError> {
    let mut removed = 0;
    for name in names::PROGRAMS.iter().rev() {
        removed += usize::from(pins::remove(&pins.link(cgroup, name))?);
    }
    pins::remove_folder(&pins.cgroup(cgroup))?;
    Ok(removed)
}

/// What is pinned, with the paths that `path_of` knows.
pub(super) fn attachments(pins: &Pins, path_of: impl Fn(u64) -> Option<PathBuf>) -> Vec<Attachment> {
    let attachment = |id| Attachment { cgroup: path_of(id), id, programs: pins::names_in(&pins.cgroup(id)) };
    pins.cgroups().into_iter().map(attachment).collect()
}

fn explain(place: &str, error: DatapathError) -> DatapathError {
    let DatapathError::Call { source, .. } = error else { return error };
    let errno = std::iter::successors(Some(&*source as &(dyn std::error::Error + 'static)), |error| error.source())
        .find_map(|error| error.downcast_ref::<std::io::Error>()?.raw_os_error());
    if errno == Some(libc::EPERM) {
        let cause = "another program may be attached there exclusively (`bpftool cgroup tree` names it)".to_owned();
        return DatapathError::NotPermitted { action: format!("attach {place}"), cause };
    }
    DatapathError::call(format!("attach {place}"), source)
}
