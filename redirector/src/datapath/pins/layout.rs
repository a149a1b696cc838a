//! The pins: `bpffs/v<ABI>/maps/<map>`, `bpffs/v<ABI>/links/<cgroup ID>/<program>` and
//! `bpffs/v<ABI>/interfaces/<interface index>/<program>`. An upgrade prepares `bpffs/v<ABI>-new`
//! and then renames it. If the pool has changed, the pins of the former one are moved to
//! `bpffs/v<ABI>-former<N>` just before.

use std::{
    ffi::OsStr,
    fs, io,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
};

use aya::maps::{Array, HashMap, Map, MapData, MapError};
use redirector_common::{
    abi::ABI,
    names::{self, Role},
};
use tracing::debug;

use crate::{
    datapath::{
        error::{self, DatapathError},
        sys,
    },
    error::known,
};

/// `statfs` magic of a bpf file system (linux/magic.h).
const BPF_FS_MAGIC: i64 = 0xcafe_4a11;

/// The suffix of a prepared directory. (The file system allows no dot in a name.)
const STAGED: &str = "-new";

/// Between the version and the number of a directory of a former pool.
const FORMER: &str = "-former";

/// The directory of one version's pins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Pins {
    bpffs: PathBuf,
    abi: u32,
    staged: bool,
    /// The number of a former pool; 0: the pool in force.
    former: u32,
}

impl Pins {
    /// The pins of this binary's version.
    pub(crate) fn new(bpffs: &Path) -> Self {
        Self::for_version(bpffs, ABI)
    }

    /// The pins of version `abi`.
    pub(crate) fn for_version(bpffs: &Path, abi: u32) -> Self {
        Self { bpffs: bpffs.to_owned(), abi, staged: false, former: 0 }
    }

    /// Creates the directory in which this version's pins are prepared, after removing the remains
    /// of an interrupted preparation.
    pub(crate) fn stage(&self) -> Result<Self, DatapathError> {
        let staged = Self { staged: true, ..self.clone() };
        staged.remove()?;
        staged.create_dirs()?;
        Ok(staged)
    }

    /// Moves prepared pins to their final directory, in one step. Has no effect on pins that are
    /// already there. Returns those of another pool, which were there.
    pub(crate) fn commit(&mut self) -> Result<Option<Self>, DatapathError> {
        if !self.staged {
            return Ok(None);
        }
        let from = self.clone();
        self.staged = false;
        let former = if self.exist()? { Some(self.next_former()) } else { None };
        if let Some(former) = &former {
            self.rename_to(former)?;
        }
        if let Err(error) = from.rename_to(self) {
            if let Some(former) = &former {
                former.rename_to(self)?;
            }
            return Err(error);
        }
        debug!(pins = %self.root().display(), "committed");
        Ok(former)
    }

    fn rename_to(&self, to: &Self) -> Result<(), DatapathError> {
        let (from, to) = (self.root(), to.root());
        fs::rename(&from, &to).map_err(|error| {
            DatapathError::call(format!("move {} to {}", from.display(), to.display()), error)
        })
    }

    fn next_former(&self) -> Self {
        let last = self.former().iter().map(|pins| pins.former).max().unwrap_or(0);
        Self { former: last + 1, ..self.clone() }
    }

    /// The pins of former pools, the oldest first.
    pub(crate) fn former(&self) -> Vec<Self> {
        versions(&self.bpffs).into_iter().filter(|pins| pins.former > 0).collect()
    }

    /// Completes a [`Pins::commit`] that was interrupted between its two steps by undoing the
    /// first: nothing has been attached yet.
    pub(crate) fn recover(&self) -> Result<(), DatapathError> {
        let former = self.former().into_iter().rfind(|pins| pins.abi == self.abi);
        match former.filter(|_| !self.root().exists() && self.older().is_empty()) {
            Some(former) => former.rename_to(self),
            None => Ok(()),
        }
    }

    /// Whether the bpf file system is gone, so that nothing can be pinned.
    pub(crate) fn are_lost(&self) -> bool {
        let existing = self.bpffs.ancestors().find(|path| path.exists()).unwrap_or(Path::new("/"));
        !is_bpffs(existing)
    }

