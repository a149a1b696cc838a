//! Other cgroup2 mounts: next to version 1, or at another path.

use std::{fs, path::Path};

use rustix::mount::{MountFlags, UnmountFlags, mount, mount_bind, mount_move, unmount};
use testbed::{Rig, topology::INTERNAL_NAME};

use crate::{
    attach::cgroups::{await_attached, greets, on_node},
    rig::Job,
};

fn config(cgroups: &str) -> String {
    format!(
        "[attach]\ncgroups = {cgroups}\ninterfaces = \"off\"\n[[routes]]\nsource = \
            \"{INTERNAL_NAME}\"\ndestination = \"artifactory.public.company.net\"\n"
    )
}

/// Runs `action` in the namespaces of the rig's node.
fn on_the_node_of(rig: &Rig, action: impl FnOnce() + Send) {
    rig.node.sandbox().namespaces().run(action).unwrap();
}

fn mounted(job: &Job) -> String {
    let status = job.cli(&["status"]).stdout;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("cgroup2"))
        .unwrap_or_else(|| panic!("no mount in {status}"));
    assert_eq!(job.json(&["status"])["datapath"]["cgroup2_mount"], line.trim());
    line.trim().to_owned()
}

fn attached_to(job: &Job) -> Vec<String> {
    let status = job.json(&["status"]);
    let attachments = status["datapath"]["attachments"].as_array().unwrap().iter();
    attachments.map(|at| at["cgroup"].as_str().unwrap().to_owned()).collect()
}

/// As systemd lays it out without `systemd.unified_cgroup_hierarchy`: a tmpfs with a folder for
/// each hierarchy, cgroup2 at `unified`.
fn make_hybrid() {
    let (hybrid, flags) = (Path::new("/run/hybrid"), MountFlags::empty());
    fs::create_dir(hybrid).unwrap();
    mount("tmpfs", hybrid, "tmpfs", flags, None).unwrap();
    for folder in ["unified", "named"] {
        fs::create_dir(hybrid.join(folder)).unwrap();
    }
    mount("cgroup", hybrid.join("named"), "cgroup", flags, c"none,name=redirector-test").unwrap();
    mount_bind("/sys/fs/cgroup", hybrid.join("unified")).unwrap();
    unmount("/sys/fs/cgroup", UnmountFlags::DETACH).unwrap();
    mount_move(hybrid, "/sys/fs/cgroup").unwrap();
}

#[test]
fn on_a_hybrid_host_patterns_match_the_unified_hierarchy() {
    for (cgroups, expected) in [
        ("[\"auto\"]", "/sys/fs/cgroup/unified/kubepods"),
        ("[\"kubepods/pod*\"]", "/sys/fs/cgroup/unified/kubepods/podjob"),
        ("[\"/sys/fs/cgroup/unified/kubepods\"]", "/sys/fs/cgroup/unified/kubepods"),
    ] {
        let job = Job::prepared(&config(cgroups), |rig| on_the_node_of(rig, make_hybrid));
        assert_eq!(
            (mounted(&job).as_str(), attached_to(&job)),
            ("/sys/fs/cgroup/unified", vec![expected.to_owned()])
        );
        assert!(greets(job.executor.sandbox()) && !greets(job.executor.outside()), "{cgroups}");
    }
}

#[test]
fn on_a_hybrid_host_only_unified_cgroups_are_attached() {
    let job = Job::prepared(&config("[\"jobs/*\"]"), |rig| on_the_node_of(rig, make_hybrid));
    on_node(&job, || {
        fs::create_dir_all("/sys/fs/cgroup/named/jobs/other").unwrap();
        fs::create_dir_all("/sys/fs/cgroup/unified/jobs/one").unwrap();
    });
    await_attached(&job, 1);
    assert_eq!(attached_to(&job), ["/sys/fs/cgroup/unified/jobs/one"]);
    assert!(greets(&job.executor.beside("jobs/one").unwrap()));
    on_node(&job, || {
        fs::remove_dir("/sys/fs/cgroup/named/jobs/other").unwrap();
        fs::remove_dir("/sys/fs/cgroup/named/jobs").unwrap();
    });
}

#[test]
fn the_only_mount_is_used_wherever_it_is() {
    let elsewhere = "/run/cgroups of the host";
    let job = Job::prepared(&config("[\"auto\"]"), |rig| {
        on_the_node_of(rig, || {
            fs::create_dir(elsewhere).unwrap();
            mount_bind("/sys/fs/cgroup", elsewhere).unwrap();
            unmount("/sys/fs/cgroup", UnmountFlags::DETACH).unwrap();
        });
    });
    assert_eq!(
        (mounted(&job), attached_to(&job)),
        (elsewhere.to_owned(), vec![format!("{elsewhere}/kubepods")])
    );
    assert!(greets(job.executor.sandbox()) && !greets(job.executor.outside()));
}

/// As in a pod with its own view of the hierarchy at the usual path and the whole one at another.
/// The patterns name only this rig's cgroups: the real root has those of other rigs, too.
#[test]
fn a_mount_of_the_real_root_is_preferred() {
    let mount_root = || {
        fs::create_dir("/run/host-cgroup").unwrap();
        mount("cgroup2", "/run/host-cgroup", "cgroup2", MountFlags::empty(), None).unwrap();
    };
    let mut job = Job::prepared(&config("[\"nothing-*\"]"), |rig| on_the_node_of(rig, mount_root));
    // The node's root below the real one: the agent's cgroup is two levels deeper.
    let agents = fs::read_to_string(format!("/proc/{}/cgroup", job.agent.pid())).unwrap();
    let agents = agents.lines().find_map(|line| line.strip_prefix("0::/")).unwrap();
    let below = Path::new(agents).ancestors().nth(2).unwrap().display().to_string();
    job.agent
        .write_config(&config(&format!("[\"{below}/kubepods\", \"{below}/jobs/*\"]")))
        .unwrap();
    job.agent.sighup().unwrap();
    await_attached(&job, 1);
    assert_eq!(mounted(&job), "/run/host-cgroup");
    assert_eq!(attached_to(&job), [format!("/run/host-cgroup/{below}/kubepods")]);
    assert!(greets(job.executor.sandbox()) && !greets(job.executor.outside()));
    // Created through the other mount.
    on_node(&job, || fs::create_dir_all("/sys/fs/cgroup/jobs/one").unwrap());
    await_attached(&job, 2);
    assert!(greets(&job.executor.beside("jobs/one").unwrap()));
}
