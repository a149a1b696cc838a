//! The cgroup2 hierarchy: where it is mounted, its cgroups and their levels.

use std::{
    collections::HashMap,
    fs, io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use procfs::{
    FromRead as _,
    process::{MountInfo, MountInfos, Process},
};

use crate::{
    datapath::{
        attach::globs::subfolders, error::DatapathError, maps::name_cgroups::NameCgroup,
        status::Attachment,
    },
    error::known,
};

/// `statfs` magic of cgroup2 (linux/magic.h).
const CGROUP2_MAGIC: i64 = 0x6367_7270;

/// The inode of the hierarchy's root.
const ROOT_INODE: u64 = 1;

/// A cgroup, by its path on this host and its ID in the kernel (the inode of its directory).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cgroup {
    /// The directory.
    pub path: PathBuf,
    /// The inode of the directory.
    pub id: u64,
}

impl Cgroup {
    /// The cgroup at `path`, if one is there.
    pub(super) fn at(path: &Path) -> io::Result<Option<Self>> {
        let stat = known(rustix::fs::statfs(path).map_err(io::Error::from))?;
        if stat.is_none_or(|stat| stat.f_type != CGROUP2_MAGIC) {
            return Ok(None);
        }
        let metadata = known(fs::metadata(path))?.filter(fs::Metadata::is_dir);
        Ok(metadata.map(|metadata| Self { path: path.to_owned(), id: metadata.ino() }))
    }

    /// Those of `paths` that are cgroups.
    pub(super) fn among(paths: &[PathBuf]) -> io::Result<Vec<Self>> {
        paths.iter().filter_map(|path| Self::at(path).transpose()).collect()
    }

    /// Whether it still exists; another cgroup may have its path.
    pub(crate) fn exists(&self) -> bool {
        fs::metadata(&self.path).is_ok_and(|metadata| metadata.ino() == self.id)
    }
}

/// Where the cgroup2 hierarchy is mounted: the mount that shows its root, else (in a container or a
/// test) the mount whose root is highest above our own cgroup. A pod with its host's hierarchy also
/// has the one that its runtime mounted.
///
/// # Errors
///
/// [`DatapathError::NoCgroup2`] if none is mounted, or that it is unknown.
pub fn cgroup2_mount() -> Result<PathBuf, DatapathError> {
    let usable = Cgroup::among(&cgroup2_mount_points(&mounts()?)).map_err(unknown)?;
    let root = usable.iter().find(|cgroup| cgroup.id == ROOT_INODE).or(usable.first());
    root.map(|cgroup| cgroup.path.clone()).ok_or(DatapathError::NoCgroup2)
}

/// The inode of the initial cgroup namespace (include/linux/proc_ns.h).
const INITIAL_NAMESPACE: u64 = 0xefff_fffb;

/// Whether a cgroup namespace hides every cgroup but ours and those below. In a container that is a
/// whole machine, with an init and services, ours is one of several.
pub fn is_confined() -> bool {
    // The namespace's root, which is not the hierarchy's.
    cgroup2_mount().is_ok_and(|mount| {
        !is_root(&mount)
            && root_of(&mount).is_some_and(|root| root == "/")
            && is_in_namespace_root()
    })
}

/// Whether this process is in the root of its cgroup namespace, as a container's processes are.
fn is_in_namespace_root() -> bool {
    let own = Process::myself().and_then(|process| process.cgroups());
    own.is_ok_and(|own| own.into_iter().any(|at| at.hierarchy == 0 && at.pathname == "/"))
}

fn is_root(mount: &Path) -> bool {
    fs::metadata(mount).is_ok_and(|metadata| metadata.ino() == ROOT_INODE)
}

/// The directory of the hierarchy that is mounted at `mount`, relative to our namespace's root.
fn root_of(mount: &Path) -> Option<String> {
    let is_it = |at: &&MountInfo| {
        at.fs_type == "cgroup2" && Path::new(&unescape(&at.mount_point.to_string_lossy())) == mount
    };
    mounts().ok()?.iter().rfind(is_it).map(|at| at.root.clone())
}

/// The level in the hierarchy of the directory at which [`cgroup2_mount`] finds it; none if this
/// process's cgroup namespace hides it.
fn mount_level(mount: &Path) -> Option<u32> {
    if is_root(mount) {
        return Some(0);
    }
    // Another namespace shows the root of a mount relative to its own root.
    if fs::metadata("/proc/thread-self/ns/cgroup").ok()?.ino() != INITIAL_NAMESPACE {
        return None;
    }
    let root = root_of(mount)?;
    u32::try_from(root.split('/').filter(|part| !part.is_empty()).count()).ok()
}

/// The attached cgroups with their levels in the hierarchy, for answers on the host's own network.
pub fn name_cgroups(attachments: &[Attachment]) -> Vec<NameCgroup> {
    let Ok(mount) = cgroup2_mount() else { return Vec::new() };
    with_levels(attachments, &mount, mount_level(&mount))
}