    /// Whether they are prepared, or a newer version has taken over.
    pub(crate) fn are_not_in_force(&self) -> bool {
        self.staged || self.newest_other_abi().is_some_and(|other| other > self.abi)
    }

    /// Whether they are prepared.
    pub(crate) fn is_staged(&self) -> bool {
        self.staged
    }

    /// Whether they are of a former pool.
    pub(crate) fn is_former(&self) -> bool {
        self.former > 0
    }

    /// The version.
    pub(crate) fn abi(&self) -> u32 {
        self.abi
    }

    /// The directory of this version.
    pub(crate) fn root(&self) -> PathBuf {
        let suffix = match self.former {
            0 if self.staged => STAGED.to_owned(),
            0 => String::new(),
            number => format!("{FORMER}{number}"),
        };
        self.bpffs.join(format!("v{}{suffix}", self.abi))
    }

    /// The directory of all versions.
    pub(crate) fn all_versions(&self) -> &Path {
        &self.bpffs
    }

    /// The directory of the maps.
    pub(crate) fn maps(&self) -> PathBuf {
        self.root().join("maps")
    }

    pub(crate) fn map(&self, name: &str) -> PathBuf {
        self.maps().join(name)
    }

    fn links(&self) -> PathBuf {
        self.root().join("links")
    }

    pub(crate) fn cgroup_dir(&self, cgroup: u64) -> PathBuf {
        self.links().join(cgroup.to_string())
    }

    pub(crate) fn link(&self, cgroup: u64, program: &str) -> PathBuf {
        self.cgroup_dir(cgroup).join(program)
    }

    fn interfaces_dir(&self) -> PathBuf {
        self.root().join("interfaces")
    }

    /// The directory of an interface that programs are attached to.
    pub(crate) fn interface_dir(&self, index: u32) -> PathBuf {
        self.interfaces_dir().join(index.to_string())
    }

    /// The pin of a link to an interface.
    pub(crate) fn interface_link(&self, index: u32, program: &str) -> PathBuf {
        self.interface_dir(index).join(program)
    }

    /// The indices of the interfaces that programs are attached to, in ascending order.
    ///
    /// # Errors
    ///
    /// If it is unknown which they are.
    pub(crate) fn interfaces(&self) -> Result<Vec<u32>, DatapathError> {
        let folder = self.interfaces_dir();
        let names = known_names_in(&folder)
            .map_err(|error| DatapathError::call(format!("list {}", folder.display()), error))?;
        let mut indices: Vec<u32> = names.iter().filter_map(|name| name.parse().ok()).collect();
        indices.sort_unstable();
        Ok(indices)
    }

    /// Whether anything of this version is pinned. A directory that may not be read is an error,
    /// not an absent one.
    pub(crate) fn exist(&self) -> Result<bool, DatapathError> {
        let failed = |error| {
            DatapathError::call(format!("read {} (run this as root)", self.bpffs.display()), error)
        };
        self.maps().try_exists().map_err(failed)
    }

    /// Creates the directories.
    pub(crate) fn create_dirs(&self) -> Result<(), DatapathError> {
        for folder in [self.maps(), self.links(), self.interfaces_dir()] {
            create_dir(&folder)?;
        }
        Ok(())
    }

    /// Refuses a directory outside of a bpf file system, or with pins of a newer version.
    pub(crate) fn refuse_newer_version(&self) -> Result<(), DatapathError> {
        let existing = self.bpffs.ancestors().find(|path| path.exists()).unwrap_or(Path::new("/"));
        if !is_bpffs(existing) {
            return Err(DatapathError::NotBpffs { path: self.bpffs.clone() });
        }
        match self.other_versions().last() {
            Some(newer) if newer.abi > self.abi => {
                Err(DatapathError::AbiMismatch { found: newer.abi, ours: self.abi })
            }
            _ => Ok(()),
        }
    }

    /// The pins of other versions, the oldest first.
    fn other_versions(&self) -> Vec<Self> {
        versions(&self.bpffs)
            .into_iter()
            .filter(|other| !other.staged && other.former == 0 && other.abi != self.abi)
            .collect()
    }

