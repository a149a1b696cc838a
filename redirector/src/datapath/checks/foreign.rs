//! Whose programs are on our hooks besides ours.

use std::{
    fs::{self, File},
    os::{fd::AsRawFd, unix::fs::MetadataExt},
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use crate::datapath::{
    attach::cgroups::cgroup2_mount,
    error::{self, DatapathError},
    load::hooks::hooks,
    pins::layout::{self, Pins},
    sys,
};

/// A program that is not ours, on a hook of ours.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ForeignProgram {
    /// The hook: `connect4`, `connect6`, `sendmsg4`, `sendmsg6`, `recvmsg4`, `recvmsg6`,
    /// `getpeername4`, `getpeername6`, `sock_ops` or `sock_release`.
    pub hook: String,
    /// The kernel's number for it.
    pub id: u32,
    /// Its name, when these privileges may ask for it.
    pub name: Option<String>,
    /// Whether it runs before ours. Where ours are not, nothing does.
    pub runs_first: bool,
}

/// The foreign programs that are in effect at `cgroup`: its own and those of the cgroups above
/// it.
///
/// # Errors
///
/// When the cgroup can't be opened, or these privileges may not ask.
pub fn foreign_programs(bpffs: &Path, cgroup: &Path) -> Result<Vec<ForeignProgram>, DatapathError> {
    let asked = || format!("ask which programs are on {}", cgroup.display());
    let folder = File::open(cgroup).map_err(|error| error::from_io(&asked(), error))?;
    let ours = own_programs(bpffs, cgroup);
    let mut found = Vec::new();
    for hook in hooks()? {
        let ids = sys::effective_programs(folder.as_raw_fd(), hook.attach_type)
            .map_err(|error| error::from_io(&asked(), error))?;
        // In the order in which they run.
        let first_of_ours = ids.iter().position(|id| ours.contains(id)).unwrap_or(0);
        let theirs = ids.into_iter().enumerate().filter(|(_, id)| !ours.contains(id));
        found.extend(theirs.map(|(place, id)| ForeignProgram {
            hook: hook.name.to_owned(),
            id,
            name: program_name(id),
            runs_first: place < first_of_ours,
        }));
    }
    Ok(found)
}

/// Where above `cgroup`, or at it, a program keeps all others off a hook of ours, if one does: the
/// hook and the cgroup.
pub(crate) fn exclusive_program_above(
    cgroup: &Path,
) -> Result<Option<(&'static str, PathBuf)>, DatapathError> {
    let mount = cgroup2_mount()?;
    for place in cgroup.ancestors().take_while(|place| place.starts_with(&mount)) {
        let asked = || format!("ask which programs are on {}", place.display());
        let folder = File::open(place).map_err(|error| error::from_io(&asked(), error))?;
        for hook in hooks()? {
            if sys::has_exclusive_program(folder.as_raw_fd(), hook.attach_type)
                .map_err(|error| error::from_io(&asked(), error))?
            {
                return Ok(Some((hook.name, place.to_owned())));
            }
        }
    }
    Ok(None)
}

/// The numbers of the programs under our links, of whichever version, that are in effect at
/// `cgroup`: those of itself and of the cgroups above it.
fn own_programs(bpffs: &Path, cgroup: &Path) -> Vec<u32> {
    let cgroups: Vec<u64> =
        cgroup.ancestors().filter_map(|path| Some(fs::metadata(path).ok()?.ino())).collect();
    let links = |pins: Pins| {
        let of = |&cgroup: &u64| {
            pins.programs(cgroup)
                .into_iter()
                .map(|name| pins.link(cgroup, &name))
                .collect::<Vec<_>>()
        };
        cgroups.iter().flat_map(of).collect::<Vec<_>>()
    };
    let pins = layout::versions(bpffs).into_iter().flat_map(links);
    pins.filter_map(|pin| sys::linked_program_id(&sys::open_pin(&pin).ok()?).ok()).collect()
}

/// The name of a program, when it has one and these privileges may ask for it.
pub fn program_name(id: u32) -> Option<String> {
    let mut all = aya::programs::loaded_programs().flatten();
    let name = all.find(|program| program.id() == id)?.name_as_str()?.to_owned();
    (!name.is_empty()).then_some(name)
}
