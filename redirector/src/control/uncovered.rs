//! What holds sockets on this host and is not redirected: cgroups of presets that are not attached,
//! and cgroups with connections of the host's own network.

use std::{collections::BTreeMap, path::PathBuf};

use crate::{
    config::Preset,
    control::api::UncoveredCgroup,
    datapath::{self, Cgroup},
    net,
};

/// The most cgroups that a status has.
const MAX_LISTED: usize = 100;

/// What is neither at nor below one of the `attached` cgroups, presets first. Reads the kernel's
/// list of sockets and all cgroups, which takes a while on a large node.
pub(crate) fn uncovered(attached: &[PathBuf]) -> Vec<UncoveredCgroup> {
    let mut owners = net::tcp_owners(&net::tcp_sockets().unwrap_or_default());
    let own = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let paths = match owners.is_empty() {
        true => Default::default(),
        false => datapath::cgroup_paths(),
    };
    owners.retain(|id, _| {
        let path = paths.get(id).map(|path| path.to_string_lossy());
        path.is_some_and(|path| !own.lines().any(|line| is_at(line, &path)))
    });
    let owners = owners.into_iter().map(|(id, number)| (paths[&id].clone(), number));
    list(attached, datapath::preset_cgroups(), owners.collect())
}

/// Whether a line of /proc/self/cgroup names this directory. The mount may be above or below the
/// root of our cgroup namespace.
fn is_at(line: &str, path: &str) -> bool {
    line.strip_prefix("0::").is_some_and(|own| own.len() > 1 && path.ends_with(own))
}

fn list(
    attached: &[PathBuf],
    presets: Vec<(Preset, Cgroup)>,
    mut owners: BTreeMap<PathBuf, usize>,
) -> Vec<UncoveredCgroup> {
    let is_covered = |path: &PathBuf| attached.iter().any(|at| path.starts_with(at));
    let mut found: Vec<UncoveredCgroup> = Vec::new();
    for (preset, Cgroup { path, .. }) in presets {
        // Single pods may be attached below it.
        let in_part = attached.iter().any(|at| at.starts_with(&path));
        if in_part || is_covered(&path) || found.iter().any(|known| known.cgroup == path) {
            continue;
        }
        let below = owners.extract_if(.., |owner, _| owner.starts_with(&path));
        let connections = below.map(|(_, number)| number).sum();
        let preset = Some(preset.to_string());
        found.push(UncoveredCgroup { cgroup: path, preset, connections });
    }
    owners.retain(|path, _| !is_covered(path));
    let others = owners.into_iter();
    found.extend(others.map(|(cgroup, connections)| UncoveredCgroup {
        cgroup,
        preset: None,
        connections,
    }));
    found.truncate(MAX_LISTED);
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn presets_come_first_with_the_connections_below_them() {
        let cgroup = |path: &str| Cgroup { path: path.into(), id: 7 };
        let presets = vec![
            (Preset::Kubernetes, cgroup("/c/kubepods")),
            (Preset::Docker, cgroup("/c/docker")),
            (Preset::Buildkit, cgroup("/c/docker")),
        ];
        let owners = [("/c/kubepods/pod1", 1), ("/c/docker/2", 2), ("/c/a.service", 3)];
        let owners = owners.map(|(path, number)| (PathBuf::from(path), number));
        let found = list(&["/c/kubepods".into()], presets, owners.into());
        let found: Vec<_> = found
            .iter()
            .map(|at| (at.cgroup.to_str().unwrap(), at.preset.as_deref(), at.connections))
            .collect();
        assert_eq!(found, [("/c/docker", Some("docker"), 2), ("/c/a.service", None, 3)]);
    }

    #[test]
    fn a_preset_of_which_single_pods_are_attached_is_covered() {
        let presets = vec![(Preset::Kubernetes, Cgroup { path: "/c/kubepods".into(), id: 7 })];
        let owners = BTreeMap::from([(PathBuf::from("/c/kubepods/pod2"), 1)]);
        let found = list(&["/c/kubepods/pod1".into()], presets, owners);
        let found: Vec<_> = found.iter().map(|at| at.cgroup.to_str().unwrap()).collect();
        assert_eq!(found, ["/c/kubepods/pod2"]);
    }

    #[test]
    fn nothing_is_uncovered_below_the_root() {
        let owners = BTreeMap::from([(PathBuf::from("/c/a.service"), 1)]);
        assert_eq!(list(&["/c".into()], Vec::new(), owners), []);
    }

    #[test]
    fn our_own_cgroup_is_recognised_below_any_mount() {
        let line = "0::/system.slice/redirector.service";
        assert!(is_at(line, "/host/sys/fs/cgroup/system.slice/redirector.service"));
        assert!(!is_at(line, "/sys/fs/cgroup/system.slice/other.service"));
        assert!(!is_at("0::/", "/sys/fs/cgroup/"), "the namespace hides it");
        assert!(!is_at("1:net_cls:/system.slice", "/sys/fs/cgroup/system.slice"));
    }
}