    /// The pins of older versions, the oldest first.
    pub(crate) fn older(&self) -> Vec<Self> {
        self.other_versions().into_iter().filter(|other| other.abi < self.abi).collect()
    }

    /// These pins and those of older versions, whose links may not all be moved yet.
    pub(crate) fn with_older(&self) -> Vec<Self> {
        [vec![self.clone()], self.older()].concat()
    }

    /// The newest version other than this one.
    pub(crate) fn newest_other_abi(&self) -> Option<u32> {
        self.other_versions().last().map(|other| other.abi)
    }

    /// The IDs of the cgroups with pinned links.
    pub(crate) fn cgroups(&self) -> Vec<u64> {
        names_in(&self.links()).iter().filter_map(|name| name.parse().ok()).collect()
    }

    /// The programs with a pinned link for a cgroup.
    pub(crate) fn programs(&self, cgroup: u64) -> Vec<String> {
        names_in(&self.cgroup_dir(cgroup))
            .into_iter()
            .filter(|name| name.starts_with(names::PROGRAM_PREFIX))
            .collect()
    }

    /// The names of the pinned maps.
    pub(crate) fn map_names(&self) -> Vec<String> {
        names_in(&self.maps())
            .into_iter()
            .filter(|name| name.starts_with(names::MAP_PREFIX))
            .collect()
    }

    /// Removes every pin of ours, links first, so that the maps of attached programs stay pinned.
    /// Interfaces must be detached already. A directory with other files stays. Returns the
    /// numbers of links, cgroups and maps removed.
    pub(crate) fn remove(&self) -> Result<(usize, usize, usize), DatapathError> {
        let cgroups = self.cgroups();
        let links = cgroups.iter().map(|&cgroup| self.detach(cgroup)).sum::<Result<usize, _>>()?;
        let mut maps = 0;
        for name in self.map_names() {
            maps += usize::from(remove(&self.map(&name))?);
        }
        for folder in [self.links(), self.interfaces_dir(), self.maps(), self.root()] {
            remove_dir(&folder)?;
        }
        Ok((links, cgroups.len(), maps))
    }

    /// Whether a program is still attached to the cgroup of a pinned link. The programs of a
    /// removed cgroup stay attached until its last socket is closed.
    pub(crate) fn in_use(&self, cgroup: u64) -> bool {
        let attached = |name: &String| {
            sys::open_pin(&self.link(cgroup, name))
                .and_then(|link| sys::linked_cgroup_id(&link))
                .is_ok_and(|id| id != 0)
        };
        self.programs(cgroup).iter().any(attached)
    }

    /// Removes every link of a cgroup, those of programs that rewrite first: nothing is rewritten
    /// that can't be restored.
    pub(crate) fn detach(&self, cgroup: u64) -> Result<usize, DatapathError> {
        let mut programs = self.programs(cgroup);
        programs.sort_by_key(|name| {
            !names::programs_that(Role::Rewrites).any(|first| name.starts_with(first))
        });
        let mut removed = 0;
        for name in programs {
            let pin = self.link(cgroup, &name);
            // Fails for a removed cgroup, whose links the kernel has detached.
            if let Err(error) = sys::open_pin(&pin).and_then(|link| sys::detach_link(&link)) {
                tracing::debug!(pin = %pin.display(), %error, "failed to detach the link");
            }
            removed += usize::from(remove(&pin)?);
        }
        remove_dir(&self.cgroup_dir(cgroup))?;
        Ok(removed)
    }
}

/// Every version's pins, the oldest first, prepared ones and those of former pools included.
pub(crate) fn versions(bpffs: &Path) -> Vec<Pins> {
    let version = |name: String| {
        let number = name.strip_prefix('v')?;
        let (number, former) = match number.split_once(FORMER) {
            Some((number, former)) => (number, former.parse().ok().filter(|&one| one > 0)?),
            None => (number, 0),
        };
        let staged = number.ends_with(STAGED);
        let abi = number.strip_suffix(STAGED).unwrap_or(number).parse().ok()?;
        Some(Pins { bpffs: bpffs.to_owned(), abi, staged, former })
    };
    // An empty directory is left when a removal was interrupted, unless its version is newer than
    // this binary.
    let is_ours = |pins: &Pins| pins.maps().is_dir() || pins.links().is_dir() || pins.abi <= ABI;
    let mut versions: Vec<Pins> =
        names_in(bpffs).into_iter().filter_map(version).filter(is_ours).collect();
    versions.sort_by_key(|pins| (pins.former == 0, pins.abi, pins.staged, pins.former));
    versions
}

