//! Pins outlive the process: connects stay redirected, a new process adopts everything, an
//! incompatible one refuses to start, and unload leaves nothing.

use std::{fs, net::IpAddr, path::Path};

use redirector::{
    config::CgroupSpec,
    datapath::{self, DatapathError},
    plan::{Plan, PlannedRoute, diff},
    route::PortPair,
};
use redirector_common::{abi, names};
use testbed::topology::LOAD_BALANCERS;

use crate::rig::{Bed, INDEX, PORT, VIP, attach, attached, on_node, open, put, settings};

#[test]
fn the_next_process_adopts_routes_and_counters() {
    let (mut bed, _one, _two) = Bed::with_two_servers();
    bed.put(&[(PORT, PORT), (80, PORT)], &LOAD_BALANCERS);
    let before = bed.datapath.plan();
    drop(bed.datapath);
    assert_eq!(crate::rig::greeting(bed.executor.sandbox(), VIP, 80).len(), 3);

    let datapath = attached(&bed.rig);
    assert_eq!(datapath.plan(), before);
    assert_eq!(datapath.route_counters(INDEX).unwrap().established, 1);
    assert_eq!(crate::rig::greeting(bed.executor.sandbox(), VIP, 80).len(), 3);
    assert_eq!(datapath.route_counters(INDEX).unwrap().established, 2);
}

#[test]
fn programs_are_swapped_under_load_and_no_connect_fails() {
    let (mut bed, _one, _two) = Bed::with_two_servers();
    let load = bed.load(1000, 4.0, &["one", "two"]);
    for _ in 0..8 {
        bed.datapath = attached(&bed.rig);
        bed.datapath.apply(&[put(&[], &LOAD_BALANCERS)]).unwrap();
    }
    let report = load.report().unwrap();
    assert!(report.flawless(), "{report:?}");
    let counters = bed.counters();
    assert_eq!((counters.started, counters.established), (4000, 4000), "{counters:?}");
    assert_eq!(bed.rig.customer.leaked_packets().unwrap(), 0);
}

#[test]
fn a_connection_keeps_its_peer_across_a_restart() {
    let (bed, _one, _two) = Bed::with_two_servers();
    let held = bed.hold();
    drop(bed.datapath);
    let datapath = attached(&bed.rig);
    held.assert_peer_and_close();
    assert_eq!(datapath.route_counters(INDEX).unwrap().established, 1);
}

#[test]
fn unload_removes_every_pin_and_connects_are_left_alone_again() {
    let (bed, _one, _two) = Bed::with_two_servers();
    drop(bed.datapath);
    let removed = on_node(&bed.rig, || datapath::unload(&settings().bpffs)).unwrap();
    assert_eq!(
        (removed.links, removed.cgroups, removed.maps),
        (names::PROGRAMS.len(), 1, names::MAPS.len())
    );
    assert_eq!(removed.pool.as_deref(), Some("198.18.0.0/16"));
    assert!(!on_node(&bed.rig, || settings().bpffs.exists()));
    assert_eq!(on_node(&bed.rig, || datapath::inspect(&settings().bpffs)).unwrap(), None);
    bed.rig
        .node
        .sandbox()
        .run("ip route add unreachable 198.18.0.0/16", crate::rig::LIMIT)
        .unwrap()
        .success()
        .unwrap();
    assert_eq!(crate::rig::greeting(bed.executor.sandbox(), VIP, PORT), "EHOSTUNREACH");
}

