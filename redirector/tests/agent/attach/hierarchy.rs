//! Other cgroup2 mounts: next to version 1, or at another path.

use std::{fs, os::unix::fs::PermissionsExt as _, path::Path};

use rustix::mount::{MountFlags, UnmountFlags, mount, mount_bind, mount_move, unmount};
use testbed::{
    Rig,
    agent::AgentOptions,
    topology::{INTERNAL_NAME, RESOLVER_ADDRESS},
};

use crate::{
    attach::cgroups::{await_attached, greets, on_node},
    rig::{Job, binary},
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

/// Starts the agent in a cgroup namespace of its own, as a container runtime does by default.
const CONFINE: &str = "#!/bin/sh
exec unshare --cgroup --mount /bin/sh -c 'while umount -l /sys/fs/cgroup 2>/dev/null; do :; done
mount -t cgroup2 none /sys/fs/cgroup && exec \"$@\"' sh ";

/// The agent sees no cgroup but its own: it reports that, and serves that one, by packet too,
/// although it can't know the cgroup's level.
#[test]
fn a_private_cgroup_namespace_is_reported_and_its_cgroup_served() {
    let config = format!(
        "[dns]\nlisten = []\nintercept = \"packets\"\n[[routes]]\nsource = \"{INTERNAL_NAME}\"\n\
         destination = \"203.0.113.7\"\n"
    );
    let job = Job::launched(|rig| {
        let script = rig.files().join("confine");
        let text = format!("{CONFINE}{} \"$@\"\n", binary().display());
        fs::write(&script, text).unwrap();
        fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
        AgentOptions { capabilities: None, ..AgentOptions::with_config(&script, &config) }
    });
    let status = job.json(&["status"]);
    let problems = status["problems"].as_array().unwrap();
    let problem = problems.iter().find(|problem| problem["code"] == "cgroups_hidden");
    assert!(problem.is_some_and(|problem| problem["remedy"].is_string()), "{status}");
    // This command is in the agent's cgroup, and in the node's namespace.
    let resolver = job.rig.customer.resolver().unwrap();
    let asked = format!("dig +short +time=5 +tries=1 @{RESOLVER_ADDRESS} {INTERNAL_NAME}");
    let answer = job.on_node(&asked);
    assert!(answer.starts_with("198.18."), "{answer}\n{}", job.agent.log_tail());
    assert_eq!(resolver.times_asked(INTERNAL_NAME), 0);
    let row = |checks: serde_json::Value| {
        let all = checks["checks"].as_array().unwrap().clone();
        all.into_iter().find(|check| check["name"] == "cgroup2").unwrap()
    };
    assert_eq!(row(job.json(&["check"]))["outcome"], "ok");
    let script = job.rig.files().join("confine");
    let confined = job.rig.node.cli_json(&script, &["check"]).unwrap();
    let confined = row(confined);
    assert_eq!(confined["outcome"], "warning", "{confined}");
    assert!(confined["detail"].as_str().unwrap().contains("namespace hides"), "{confined}");
}