/// As [`name_cgroups`], for the hierarchy at `mount`, whose root is at level `base` if that is
/// known.
fn with_levels(attachments: &[Attachment], mount: &Path, base: Option<u32>) -> Vec<NameCgroup> {
    let levelled = attachments.iter().filter_map(|at| {
        let below = at.cgroup.as_ref()?.strip_prefix(mount).ok()?;
        let depth = u32::try_from(below.components().count()).ok()?;
        Some(NameCgroup { id: at.id, level: base.map(|base| base + depth) })
    });
    levelled.collect()
}

/// The mounts that the calling thread sees; `/proc/self` has those of the main thread.
///
/// # Errors
///
/// When they can't be read.
pub(crate) fn mounts() -> Result<Vec<MountInfo>, DatapathError> {
    const MOUNTS: &str = "/proc/thread-self/mountinfo";
    let MountInfos(mounts) = MountInfos::from_file(MOUNTS)
        .map_err(|error| DatapathError::call(format!("read {MOUNTS}"), error))?;
    Ok(mounts)
}

/// The mount points of cgroup2, the one whose root is highest first, including those that other
/// mounts hide.
fn cgroup2_mount_points(mounts: &[MountInfo]) -> Vec<PathBuf> {
    let cgroup2 = mounts.iter().filter(|mount| mount.fs_type == "cgroup2");
    let mut points: Vec<_> = cgroup2
        .map(|mount| {
            // A root above that of our cgroup namespace is shown relative to it, as `/../..`.
            let levels_above = mount.root.split('/').filter(|part| *part == "..").count();
            (levels_above, PathBuf::from(unescape(&mount.mount_point.to_string_lossy())))
        })
        .collect();
    points.sort_by_key(|(levels_above, _)| std::cmp::Reverse(*levels_above));
    points.into_iter().map(|(_, point)| point).collect()
}

/// Decodes space, tab, newline and backslash, which the kernel writes as `\ooo` and procfs leaves
/// encoded.
fn unescape(text: &str) -> String {
    [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")]
        .iter()
        .fold(text.to_owned(), |text, (code, plain)| text.replace(code, plain))
}

/// The path of every cgroup, by ID, as far as they are known.
pub fn cgroup_paths() -> HashMap<u64, PathBuf> {
    let mut paths = HashMap::new();
    let Ok(mount) = cgroup2_mount() else { return paths };
    let mut open = vec![mount];
    while let Some(folder) = open.pop() {
        if let Ok(metadata) = fs::metadata(&folder) {
            paths.insert(metadata.ino(), folder.clone());
        }
        open.extend(subfolders(&folder).unwrap_or_default());
    }
    paths
}

/// An error that leaves open which cgroups there are.
pub(super) fn unknown(error: io::Error) -> DatapathError {
    DatapathError::call("list the cgroups", error)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(mountinfo: &str) -> Vec<MountInfo> {
        MountInfos::from_read(mountinfo.as_bytes()).expect("mountinfo").0
    }

    #[test]
    fn cgroup2_is_found_among_the_mounts_wherever_it_is() {
        let mountinfo = "\
25 30 0:22 / /sys/fs/cgroup ro,nosuid - tmpfs tmpfs ro,mode=755
26 25 0:23 / /sys/fs/cgroup/unified rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate
27 25 0:24 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu
99 30 0:23 /a /mnt/with\\040space rw - cgroup2 cgroup2 rw";
        assert_eq!(
            cgroup2_mount_points(&parse(mountinfo)),
            [Path::new("/sys/fs/cgroup/unified"), Path::new("/mnt/with space")]
        );
    }

    #[test]
    fn a_pod_uses_the_mount_of_its_host() {
        let mountinfo = "\
31 30 0:22 / /sys/fs/cgroup ro,nosuid - cgroup2 cgroup rw
32 30 0:22 /../../.. /host/sys/fs/cgroup ro - cgroup2 cgroup2 rw";
        assert_eq!(
            cgroup2_mount_points(&parse(mountinfo)),
            [Path::new("/host/sys/fs/cgroup"), Path::new("/sys/fs/cgroup")]
        );
    }

    #[test]
    fn an_attached_cgroup_has_its_level_in_the_hierarchy() {
        let mount = cgroup2_mount().expect("these tests need cgroup2");
        let own = fs::read_to_string("/proc/self/cgroup").expect("our cgroups");
        let own = own.lines().find_map(|line| line.strip_prefix("0::")).expect("our cgroup");
        let path = mount.join(own.trim_start_matches('/'));
        let depth = own.split('/').filter(|part| !part.is_empty()).count();
        let at = Attachment { cgroup: Some(path), id: 7, programs: Vec::new() };
        let unknown = Attachment { cgroup: None, id: 8, programs: Vec::new() };
        // A container's namespace hides how deep it is.
        let level = is_root(&mount).then_some(depth as u32);
        assert_eq!(name_cgroups(&[at, unknown]), [NameCgroup { id: 7, level }]);
    }

    #[test]
    fn a_level_that_a_namespace_hides_is_unknown() {
        let mount = Path::new("/sys/fs/cgroup");
        let at = |path| Attachment { cgroup: Some(mount.join(path)), id: 7, programs: Vec::new() };
        let attachments = [at("a/b")];
        let levels = |base| with_levels(&attachments, mount, base);
        assert_eq!(levels(Some(3)), [NameCgroup { id: 7, level: Some(5) }]);
        assert_eq!(levels(None), [NameCgroup { id: 7, level: None }]);
    }
}