#[test]
fn the_pins_contain_routes_counters_and_attachments() {
    let (mut bed, _one, _two) = Bed::with_two_servers();
    bed.datapath.heartbeat().unwrap();
    assert!(bed.connects(10).flawless());
    drop(bed.datapath);
    let status = on_node(&bed.rig, || datapath::inspect(&settings().bpffs)).unwrap().expect("pins");
    assert_eq!(
        (status.abi, status.pool.as_str(), status.agent_pid),
        (abi::ABI, "198.18.0.0/16", std::process::id())
    );
    assert!(status.heartbeat_age.is_some());
    assert_eq!(status.attachments.len(), 1);
    assert_eq!(status.attachments[0].cgroup.as_deref(), Some(Path::new("/sys/fs/cgroup/kubepods")));
    assert_eq!(status.routes.len(), 1);
    assert_eq!(status.routes[0].vip.to_string(), VIP);
    let addresses: Vec<IpAddr> =
        status.routes[0].backends.iter().map(|backend| backend.address).collect();
    assert_eq!(addresses, LOAD_BALANCERS.map(IpAddr::from));
    assert_eq!(status.routes[0].counters.established, 10);
}

#[test]
fn another_abi_is_refused_and_changes_nothing() {
    let (bed, _one, _two) = Bed::with_two_servers();
    on_node(&bed.rig, || fs::create_dir_all("/sys/fs/bpf/redirector/v999/maps").unwrap());
    let other = open(&bed.rig).err().expect("refused");
    assert!(matches!(other, DatapathError::AbiMismatch { found: 999, ours: abi::ABI }), "{other}");
    assert!(bed.connects(10).flawless());
}

#[test]
fn a_pool_full_of_routes_is_adopted_and_each_change_stays_small() {
    let (mut bed, _one, _two) = Bed::with_two_servers();
    // Every route with two backends: those of two routes are servers, the others have their own.
    let route = |index: u32, third: u8| {
        let [_, _, high, low] = index.to_be_bytes();
        let own = [1, 2].map(|first| IpAddr::from([10 + first, third, high, low])).to_vec();
        PlannedRoute {
            ports: vec![PortPair { client: PORT, destination: PORT }],
            backends: Some(if [INDEX, 65_535].contains(&index) {
                LOAD_BALANCERS.map(IpAddr::from).to_vec()
            } else {
                own
            }),
            ..PlannedRoute::default()
        }
    };
    let plan = |third: u8| Plan {
        routes: (0..65_536).map(|index| (index, route(index, third))).collect(),
    };
    // The second time every block and every backend is replaced, so freed ones must be reused.
    for third in [1, 2] {
        let before = bed.datapath.plan();
        bed.datapath.apply(&diff(&before, &plan(third))).unwrap();
        assert_eq!(bed.datapath.plan(), plan(third));
    }
    // A new process reads all of them back from the kernel.
    bed.datapath = open(&bed.rig).unwrap();
    assert_eq!(bed.datapath.plan(), plan(2));
    attach(&bed.rig, &mut bed.datapath);
    assert_eq!(bed.greeting("198.18.255.255", PORT).len(), 3);
    assert!(bed.connects(100).flawless());
}

#[test]
fn preflight_finds_nothing_wrong_on_a_node_that_works() {
    let bed = Bed::new();
    let checks = on_node(&bed.rig, || datapath::preflight(&settings(), &[CgroupSpec::Auto]));
    let wrong: Vec<_> =
        checks.iter().filter(|check| check.outcome == datapath::Outcome::Failed).collect();
    assert!(wrong.is_empty(), "{wrong:?}");
    let programs = names::PROGRAMS.len() + names::PACKET_PROGRAMS.len();
    let loaded = format!("{programs} load");
    assert!(
        checks.iter().any(|check| check.name == "programs" && check.detail.starts_with(&loaded)),
        "{checks:?}"
    );
}

/// The verifier's limit is a million; kernels count differently, so there must be a margin.
const MAX_INSTRUCTIONS: u32 = 400_000;

#[test]
fn the_verifiers_work_stays_far_below_its_limit() {
    let bed = Bed::new();
    let programs = bed.datapath.status().programs;
    for program in &programs {
        println!(
            "{}: {:?} instructions verified, {} bytes of machine code",
            program.name, program.verified_instructions, program.jited_bytes
        );
        assert!(program.verified_instructions.unwrap_or(0) < MAX_INSTRUCTIONS, "{programs:#?}");
    }
}
