//! Which cgroups a preset of `attach.cgroups` attaches to: fixed parents of what comes and goes, so
//! that a job is covered from its first connect.

use std::{
    io,
    path::{Path, PathBuf},
};

use crate::{config::Preset, datapath::attach::globs::expand};

/// Globs below the mount.
#[derive(Debug)]
struct Place {
    /// Where to attach.
    cgroup: &'static str,
    /// What shows that the preset's product uses it; nothing: that it exists.
    shown_by: &'static [&'static str],
}

const fn own(cgroup: &'static str) -> Place {
    Place { cgroup, shown_by: &[] }
}

/// With systemd, containers are `docker-ID.scope` and steps of builds `system.slice:docker:ID`,
/// side by side with all services. `docker pull` and push connect from `docker.service`. Its socket
/// is there before the agent starts at boot, so the place never changes.
const DOCKER_OF_SYSTEMD: Place = Place {
    cgroup: "system.slice",
    shown_by: &[
        "system.slice/docker.socket",
        "system.slice/docker.service",
        "system.slice/docker-*.scope",
        "system.slice/system.slice:docker:*",
        "system.slice/snap.docker.dockerd.service",
    ],
};

/// `machine.slice` has virtual machines, too.
const PODMAN_OF_SYSTEMD: Place =
    Place { cgroup: "machine.slice", shown_by: &["machine.slice/libpod*"] };

/// The kubelet's `--cgroup-root` is `/kubelet` in kind; with systemd the name of a slice repeats
/// that of its parent.
const KUBERNETES: &[Place] =
    &[own("kubepods"), own("kubepods.slice"), own("*/kubepods"), own("*.slice/*-kubepods.slice")];
/// `/docker` is next to the pods' cgroups also for a Docker in a privileged pod. The service of a
/// rootless one has what connects for its containers (RootlessKit, slirp4netns).
const DOCKER: &[Place] = &[
    own("docker"),
    DOCKER_OF_SYSTEMD,
    own("user.slice/user-*.slice/user@*.service/app.slice/docker.service"),
];
/// A user's slices have rootless containers, with what connects for them (pasta, slirp4netns):
/// scopes of those that a command has started, services of Quadlet's.
const PODMAN: &[Place] = &[
    own("libpod_parent"),
    PODMAN_OF_SYSTEMD,
    own("user.slice/user-*.slice/user@*.service/app.slice/podman.service"),
    Place {
        cgroup: "user.slice/user-*.slice/user@*.service/app.slice",
        shown_by: &["user.slice/user-*.slice/user@*.service/app.slice/*.service/libpod-payload-*"],
    },
    Place {
        cgroup: "user.slice/user-*.slice/user@*.service/user.slice",
        shown_by: &[
            "user.slice/user-*.slice/user@*.service/user.slice/libpod*",
            "user.slice/user-*.slice/user@*.service/user.slice/podman*",
        ],
    },
];
const BUILDKIT: &[Place] = &[
    own("buildkit"),
    // Not `buildkite`.
    own("system.slice/buildkit.service"),
    own("system.slice/buildkit-*.service"),
    own("system.slice/buildkitd*.service"),
    own("user.slice/user-*.slice/user@*.service/app.slice/buildkit.service"),
    own("user.slice/user-*.slice/user@*.service/app.slice/buildkit-*.service"),
    own("user.slice/user-*.slice/user@*.service/app.slice/buildkitd*.service"),
    own("docker"),
    DOCKER_OF_SYSTEMD,
];
/// A unit `name@instance.service` is in `system-name.slice`, its dashes written as `\x2d`.
const CI_RUNNERS: &[Place] = &[
    own("system.slice/executor.service"),
    own("system.slice/actions.runner.*.service"),
    own("system.slice/gitlab-runner.service"),
    own("system.slice/buildkite-agent.service"),
    own("system.slice/system-buildkite*agent.slice"),
    own("system.slice/jenkins*.service"),
    own("system.slice/forgejo-runner.service"),
    own("system.slice/act_runner.service"),
    own("system.slice/woodpecker-agent.service"),
    own("system.slice/drone-runner*.service"),
];
const IMAGE_PULLS: &[Place] = &[
    own("system.slice/docker.service"),
    own("system.slice/snap.docker.dockerd.service"),
    own("system.slice/containerd.service"),
    own("system.slice/crio.service"),
    own("system.slice/k3s*.service"),
    own("system.slice/rke2*.service"),
    own("system.slice/k0s*.service"),
    own("system.slice/snap.microk8s.daemon-*.service"),
    own("runtime.slice/containerd.service"),
    own("podruntime.slice/containerd.service"),
];

