//! Finds the cgroups to attach to: paths, globs, and the meaning of `auto`.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    path::{Path, PathBuf},
};

use crate::{
    config::{CgroupSpec, Preset, is_glob},
    datapath::{
        attach::{
            globs::expand,
            hierarchy::{Cgroup, cgroup2_mount, unknown},
            pods::PodCgroups,
            presets,
        },
        error::DatapathError,
    },
};

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

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::MetadataExt};

    use super::*;

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
