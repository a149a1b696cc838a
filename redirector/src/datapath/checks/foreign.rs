//! Foreign programs on our hooks.

use std::{
    fs::{self, File},
    os::{fd::AsRawFd, unix::fs::MetadataExt},
    path::{Path, PathBuf},
};

use redirector_common::names::{self, Program};
use serde::{Deserialize, Serialize};

use crate::{
    datapath::{
        attach::{
            hierarchy::cgroup2_mount,
            interfaces::neighbours::{self, Neighbour},
        },
        error::{self, DatapathError},
        pins::layout::{self, Pins},
        sys,
    },
    net::route_socket::RouteSocket,
};

/// A program on one of our hooks that is not ours.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ForeignProgram {
    /// The hook: `connect4`, `connect6`, `sendmsg4`, `sendmsg6`, `recvmsg4`, `recvmsg6`,
    /// `getpeername4`, `getpeername6`, `sock_ops` or `sock_release` of a cgroup; `tcx` or `clsact`
    /// of an interface, followed by `ingress` or `egress`.
    pub hook: String,
    /// Its ID in the kernel; 0 for a filter without a program.
    pub id: u32,
    /// Its name, if these privileges may read it. A filter without a program has its kind.
    pub name: Option<String>,
    /// Whether it runs before ours; false where ours are not attached.
    pub runs_first: bool,
}

/// The foreign programs in effect at `cgroup`: its own and those of the cgroups above.
///
/// # Errors
///
/// If the cgroup can't be opened, or these privileges may not list its programs.
pub fn foreign_programs(bpffs: &Path, cgroup: &Path) -> Result<Vec<ForeignProgram>, DatapathError> {
    let action = || format!("list the programs on {}", cgroup.display());
    let folder = File::open(cgroup).map_err(|error| error::from_io(&action(), error))?;
    let ours = own_programs(bpffs, cgroup);
    let mut found = Vec::new();
    for Program { hook, .. } in names::PROGRAMS {
        let ids = sys::effective_programs(folder.as_raw_fd(), *hook)
            .map_err(|error| error::from_io(&action(), error))?;
        // They are listed in the order in which they run.
        let first_of_ours = ids.iter().position(|id| ours.contains(id)).unwrap_or(0);
        let theirs = ids.into_iter().enumerate().filter(|(_, id)| !ours.contains(id));
        found.extend(theirs.map(|(place, id)| ForeignProgram {
            hook: hook.as_str().to_owned(),
            id,
            name: program_name(id),
            runs_first: place < first_of_ours,
        }));
    }
    Ok(found)
}

/// The foreign programs and filters on an interface of the caller's network namespace.
///
/// # Errors
///
/// If these privileges may not list them, or the interface is gone.
pub fn foreign_filters(bpffs: &Path, interface: u32) -> Result<Vec<ForeignProgram>, DatapathError> {
    let failed =
        |error| error::from_io(&format!("list the programs on interface {interface}"), error);
    let mut socket = RouteSocket::open().map_err(failed)?;
    let found = neighbours::neighbours(&layout::versions(bpffs), interface, &mut socket);
    let program = |neighbour: Neighbour| ForeignProgram {
        hook: neighbour.hook,
        id: neighbour.id,
        name: neighbour.name.or_else(|| program_name(neighbour.id)),
        runs_first: neighbour.runs_first,
    };
    Ok(found.map_err(failed)?.into_iter().map(program).collect())
}

/// The hook and the cgroup, `cgroup` itself or one above it, of a program whose attachment excludes
/// all others below it.
pub(crate) fn exclusive_program_above(
    cgroup: &Path,
) -> Result<Option<(&'static str, PathBuf)>, DatapathError> {
    let mount = cgroup2_mount()?;
    for place in cgroup.ancestors().take_while(|place| place.starts_with(&mount)) {
        let action = || format!("list the programs on {}", place.display());
        let folder = File::open(place).map_err(|error| error::from_io(&action(), error))?;
        for Program { hook, .. } in names::PROGRAMS {
            if sys::has_exclusive_program(folder.as_raw_fd(), *hook)
                .map_err(|error| error::from_io(&action(), error))?
            {
                return Ok(Some((hook.as_str(), place.to_owned())));
            }
        }
    }
    Ok(None)
}

/// The IDs of the programs under our links, of any version, at `cgroup` and the cgroups above it.
fn own_programs(bpffs: &Path, cgroup: &Path) -> Vec<u32> {
    let cgroups: Vec<u64> =
        cgroup.ancestors().filter_map(|path| Some(fs::metadata(path).ok()?.ino())).collect();
    let links = |pins: Pins| {
        let cgroup_links = |&cgroup: &u64| {
            pins.programs(cgroup)
                .into_iter()
                .map(|name| pins.link(cgroup, &name))
                .collect::<Vec<_>>()
        };
        cgroups.iter().flat_map(cgroup_links).collect::<Vec<_>>()
    };
    let pins = layout::versions(bpffs).into_iter().flat_map(links);
    pins.filter_map(|pin| sys::linked_program_id(&sys::open_pin(&pin).ok()?).ok()).collect()
}

/// The name of a program, if it has one and these privileges may read it.
pub fn program_name(id: u32) -> Option<String> {
    let mut all = aya::programs::loaded_programs().flatten();
    let name = all.find(|program| program.id() == id)?.name_as_str()?.to_owned();
    (!name.is_empty()).then_some(name)
}
