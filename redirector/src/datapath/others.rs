//! Whose programs are on our hooks besides ours.

use std::{fs::File, os::fd::AsRawFd, path::Path};

use serde::{Deserialize, Serialize};

use super::{
    DatapathError,
    pins::{self, Pins},
    sys,
};

/// The hooks that decide a connect, with their `enum bpf_attach_type` (uapi/linux/bpf.h).
const HOOKS: [(&str, u32); 3] = [("connect4", 10), ("connect6", 11), ("sock_ops", 3)];

/// A program that is not ours, on a hook of ours.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OtherProgram {
    /// `connect4`, `connect6` or `sock_ops`.
    pub hook: String,
    /// The kernel's number for it.
    pub id: u32,
    /// Its name, when these privileges may ask for it.
    pub name: Option<String>,
}

/// The programs of others that are in effect at `cgroup`: its own and those of the cgroups above it.
///
/// # Errors
///
/// When the cgroup can't be opened, or these privileges may not ask.
pub fn others(bpffs: &Path, cgroup: &Path) -> Result<Vec<OtherProgram>, DatapathError> {
    let asked = || format!("ask which programs are on {}", cgroup.display());
    let folder = File::open(cgroup).map_err(|error| super::object::from_io(&asked(), error))?;
    let ours = own_programs(bpffs);
    let mut found = Vec::new();
    for (hook, kind) in HOOKS {
        let ids = sys::effective_programs(folder.as_raw_fd(), kind).map_err(|error| super::object::from_io(&asked(), error))?;
        found.extend(ids.into_iter().filter(|id| !ours.contains(id)).map(|id| OtherProgram {
            hook: hook.to_owned(),
            id,
            name: name_of(id),
        }));
    }
    Ok(found)
}

/// The numbers of the programs under our pinned links, of whichever version.
fn own_programs(bpffs: &Path) -> Vec<u32> {
    let links = |pins: Pins| {
        let of = |cgroup| pins.programs(cgroup).into_iter().map(|name| pins.link(cgroup, &name)).collect::<Vec<_>>();
        pins.cgroups().into_iter().flat_map(of).collect::<Vec<_>>()
    };
    let pins = pins::versions(bpffs).into_iter().flat_map(links);
    pins.filter_map(|pin| sys::link_program(&sys::open_pin(&pin).ok()?).ok()).collect()
}

fn name_of(id: u32) -> Option<String> {
    let mut all = aya::programs::loaded_programs().flatten();
    let name = all.find(|program| program.id() == id)?.name_as_str()?.to_owned();
    (!name.is_empty()).then_some(name)
}
