//! Which cgroups match `auto`, a path or a glob, as they are created and removed.

use std::fs;

use redirector::{
    config::CgroupSpec,
    datapath::{self, DatapathError},
};
use testbed::{ExecutorOptions, topology::LOAD_BALANCERS};

use crate::rig::{Bed, PORT, VIP, greeting, on_node};

fn paths(bed: &Bed, specs: &[CgroupSpec]) -> Vec<String> {
    let found = on_node(&bed.rig, || datapath::cgroups(specs)).unwrap();
    found.iter().map(|cgroup| cgroup.path.display().to_string()).collect()
}

fn pattern(text: &str) -> CgroupSpec {
    CgroupSpec::Pattern(text.into())
}

#[test]
fn auto_matches_the_container_runtimes_or_else_the_root() {
    let bed = Bed::new();
    assert_eq!(paths(&bed, &[CgroupSpec::Auto]), ["/sys/fs/cgroup/kubepods"]);
    on_node(&bed.rig, || {
        fs::create_dir_all("/sys/fs/cgroup/system.slice/docker-0a1b.scope").unwrap()
    });
    let mut found = paths(&bed, &[CgroupSpec::Auto]);
    found.sort();
    assert_eq!(found, ["/sys/fs/cgroup/kubepods", "/sys/fs/cgroup/system.slice"]);
    on_node(&bed.rig, || {
        fs::remove_dir("/sys/fs/cgroup/system.slice/docker-0a1b.scope").unwrap();
        fs::remove_dir("/sys/fs/cgroup/kubepods/podjob").unwrap();
        fs::remove_dir("/sys/fs/cgroup/kubepods").unwrap();
    });
    assert_eq!(paths(&bed, &[CgroupSpec::Auto]), ["/sys/fs/cgroup"]);
}

#[test]
fn a_path_must_exist_and_a_glob_may_match_later() {
    let bed = Bed::new();
    assert_eq!(paths(&bed, &[pattern("kubepods/pod*")]), ["/sys/fs/cgroup/kubepods/podjob"]);
    assert_eq!(paths(&bed, &[pattern("/sys/fs/cgroup/kubepods")]), ["/sys/fs/cgroup/kubepods"]);
    assert!(paths(&bed, &[pattern("nothing-*")]).is_empty());
    let missing =
        on_node(&bed.rig, || datapath::cgroups(&[pattern("nothing")])).expect_err("not there");
    assert!(
        matches!(missing, DatapathError::Cgroup { .. }) && missing.is_configuration(),
        "{missing}"
    );
}

#[test]
fn unlisted_cgroups_are_detached_and_new_ones_attached() {
    let (mut bed, _one, _two) = Bed::with_two_servers();
    let other = bed
        .rig
        .executor(ExecutorOptions {
            cgroup: Some("docker/job".into()),
            ..ExecutorOptions::pod("docker")
        })
        .unwrap();
    bed.rig
        .node
        .sandbox()
        .run("ip route add unreachable 198.18.0.0/16", crate::rig::LIMIT)
        .unwrap()
        .success()
        .unwrap();
    assert_eq!(
        (bed.greeting(VIP, PORT).len(), greeting(other.sandbox(), VIP, PORT).as_str()),
        (3, "EHOSTUNREACH")
    );
    let Bed { datapath, executor, rig } = &mut bed;
    let attach = |datapath: &mut datapath::Datapath, spec: &str| {
        on_node(rig, || datapath.attach(&datapath::cgroups(&[pattern(spec)]).unwrap()).unwrap())
    };
    let attachments = attach(datapath, "docker");
    assert_eq!(attachments.len(), 1, "{attachments:?}");
    assert_eq!(greeting(executor.sandbox(), VIP, PORT), "EHOSTUNREACH");
    assert_eq!(greeting(other.sandbox(), VIP, PORT).len(), 3);
}

#[test]
fn a_removed_cgroup_leaves_no_link_behind() {
    let (mut bed, _one, _two) = Bed::with_two_servers();
    let Bed { datapath, rig, .. } = &mut bed;
    on_node(rig, || {
        fs::create_dir("/sys/fs/cgroup/gone").unwrap();
        let specs = [pattern("gone*"), CgroupSpec::Auto];
        assert_eq!(datapath.attach(&datapath::cgroups(&specs).unwrap()).unwrap().len(), 2);
        fs::remove_dir("/sys/fs/cgroup/gone").unwrap();
        assert_eq!(datapath.attach(&datapath::cgroups(&specs).unwrap()).unwrap().len(), 1);
    });
    assert_eq!(bed.greeting(VIP, PORT).len(), 3);
}

#[test]
fn attached_above_and_below_a_connect_is_redirected_once() {
    let (mut bed, _one, _two) = Bed::with_two_servers();
    let Bed { datapath, rig, .. } = &mut bed;
    on_node(rig, || {
        let nested = [pattern("kubepods"), pattern("kubepods/podjob")];
        assert_eq!(datapath::cgroups(&nested).unwrap().len(), 1, "the upper one covers the other");
        let both: Vec<_> = nested
            .iter()
            .flat_map(|spec| datapath::cgroups(std::slice::from_ref(spec)).unwrap())
            .collect();
        assert_eq!(datapath.attach(&both).unwrap().len(), 2);
    });
    assert!(bed.connects(100).flawless());
    let counters = bed.counters();
    assert_eq!((counters.started, counters.established), (100, 100), "{counters:?}");
    assert_eq!(bed.datapath.backends(crate::rig::INDEX).unwrap().len(), LOAD_BALANCERS.len());
}