fn places(preset: Preset) -> &'static [Place] {
    match preset {
        Preset::Kubernetes => KUBERNETES,
        Preset::Docker => DOCKER,
        Preset::Podman => PODMAN,
        Preset::Buildkit => BUILDKIT,
        Preset::CiRunners => CI_RUNNERS,
        Preset::ImagePulls => IMAGE_PULLS,
    }
}

/// Every glob whose matches decide where a preset attaches.
pub(super) fn globs(preset: Preset) -> impl Iterator<Item = &'static str> {
    places(preset).iter().flat_map(|place| place.shown_by.iter().copied().chain([place.cgroup]))
}

/// The directories that a preset attaches to now. Those that `stays` holds for are used even if
/// their product has no container at the moment.
///
/// # Errors
///
/// If it is unknown which there are.
pub(super) fn cgroups(
    preset: Preset,
    mount: &Path,
    stays: &dyn Fn(&Path) -> io::Result<bool>,
) -> io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for place in places(preset) {
        for cgroup in expand(mount, place.cgroup)? {
            if stays(&cgroup)? || is_shown(place, mount, &cgroup)? {
                found.push(cgroup);
            }
        }
    }
    Ok(found)
}

/// Whether the place's product uses this match of its glob.
fn is_shown(place: &Place, mount: &Path, cgroup: &Path) -> io::Result<bool> {
    for glob in place.shown_by {
        if expand(mount, glob)?.iter().any(|at| at.starts_with(cgroup)) {
            return Ok(true);
        }
    }
    Ok(place.shown_by.is_empty())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    /// What each preset attaches to where these folders are, and `stays` was attached before.
    fn decide(folders: &[&str], stays: &[&str]) -> Vec<(&'static str, Vec<String>)> {
        let mount = tempfile::tempdir().expect("a directory");
        for folder in folders {
            fs::create_dir_all(mount.path().join(folder)).expect("made");
        }
        let below = |path: &Path| {
            path.strip_prefix(mount.path()).expect("below").to_str().expect("UTF-8").to_owned()
        };
        let stays = |path: &Path| Ok(stays.contains(&below(path).as_str()));
        Preset::ALL
            .into_iter()
            .map(|preset| (preset.as_str(), cgroups(preset, mount.path(), &stays).expect("known")))
            .filter(|(_, found)| !found.is_empty())
            .map(|(preset, found)| (preset, found.iter().map(|path| below(path)).collect()))
            .collect()
    }

    fn attached(preset: &'static str, cgroup: &str) -> (&'static str, Vec<String>) {
        (preset, vec![cgroup.to_owned()])
    }

    #[test]
    fn pods_are_found_whatever_the_driver_and_distribution() {
        let scope =
            "kubepods-besteffort.slice/kubepods-besteffort-pod1.slice/cri-containerd-2.scope";
        for (folder, parent) in [
            ("kubepods/burstable/pod1/2".to_owned(), "kubepods"),
            (format!("kubepods.slice/{scope}"), "kubepods.slice"),
            ("kubelet/kubepods/burstable/pod1/2".to_owned(), "kubelet/kubepods"),
            (
                format!("kubelet.slice/kubelet-kubepods.slice/{scope}"),
                "kubelet.slice/kubelet-kubepods.slice",
            ),
        ] {
            assert_eq!(decide(&[&folder], &[]), [attached("kubernetes", parent)]);
        }
    }

    #[test]
    fn a_docker_in_a_pod_is_found_next_to_the_pods() {
        assert_eq!(
            decide(&["kubepods/burstable/pod1/2", "docker/3"], &[]),
            [
                attached("kubernetes", "kubepods"),
                attached("docker", "docker"),
                attached("buildkit", "docker")
            ]
        );
    }

    #[test]
    fn on_a_docker_machine_all_services_are_covered_and_stay_so() {
        let services = ["system.slice/cron.service", "user.slice/user-0.slice"];
        assert_eq!(decide(&services, &[]), []);
        for job in ["docker.socket", "docker.service", "docker-1.scope", "system.slice:docker:1"] {
            let job = format!("system.slice/{job}");
            let found = decide(&[&job, services[0]], &[]);
            assert_eq!(
                found[..2],
                [attached("docker", "system.slice"), attached("buildkit", "system.slice")]
            );
        }
        assert_eq!(decide(&services, &["system.slice"])[0], attached("docker", "system.slice"));
    }

    #[test]
    fn rootless_containers_are_covered_with_what_connects_for_them() {
        let user = "user.slice/user-1000.slice/user@1000.service/user.slice";
        let services = "user.slice/user-1000.slice/user@1000.service/app.slice";
        let other = "user.slice/user-1001.slice/user@1001.service/user.slice/x.scope";
        let container = format!("{user}/libpod-1.scope");
        assert_eq!(decide(&[&container, other], &[]), [attached("podman", user)]);
        let quadlet = format!("{services}/web.service/libpod-payload-1");
        assert_eq!(decide(&[&quadlet], &[]), [attached("podman", services)]);
        for (preset, service) in [
            ("podman", "podman.service"),
            ("docker", "docker.service"),
            ("buildkit", "buildkit.service"),
        ] {
            let service = format!("{services}/{service}");
            assert_eq!(
                decide(&[&service, &format!("{services}/x.service")], &[]),
                [attached(preset, &service)]
            );
        }
        assert_eq!(decide(&["machine.slice/qemu-1.scope"], &[]), []);
        assert_eq!(
            decide(&["machine.slice/libpod-1.scope"], &[]),
            [attached("podman", "machine.slice")]
        );
    }

    #[test]
    fn daemons_of_buildkit_are_found_and_buildkite_is_none() {
        for service in ["buildkit", "buildkitd", "buildkitd-rootless", "buildkit-containerd"] {
            let service = format!("system.slice/{service}.service");
            assert_eq!(decide(&[&service], &[]), [attached("buildkit", &service)]);
        }
    }

    #[test]
    fn services_that_run_jobs_or_pull_images_are_found() {
        for service in [
            "actions.runner.acme-web.host1.service",
            "gitlab-runner.service",
            "system-buildkite\\x2dagent.slice",
            "buildkite-agent.service",
            "executor.service",
            "jenkins-agent.service",
            "forgejo-runner.service",
            "act_runner.service",
            "woodpecker-agent.service",
            "drone-runner-exec.service",
        ] {
            let service = format!("system.slice/{service}");
            assert_eq!(decide(&[&service], &[]), [attached("ci-runners", &service)]);
        }
        for service in [
            "system.slice/containerd.service",
            "system.slice/crio.service",
            "system.slice/k3s-agent.service",
            "system.slice/rke2-server.service",
            "system.slice/k0sworker.service",
            "system.slice/snap.microk8s.daemon-containerd.service",
            "runtime.slice/containerd.service",
            "podruntime.slice/containerd.service",
        ] {
            let found = decide(&[service, "runtime.slice/x.service"], &[]);
            assert_eq!(found, [attached("image-pulls", service)]);
        }
    }
}
