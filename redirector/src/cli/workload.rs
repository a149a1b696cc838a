//! The pod and the container of a cgroup, by its path.

use std::path::Path;

use crate::datapath::pod_uid;

/// Characters of an ID that are shown, as `docker ps` and `crictl ps` do.
const SHORT_ID: usize = 12;

/// The names that container runtimes put before a container's ID in the name of its scope.
const RUNTIMES: [&str; 5] = ["cri-containerd-", "crio-", "docker-", "libpod-", "containerd-"];

/// `pod UID/container ID`, `container ID`; none for a cgroup of neither.
pub(super) fn workload(cgroup: &Path) -> Option<String> {
    let parts = || cgroup.iter().filter_map(|part| part.to_str());
    let pod = parts().filter_map(pod_uid).next_back();
    let container = parts().filter_map(container_id).next_back();
    match (pod, container) {
        (Some(pod), Some(container)) => Some(format!("pod {pod}/{container}")),
        (Some(pod), None) => Some(format!("pod {pod}")),
        (None, Some(container)) => Some(format!("container {container}")),
        (None, None) => None,
    }
}

/// The beginning of the 64 hexadecimal digits that name a container.
fn container_id(part: &str) -> Option<&str> {
    let name = part.strip_suffix(".scope").unwrap_or(part);
    let id = RUNTIMES.iter().find_map(|runtime| name.strip_prefix(runtime)).unwrap_or(name);
    let is_id = id.len() == 64 && id.bytes().all(|b| b.is_ascii_hexdigit());
    is_id.then(|| &id[..SHORT_ID])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pods_and_containers_are_found_in_the_paths_of_every_runtime() {
        const UID: &str = "0f3a7c52-9d1e-4b6a-8c2f-7e5d4a3b2c1d";
        let id = "9f8e7d6c5b4a".repeat(6)[..64].to_owned();
        let slice = UID.replace('-', "_");
        let of = |path: String| workload(Path::new(&path));
        let both = Some(format!("pod {UID}/9f8e7d6c5b4a"));
        for path in [
            format!("/sys/fs/cgroup/kubepods/burstable/pod{UID}/{id}"),
            format!(
                "/sys/fs/cgroup/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-\
                    pod{slice}.slice/cri-containerd-{id}.scope"
            ),
            format!("/kubepods.slice/kubepods-pod{slice}.slice/crio-{id}.scope/init"),
        ] {
            assert_eq!(of(path.clone()), both, "{path}");
        }
        let container = Some("container 9f8e7d6c5b4a".to_owned());
        assert_eq!(of(format!("/sys/fs/cgroup/system.slice/docker-{id}.scope")), container);
        assert_eq!(of(format!("/sys/fs/cgroup/docker/{id}")), container);
        assert_eq!(of(format!("/machine.slice/libpod-{id}.scope/container")), container);
        assert_eq!(of(format!("/kubepods/pod{UID}")), Some(format!("pod {UID}")));
        for path in ["/sys/fs/cgroup/kubepods/podjob", "/system.slice/podman.service", "/"] {
            assert_eq!(of(path.into()), None, "{path}");
        }
    }
}
