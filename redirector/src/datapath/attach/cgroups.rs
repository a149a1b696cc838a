//! Finds the cgroups to attach to: the mount of the hierarchy, paths, globs, and the meaning of
//! `auto`.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fs, io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use procfs::{
    FromRead as _,
    process::{MountInfo, MountInfos, Process},
};

use crate::{
    config::{CgroupSpec, Preset, is_glob},
    datapath::{
        attach::{
            globs::{expand, subfolders},
            pods::PodCgroups,
            presets,
        },
        error::DatapathError,
        maps::name_cgroups::NameCgroup,
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
    fn at(path: &Path) -> io::Result<Option<Self>> {
        let stat = known(rustix::fs::statfs(path).map_err(io::Error::from))?;
        if stat.is_none_or(|stat| stat.f_type != CGROUP2_MAGIC) {
            return Ok(None);
        }
        let metadata = known(fs::metadata(path))?.filter(fs::Metadata::is_dir);
        Ok(metadata.map(|metadata| Self { path: path.to_owned(), id: metadata.ino() }))
    }

    /// Those of `paths` that are cgroups.
    fn among(paths: &[PathBuf]) -> io::Result<Vec<Self>> {
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

/// What `specs` match.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Matches {
    /// The cgroups, without those below another one of them, which covers them.
    pub cgroups: Vec<Cgroup>,
    /// The plain paths that are no cgroup now, as configured.
    pub missing: Vec<String>,
}

/// The cgroups that match `specs` now, for a person who has just written them: a glob or a preset
/// may match none, a plain path must exist.
///
/// # Errors
///
/// [`DatapathError::NoCgroup2`], or [`DatapathError::Cgroup`] for a plain path that is not a
/// cgroup, or an invalid pattern.
pub fn cgroups(specs: &[CgroupSpec]) -> Result<Vec<Cgroup>, DatapathError> {
    let Matches { cgroups, missing } = cgroups_beside(specs, &[], None)?;
    let Some(pattern) = missing.into_iter().next() else { return Ok(cgroups) };
    let problem = format!(
        "is not a cgroup below {}: create it first, or use a glob for one that appears later",
        cgroup2_mount()?.display()
    );
    Err(DatapathError::Cgroup { pattern, problem })
}

/// Which pods are wanted, by UID.
pub type PodFilter<'a> = dyn Fn(&str) -> bool + 'a;

/// What `specs` match now, where `attached` has the IDs of cgroups that are attached already: one
/// that a preset shares with other services stays until it is gone. With `pods`, the cgroups of
/// single pods take the place of those that the kubelet makes for all.
///
/// # Errors
///
/// [`DatapathError::NoCgroup2`]; [`DatapathError::Cgroup`] for an invalid pattern; that it is
/// unknown which cgroups there are, since this host lacks descriptors or memory.
pub fn cgroups_beside(
    specs: &[CgroupSpec],
    attached: &[u64],
    pods: Option<&PodFilter<'_>>,
) -> Result<Matches, DatapathError> {
    let mount = cgroup2_mount()?;
    let mut missing = Vec::new();
    let mut found = BTreeMap::new();
    for spec in specs {
        let cgroups = match spec {
            CgroupSpec::Auto => auto(&mount, attached, pods).map_err(unknown)?,
            CgroupSpec::Preset(preset) => of_preset(&mount, *preset, attached)
                .and_then(|cgroups| narrowed(*preset, cgroups, pods))
                .map_err(unknown)?,
            CgroupSpec::Pattern(pattern) => {
                let cgroups = matching(&mount, pattern)?;
                let is_missing = cgroups.is_empty() && is_path(&mount, pattern);
                missing.extend(is_missing.then(|| pattern.clone()));
                cgroups
            }
        };
        found.extend(cgroups.into_iter().map(|cgroup| (cgroup.path, cgroup.id)));
    }
    let is_covered = |path: &Path| path.ancestors().skip(1).any(|above| found.contains_key(above));
    let uncovered = found.iter().filter(|(path, _)| !is_covered(path));
    let mut cgroups: Vec<_> =
        uncovered.map(|(path, id)| Cgroup { path: path.clone(), id: *id }).collect();
    cgroups.sort_by_key(|cgroup| cgroup.id);
    Ok(Matches { cgroups, missing })
}

/// An error that leaves open which cgroups there are.
fn unknown(error: io::Error) -> DatapathError {
    DatapathError::call("list the cgroups", error)
}

/// The cgroups of the presets that exist here, as far as they are known.
pub fn preset_cgroups() -> Vec<(Preset, Cgroup)> {
    let Ok(mount) = cgroup2_mount() else { return Vec::new() };
    let of = |preset| {
        let cgroups = of_preset(&mount, preset, &[]).unwrap_or_default();
        cgroups.into_iter().map(move |at| (preset, at))
    };
    Preset::ALL.into_iter().flat_map(of).collect()
}

/// The directories in which a created or removed cgroup can change what `specs` match: those that a
/// prefix of a pattern matches.
///
/// # Errors
///
/// If it is unknown which there are.
pub fn watched_dirs(
    mount: &Path,
    specs: &[CgroupSpec],
) -> Result<BTreeSet<PathBuf>, DatapathError> {
    let patterns = specs.iter().flat_map(|spec| match spec {
        CgroupSpec::Auto => Preset::ALL.into_iter().flat_map(presets::globs).collect(),
        CgroupSpec::Preset(preset) => presets::globs(*preset).collect::<Vec<_>>(),
        CgroupSpec::Pattern(pattern) => below(mount, pattern).into_iter().collect(),
    });
    let mut watched = BTreeSet::new();
    for prefix in patterns.flat_map(|pattern| prefixes(pattern.trim_matches('/'))) {
        watched.extend(expand(mount, prefix).map_err(unknown)?);
    }
    Ok(watched)
}

/// The prefixes of `a/b/c` are the empty one, `a` and `a/b`.
fn prefixes(pattern: &str) -> impl Iterator<Item = &str> {
    std::iter::once("").chain(pattern.match_indices('/').map(|(end, _)| &pattern[..end]))
}

/// The cgroups of every preset; if there are none, the root.
fn auto(mount: &Path, attached: &[u64], pods: Option<&PodFilter<'_>>) -> io::Result<Vec<Cgroup>> {
    let mut is_any = false;
    let mut cgroups = Vec::new();
    for preset in Preset::ALL {
        let found = of_preset(mount, preset, attached)?;
        is_any |= !found.is_empty();
        cgroups.extend(narrowed(preset, found, pods)?);
    }
    if is_any { Ok(cgroups) } else { Ok(Cgroup::at(mount)?.into_iter().collect()) }
}

/// Of the kubelet's cgroups, those of the wanted pods.
fn narrowed(
    preset: Preset,
    cgroups: Vec<Cgroup>,
    pods: Option<&PodFilter<'_>>,
) -> io::Result<Vec<Cgroup>> {
    let Some(is_wanted) = pods.filter(|_| preset == Preset::Kubernetes) else {
        return Ok(cgroups);
    };
    let mut wanted = Vec::new();
    for cgroup in cgroups {
        let below = PodCgroups::below(&cgroup.path)?.pods.into_iter();
        wanted.extend(below.filter(|(uid, _)| is_wanted(uid)).map(|(_, path)| path));
    }
    Cgroup::among(&wanted)
}

/// The directories in which pods' cgroups appear.
///
/// # Errors
///
/// If it is unknown which there are.
pub fn pod_parents(specs: &[CgroupSpec]) -> Result<Vec<PathBuf>, DatapathError> {
    let is_pods = |spec: &CgroupSpec| {
        matches!(spec, CgroupSpec::Auto | CgroupSpec::Preset(Preset::Kubernetes))
    };
    if !specs.iter().any(is_pods) {
        return Ok(Vec::new());
    }
    let mut parents = Vec::new();
    let kubelets = of_preset(&cgroup2_mount()?, Preset::Kubernetes, &[]).map_err(unknown)?;
    for kubelet in kubelets {
        parents.extend(PodCgroups::below(&kubelet.path).map_err(unknown)?.parents);
    }
    Ok(parents)
}

fn of_preset(mount: &Path, preset: Preset, attached: &[u64]) -> io::Result<Vec<Cgroup>> {
    let stays =
        |path: &Path| Ok(Cgroup::at(path)?.is_some_and(|cgroup| attached.contains(&cgroup.id)));
    Cgroup::among(&presets::cgroups(preset, mount, &stays)?)
}

fn matching(mount: &Path, pattern: &str) -> Result<Vec<Cgroup>, DatapathError> {
    let problem = |problem: String| DatapathError::Cgroup { pattern: pattern.to_owned(), problem };
    let Some(below) = below(mount, pattern) else { return Err(problem("is not UTF-8".into())) };
    if below.split('/').any(|part| part == "..") {
        return Err(problem("leaves the hierarchy by `..`".into()));
    }
    if let Err(error) = glob::Pattern::new(below) {
        return Err(problem(format!("is not a glob: {error}")));
    }
    expand(mount, below).and_then(|paths| Cgroup::among(&paths)).map_err(unknown)
}

/// Whether it is a path, which names one cgroup, and not a glob.
fn is_path(mount: &Path, pattern: &str) -> bool {
    below(mount, pattern).is_some_and(|below| !is_glob(below))
}

/// A pattern relative to the mount, which it may begin with.
fn below<'a>(mount: &Path, pattern: &'a str) -> Option<&'a str> {
    match Path::new(pattern).strip_prefix(mount) {
        Ok(below) => below.to_str(),
        Err(_) => Some(pattern.trim_start_matches('/')),
    }
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
    fn watched_dirs_match_a_prefix_of_a_pattern() {
        let mount = tempfile::tempdir().expect("a directory");
        for folder in ["a/x/deep", "a/y", "b"] {
            fs::create_dir_all(mount.path().join(folder)).expect("made");
        }
        let decide = |pattern: &str| {
            let specs = [CgroupSpec::Pattern(pattern.into())];
            let folders = watched_dirs(mount.path(), &specs).expect("known");
            let below = |path: &PathBuf| {
                path.strip_prefix(mount.path()).expect("below").display().to_string()
            };
            folders.iter().map(below).collect::<Vec<_>>()
        };
        assert_eq!(decide("b"), [""]);
        assert_eq!(decide("/a/*/job-*"), ["", "a", "a/x", "a/y"]);
        assert_eq!(decide(mount.path().join("a/x/*").to_str().expect("UTF-8")), ["", "a", "a/x"]);
        assert_eq!(decide("a/**/job"), ["", "a", "a/x", "a/x/deep", "a/y"]);
        assert_eq!(decide("missing/*"), [""]);
        let all = watched_dirs(mount.path(), &[CgroupSpec::Auto]).expect("known");
        let here = ["", "a", "b"].map(|folder| mount.path().join(folder));
        assert_eq!(all, BTreeSet::from(here), "kind's pods are one level deeper");
    }

    #[test]
    fn this_host_has_a_cgroup2_hierarchy_and_its_root_can_be_named() {
        let mount = cgroup2_mount().expect("these tests need cgroup2");
        let root = cgroups(&[CgroupSpec::Pattern("/".into())]).expect("the root");
        assert_eq!(
            root,
            [Cgroup { path: mount.clone(), id: fs::metadata(&mount).expect("the mount").ino() }]
        );
    }

    #[test]
    fn an_attached_cgroup_has_its_level_in_the_hierarchy() {
        let mount = cgroup2_mount().expect("these tests need cgroup2");
        let own = fs::read_to_string("/proc/self/cgroup").expect("our cgroups");
        let own = own.lines().find_map(|line| line.strip_prefix("0::")).expect("our cgroup");
        if fs::metadata(&mount).expect("the mount").ino() != ROOT_INODE {
            return;
        }
        let path = mount.join(own.trim_start_matches('/'));
        let depth = own.split('/').filter(|part| !part.is_empty()).count();
        let at = Attachment { cgroup: Some(path), id: 7, programs: Vec::new() };
        let unknown = Attachment { cgroup: None, id: 8, programs: Vec::new() };
        let expected = NameCgroup { id: 7, level: Some(depth as u32) };
        assert_eq!(name_cgroups(&[at, unknown]), [expected]);
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

    #[test]
    fn a_missing_path_hides_no_cgroup_and_an_invalid_pattern_fails() {
        let pattern = |text: &str| CgroupSpec::Pattern(text.into());
        let specs = ["no-such-cgroup", "no-such-*", "/", "no/such"].map(pattern);
        let found = cgroups_beside(&specs, &[], None).expect("the root");
        let root = cgroups(&[pattern("/")]).expect("the root");
        assert_eq!(
            found,
            Matches { cgroups: root, missing: vec!["no-such-cgroup".into(), "no/such".into()] }
        );
        for invalid in ["../etc", "a**"] {
            let specs = ["/", invalid].map(pattern);
            assert!(cgroups_beside(&specs, &[], None).is_err(), "{invalid}");
        }
    }

    #[test]
    fn a_missing_path_is_refused_and_a_glob_is_not() {
        let missing =
            cgroups(&[CgroupSpec::Pattern("no-such-cgroup".into())]).expect_err("missing");
        assert!(
            missing.to_string().contains("`no-such-cgroup` is not a cgroup below"),
            "{missing}"
        );
        assert!(cgroups(&[CgroupSpec::Pattern("../etc".into())]).is_err());
        assert_eq!(cgroups(&[CgroupSpec::Pattern("no-such-*".into())]).expect("a glob"), []);
    }
}
