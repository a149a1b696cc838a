//! The pins: `bpffs/v<ABI>/maps/<table>` and `bpffs/v<ABI>/links/<cgroup id>/<program>`.

use std::{
    ffi::OsStr,
    fs, io,
    path::{Path, PathBuf},
};

use redirector_common::abi::ABI;

use super::DatapathError;

/// `statfs` magic of a bpf file system (linux/magic.h).
const BPF_FS_MAGIC: i64 = 0xcafe_4a11;

/// The folder of our pins.
#[derive(Clone, Debug)]
pub(super) struct Pins {
    bpffs: PathBuf,
}

impl Pins {
    pub(super) fn new(bpffs: &Path) -> Self {
        Self { bpffs: bpffs.to_owned() }
    }

    /// Everything of this ABI.
    pub(super) fn root(&self) -> PathBuf {
        self.bpffs.join(format!("v{ABI}"))
    }

    pub(super) fn map(&self, name: &str) -> PathBuf {
        self.root().join("maps").join(name)
    }

    pub(super) fn links(&self) -> PathBuf {
        self.root().join("links")
    }

    pub(super) fn cgroup(&self, cgroup: u64) -> PathBuf {
        self.links().join(cgroup.to_string())
    }

    pub(super) fn link(&self, cgroup: u64, program: &str) -> PathBuf {
        self.cgroup(cgroup).join(program)
    }

    /// Whether anything of this ABI is pinned. What may not be looked at is not taken for absent.
    pub(super) fn exist(&self) -> Result<bool, DatapathError> {
        let failed = |error| DatapathError::call(format!("look into {} (run this as root)", self.bpffs.display()), error);
        self.root().join("maps").try_exists().map_err(failed)
    }

    /// Makes the folders, and refuses a place that is no bpf file system or that holds another version's pins.
    pub(super) fn prepare(&self) -> Result<(), DatapathError> {
        let existing = self.bpffs.ancestors().find(|path| path.exists()).unwrap_or(Path::new("/"));
        if !is_bpffs(existing) {
            return Err(DatapathError::NotBpffs { path: self.bpffs.clone() });
        }
        if let Some(found) = self.other_abi() {
            return Err(DatapathError::OtherAbi { found, ours: ABI });
        }
        for folder in [self.root().join("maps"), self.links()] {
            fs::create_dir_all(&folder).map_err(|error| DatapathError::call(format!("create {}", folder.display()), error))?;
        }
        Ok(())
    }

    /// The version of pins that are not ours to adopt.
    pub(super) fn other_abi(&self) -> Option<u32> {
        let entries = fs::read_dir(&self.bpffs).ok()?;
        let versions = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.strip_prefix('v')?.parse().ok());
        versions.into_iter().find(|&version: &u32| version != ABI)
    }

    /// The cgroups that links are pinned for.
    pub(super) fn cgroups(&self) -> Vec<u64> {
        names_in(&self.links()).iter().filter_map(|name| name.parse().ok()).collect()
    }
}

/// Whether `path` is in a bpf file system.
pub(super) fn is_bpffs(path: &Path) -> bool {
    rustix::fs::statfs(path).is_ok_and(|stat| stat.f_type & 0xffff_ffff == BPF_FS_MAGIC)
}

/// The names in a folder, sorted; empty for a folder that is not there.
pub(super) fn names_in(folder: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    let mut names: Vec<String> = entries.flatten().filter_map(|entry| entry.file_name().into_string().ok()).collect();
    names.sort();
    names
}

/// Removes a pin, and with the last reference what it holds. One that is gone already is no error.
pub(super) fn remove(pin: &Path) -> Result<bool, DatapathError> {
    match fs::remove_file(pin) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(DatapathError::call(format!("remove the pin {}", pin.display()), error)),
    }
}

/// Removes a folder of pins that is empty by now.
pub(super) fn remove_folder(folder: &Path) -> Result<(), DatapathError> {
    match fs::remove_dir(folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(DatapathError::call(format!("remove the folder {}", folder.file_name().unwrap_or(OsStr::new("?")).display()), error))
        }
        _ => Ok(()),
    }
}