/// Whether `path` is in a bpf file system.
pub(crate) fn is_bpffs(path: &Path) -> bool {
    rustix::fs::statfs(path).is_ok_and(|stat| stat.f_type & 0xffff_ffff == BPF_FS_MAGIC)
}

/// The names in a directory, sorted; empty if there is no such directory.
pub(crate) fn names_in(folder: &Path) -> Vec<String> {
    known_names_in(folder).unwrap_or_default()
}

/// As [`names_in`], with an error if it is unknown what is there.
fn known_names_in(folder: &Path) -> io::Result<Vec<String>> {
    let entries = known(fs::read_dir(folder))?.into_iter().flatten();
    let mut names: Vec<String> =
        entries.flatten().filter_map(|entry| entry.file_name().into_string().ok()).collect();
    names.sort();
    Ok(names)
}

/// Creates a directory of pins.
pub(crate) fn create_dir(folder: &Path) -> Result<(), DatapathError> {
    fs::create_dir_all(folder)
        .map_err(|error| DatapathError::call(format!("create {}", folder.display()), error))
}

/// Pins a link or a map, in a directory that is created if it is missing.
pub(crate) fn pin(object: &OwnedFd, at: &Path) -> Result<(), DatapathError> {
    at.parent().map_or(Ok(()), create_dir)?;
    sys::pin(object, at)
        .map_err(|error| DatapathError::call(format!("create the pin {}", at.display()), error))
}

/// Removes a pin, and with the last reference its object. A missing pin is no error.
pub(crate) fn remove(pin: &Path) -> Result<bool, DatapathError> {
    match fs::remove_file(pin) {
        Ok(()) => {
            debug!(pin = %pin.display(), "removed");
            Ok(true)
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(DatapathError::call(format!("remove the pin {}", pin.display()), error)),
    }
}

/// Removes a directory of pins, unless it contains other files.
pub(crate) fn remove_dir(folder: &Path) -> Result<(), DatapathError> {
    match fs::remove_dir(folder) {
        Err(error)
            if !matches!(
                error.kind(),
                io::ErrorKind::NotFound | io::ErrorKind::DirectoryNotEmpty
            ) =>
        {
            Err(DatapathError::call(
                format!(
                    "remove the directory {}",
                    folder.file_name().unwrap_or(OsStr::new("?")).display()
                ),
                error,
            ))
        }
        _ => Ok(()),
    }
}

/// Opens a pinned array, whose elements must have this size.
pub(crate) fn open_pin<V: aya::Pod>(
    pins: &Pins,
    name: &str,
) -> Result<Array<MapData, V>, DatapathError> {
    let (data, opening) = open_map(pins, name)?;
    Array::try_from(Map::Array(data)).map_err(|error| DatapathError::call(opening, error))
}

/// Opens a pinned hash map, which may be an LRU one.
pub(crate) fn open_pinned_hash<K: aya::Pod, V: aya::Pod>(
    pins: &Pins,
    name: &str,
) -> Result<HashMap<MapData, K, V>, DatapathError> {
    let (data, opening) = open_map(pins, name)?;
    HashMap::try_from(Map::HashMap(data)).map_err(|error| DatapathError::call(opening, error))
}

/// A pinned map, and the action for errors.
fn open_map(pins: &Pins, name: &str) -> Result<(MapData, String), DatapathError> {
    let path = pins.map(name);
    let opening = format!("open the pinned map {}", path.display());
    match MapData::from_pin(&path) {
        Ok(data) => Ok((data, opening)),
        Err(MapError::SyscallError(error)) => Err(error::from_io(&opening, error.io_error)),
        Err(other) => Err(DatapathError::call(opening, other)),
    }
}
