//! Another pool takes over from the former one: nothing is shared, and the former one's virtual
//! addresses are served beside the new ones for a time.

use std::time::Duration;

use redirector::{
    datapath::{self, Datapath, Preloaded, Settings},
    pool::Pool,
};
use redirector_common::abi;
use testbed::topology::LOAD_BALANCERS;

use crate::rig::{Bed, PORT, VIP, attach, attached, on_node, put, settings};

const NEW_VIP: &str = "198.19.0.7";

fn other_pool(ipv4: &str, ipv6: &str) -> Settings {
    let pool = Pool::new(ipv4.parse().unwrap(), Some(ipv6.parse().unwrap()), true).unwrap();
    Settings { pool, ..settings() }
}

fn pinned(bed: &Bed) -> Vec<String> {
    let listed = bed.rig.node.sandbox().run("ls /sys/fs/bpf/redirector", crate::rig::LIMIT);
    listed.unwrap().stdout.lines().map(str::to_owned).collect()
}

/// What a new connect gets, and its peer.
fn peer(bed: &Bed, vip: &str) -> String {
    let script = format!(
        "import socket; s = socket.create_connection(('{vip}', {PORT}), 5); \
            print(s.getpeername()[0])"
    );
    bed.python(&script).trim().to_owned()
}

fn changed(bed: &Bed, settings: &Settings) -> Datapath {
    let mut datapath = on_node(&bed.rig, || Datapath::open(settings)).unwrap();
    assert!(datapath.lacks_routes(), "the plan comes first");
    assert!(datapath.plan().routes.is_empty());
    datapath.apply(&[put(&[], &LOAD_BALANCERS)]).unwrap();
    attach(&bed.rig, &mut datapath);
    datapath
}

/// Reads the pins, so it has to be on the node.
fn former_pools(bed: &Bed) -> Vec<String> {
    let pools = on_node(&bed.rig, || bed.datapath.former_pools());
    pools.iter().map(ToString::to_string).collect()
}

fn retire(bed: &mut Bed, max_age: Duration) -> usize {
    on_node(&bed.rig, || bed.datapath.retire_former_pools(max_age)).unwrap().len()
}

#[test]
fn both_pools_are_served_until_the_former_one_retires() {
    let (mut bed, _one, _two) = Bed::with_two_servers();
    let load = bed.load(500, 6.0, &["one", "two"]);
    let held = bed.hold();

    // The time begins with the last heartbeat.
    bed.datapath.heartbeat().unwrap();
    bed.datapath = changed(&bed, &other_pool("198.19.0.0/16", "fd00:19::/112"));
    assert_eq!((peer(&bed, NEW_VIP).as_str(), peer(&bed, VIP).as_str()), (NEW_VIP, VIP));
    assert_eq!(bed.counters().established, 1, "the former pool has its own counters");
    held.assert_peer_and_close();
    let report = load.report().unwrap();
    assert!(report.flawless(), "{report:?}");

    let current = format!("v{}", abi::ABI);
    assert_eq!(pinned(&bed), [current.clone(), format!("{current}-former1")]);
    assert_eq!(former_pools(&bed), ["198.18.0.0/16", "fd00:18::/112"]);
    assert_eq!(retire(&mut bed, Duration::from_hours(1)), 0);

    // The next agent keeps it, too, and the time is over some day.
    let other = other_pool("198.19.0.0/16", "fd00:19::/112");
    bed.datapath = on_node(&bed.rig, || Datapath::open(&other)).unwrap();
    attach(&bed.rig, &mut bed.datapath);
    assert_eq!((peer(&bed, NEW_VIP).as_str(), peer(&bed, VIP).as_str()), (NEW_VIP, VIP));
    assert_eq!(former_pools(&bed).len(), 2);
    assert_eq!(retire(&mut bed, Duration::ZERO), 2);
    assert_eq!(pinned(&bed), [current]);
    assert_eq!(peer(&bed, NEW_VIP), NEW_VIP);
    assert_eq!(former_pools(&bed), [""; 0]);
    let removed = on_node(&bed.rig, || datapath::unload(&settings().bpffs)).unwrap();
    assert_eq!((removed.pool.as_deref(), removed.former_pools), (Some("198.19.0.0/16"), vec![]));
}

#[test]
fn a_pool_that_returns_takes_its_programs_over() {
    let (mut bed, _one, _two) = Bed::with_two_servers();
    bed.datapath = changed(&bed, &other_pool("198.19.0.0/16", "fd00:19::/112"));
    let load = bed.load(500, 4.0, &["one", "two"]);
    bed.datapath = changed(&bed, &settings());
    assert_eq!((peer(&bed, NEW_VIP).as_str(), peer(&bed, VIP).as_str()), (NEW_VIP, VIP));
    let report = load.report().unwrap();
    assert!(report.flawless(), "{report:?}");
    let current = format!("v{}", abi::ABI);
    assert_eq!(pinned(&bed), [current.clone(), format!("{current}-former2")]);
    let removed = on_node(&bed.rig, || datapath::unload(&settings().bpffs)).unwrap();
    assert_eq!(removed.former_pools, ["198.19.0.0/16", "fd00:19::/112"]);
    assert_eq!(pinned(&bed), Vec::<String>::new());
}

#[test]
fn a_part_of_the_pool_takes_over_at_once() {
    let (mut bed, _one, _two) = Bed::with_two_servers();
    bed.datapath = changed(&bed, &other_pool("198.18.0.0/24", "fd00:18::/120"));
    assert_eq!(peer(&bed, VIP), VIP);
    assert_eq!(former_pools(&bed), [""; 0]);
    assert_eq!(pinned(&bed), [format!("v{}", abi::ABI)]);
}

#[test]
fn another_pool_that_is_never_attached_changes_nothing() {
    let (mut bed, _one, _two) = Bed::with_two_servers();
    let before = bed.datapath.plan();
    let other = other_pool("198.19.0.0/16", "fd00:19::/112");
    // A standby has nothing to load in advance.
    assert!(on_node(&bed.rig, || Preloaded::load(&other).unwrap().is_none()));
    assert!(on_node(&bed.rig, || Preloaded::load(&settings()).unwrap().is_some()));
    drop(on_node(&bed.rig, || Datapath::open(&other)).unwrap());
    assert!(bed.connects(10).flawless());
    let current = format!("v{}", abi::ABI);
    assert_eq!(pinned(&bed), [current.clone(), format!("{current}-new")]);
    on_node(&bed.rig, || datapath::discard_prepared(&settings().bpffs)).unwrap();
    assert_eq!(pinned(&bed), [current.as_str()]);

    // An agent that was killed between the two steps of the commit.
    let line = format!("cd /sys/fs/bpf/redirector && mv {current} {current}-former1");
    bed.rig.node.sandbox().run(&line, crate::rig::LIMIT).unwrap().success().unwrap();
    bed.datapath = attached(&bed.rig);
    assert_eq!(bed.datapath.plan(), before);
    assert_eq!(pinned(&bed), [current]);
    assert!(bed.connects(10).flawless());
}
