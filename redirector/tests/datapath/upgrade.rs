//! Upgrades: a binary with other maps takes over from a serving one, while connects continue.

use std::time::Duration;

use redirector::{
    config::CgroupSpec,
    datapath::{self, Datapath, DatapathError, RouteCounters, Version},
};
use redirector_common::{
    abi,
    names::{self, Role},
};
use testbed::{Rig, customer::BannerServer, topology::LOAD_BALANCERS};

use crate::rig::{Bed, INDEX, PORT, VIP, on_node, put, settings};

/// A newer version, in which the maps `changed` have another layout.
pub(crate) fn newer(by: u32, changed: &[&'static str]) -> Version {
    let abi = abi::ABI + by;
    Version { abi, changed: changed.iter().map(|&name| (name, abi)).collect(), ..Version::own() }
}

pub(crate) fn open(rig: &Rig, version: &Version) -> Result<Datapath, DatapathError> {
    on_node(rig, || Datapath::open_as(&settings(), version))
}

pub(crate) fn attach(rig: &Rig, datapath: &mut Datapath) {
    let attachments =
        on_node(rig, || datapath.attach(&datapath::cgroups(&[CgroupSpec::Auto]).unwrap()).unwrap());
    assert_eq!(
        attachments.iter().map(|at| at.programs.len()).collect::<Vec<_>>(),
        [names::PROGRAMS.len()],
        "{attachments:?}"
    );
}

/// The names in a directory of the node's bpf file system.
pub(crate) fn pinned(rig: &Rig, folder: &str) -> Vec<String> {
    let path = settings().bpffs.join(folder);
    let listed = on_node(rig, || {
        std::fs::read_dir(path)
            .map(|entries| entries.map(|entry| entry.unwrap().file_name()).collect::<Vec<_>>())
    });
    let mut names: Vec<_> =
        listed.unwrap_or_default().into_iter().map(|name| name.into_string().unwrap()).collect();
    names.sort();
    names
}

/// A rig that a binary of version `old` serves, with two servers.
pub(crate) fn served_by(old: &Version) -> (Bed, BannerServer, BannerServer) {
    let (mut bed, one, two) = Bed::with_two_servers();
    on_node(&bed.rig, || datapath::unload(&settings().bpffs)).unwrap();
    bed.datapath = open(&bed.rig, old).unwrap();
    bed.put(&[], &LOAD_BALANCERS);
    attach(&bed.rig, &mut bed.datapath);
    (bed, one, two)
}

/// Upgrades from `old` to `new` under load, and returns the rig and the counters of the load.
fn upgraded_under_load(old: &Version, new: &Version) -> (Bed, [BannerServer; 2], RouteCounters) {
    upgrade_under_load(served_by(old), new)
}

fn upgrade_under_load(
    (mut bed, one, two): (Bed, BannerServer, BannerServer),
    new: &Version,
) -> (Bed, [BannerServer; 2], RouteCounters) {
    let load = bed.load(1000, 3.0, &["one", "two"]);
    std::thread::sleep(Duration::from_millis(500));
    let mut datapath = open(&bed.rig, new).unwrap();
    if datapath.lacks_routes() {
        assert!(datapath.plan().routes.is_empty());
        datapath.apply(&[put(&[], &LOAD_BALANCERS)]).unwrap();
    }
    assert_eq!(datapath.plan(), bed.datapath.plan());
    attach(&bed.rig, &mut datapath);
    bed.datapath = datapath;
    let report = load.report().unwrap();
    assert!(report.flawless(), "{report:?}");
    assert_eq!(bed.rig.customer.leaked_packets().unwrap(), 0);
    assert_eq!(pinned(&bed.rig, "."), [format!("v{}", new.abi)]);
    assert_eq!(pinned(&bed.rig, &format!("v{}/maps", new.abi)).len(), names::MAPS.len());
    let counters = bed.counters();
    (bed, [one, two], counters)
}

#[test]
fn unchanged_maps_are_shared_and_no_count_is_lost() {
    let (bed, _servers, counters) = upgraded_under_load(&Version::own(), &newer(1, &[]));
    assert_eq!((counters.started, counters.established), (3000, 3000), "{counters:?}");
    let backends = bed.datapath.backends(INDEX).unwrap();
    assert_eq!(
        backends.iter().map(|backend| backend.counters.established).sum::<u64>(),
        3000,
        "{backends:?}"
    );
}

#[test]
fn the_counters_of_abi_2_continue_in_abi_3() {
    const NEW: [&str; 5] = [
        names::ROUTE_TIMES,
        names::BACKEND_TIMES,
        names::EVENTS,
        names::EVENT_STATS,
        names::EVENT_BUDGETS,
    ];
    let served = served_by(&Version::own());
    on_node(&served.0.rig, || {
        NEW.map(|name| {
            std::fs::remove_file(settings().bpffs.join(format!("v{}/maps/{name}", abi::ABI)))
                .unwrap()
        })
    });
    let (mut bed, _servers, counters) = upgrade_under_load(served, &newer(1, &[]));
    assert_eq!((counters.started, counters.established), (3000, 3000), "{counters:?}");
    // The older version's programs measured no times; those of the new one do.
    let timed = |counters: &RouteCounters| counters.latency.iter().sum::<u64>();
    assert!(timed(&counters) < 3000, "{counters:?}");
    let mut reader = bed.datapath.take_event_reader().unwrap();
    bed.datapath.set_event_sampling(Some(0)).unwrap();
    assert!(bed.connects(10).flawless());
    assert!(timed(&bed.counters()) >= timed(&counters) + 10, "{:?}", bed.counters());
    assert!(reader.read(1000).len() >= 10);
}

#[test]
fn resized_maps_get_the_routes_health_and_ids() {
    let old =
        Version { extra_entries: vec![(names::SLOTS, 64), (names::HEALTH, 64)], ..Version::own() };
    let (mut bed, _one, two) = served_by(&old);
    drop(two);
    while bed.datapath.unhealthy_backends().unwrap().is_empty() {
        bed.greeting(VIP, PORT);
    }
    let (before, unhealthy) =
        (bed.datapath.backends(INDEX).unwrap(), bed.datapath.unhealthy_backends().unwrap());
    let mut datapath = open(&bed.rig, &newer(1, &[])).unwrap();
    assert!(!datapath.lacks_routes());
    attach(&bed.rig, &mut datapath);
    assert_eq!(
        (datapath.plan(), datapath.unhealthy_backends().unwrap()),
        (bed.datapath.plan(), unhealthy)
    );
    let after = datapath.backends(INDEX).unwrap();
    let counters = |backends: &[datapath::BackendStatus]| {
        backends.iter().map(|at| (at.address, at.counters)).collect::<Vec<_>>()
    };
    assert_eq!(counters(&after), counters(&before));
    // Later connects are counted for the same backends. (The dead one's ejection may have expired.)
    bed.datapath = datapath;
    assert!((0..20).any(|_| bed.greeting(VIP, PORT) == "one"));
    assert_eq!(
        bed.datapath.backends(INDEX).unwrap()[0].counters.established,
        before[0].counters.established + 1
    );
}

#[test]
fn resized_maps_are_upgraded_and_no_connect_fails() {
    let old = Version { extra_entries: vec![(names::SLOTS, 64)], ..Version::own() };
    let (_bed, _servers, counters) = upgraded_under_load(&old, &newer(1, &[]));
    assert_eq!((counters.started, counters.established), (3000, 3000), "{counters:?}");
}

#[test]
fn unreadable_routes_are_served_by_the_old_programs() {
    let new = newer(1, &[names::ROUTES, names::SLOTS]);
    let (_bed, _servers, counters) = upgraded_under_load(&Version::own(), &new);
    // Counters belong to the VIP, and backends have new IDs.
    assert_eq!((counters.started, counters.established), (3000, 3000), "{counters:?}");
}

#[test]
fn old_programs_follow_sockets_with_their_origins() {
    let (mut bed, _one, _two) = Bed::with_two_servers();
    let held = bed.hold();

    let new = newer(1, &[names::ORIGINS]);
    let load = bed.load(1000, 3.0, &["one", "two"]);
    std::thread::sleep(Duration::from_millis(500));
    bed.datapath = open(&bed.rig, &new).unwrap();
    attach(&bed.rig, &mut bed.datapath);
    let report = load.report().unwrap();
    // Also connects whose peer was read between two swaps.
    assert!(report.flawless(), "{report:?}");

    held.assert_peer_and_close();
    let counters = bed.counters();
    assert_eq!((counters.started, counters.established), (3001, 3001), "{counters:?}");
    assert_eq!(counters.closed, 3001, "{counters:?}");

    // The old programs are removed by the next upgrade, or by unload.
    let removed = on_node(&bed.rig, || datapath::unload(&settings().bpffs)).unwrap();
    let followers = names::programs_that(Role::FollowsOrigins).count();
    assert_eq!(removed.links, names::PROGRAMS.len() + followers);
}

#[test]
fn a_newer_versions_pins_are_refused_with_the_remedy() {
    let (bed, _one, _two) = served_by(&newer(1, &[]));
    let refused = open(&bed.rig, &Version::own()).err().expect("refused");
    assert!(
        matches!(
            refused,
            DatapathError::AbiMismatch { found, ours }
                if found == abi::ABI + 1 && ours == abi::ABI
        ),
        "{refused}"
    );
    let message = format!("has ABI {}, this binary has {}", abi::ABI + 1, abi::ABI);
    assert!(
        refused.to_string().contains(&message)
            && refused.to_string().contains("`redirector unload`"),
        "{refused}"
    );
    let inspected =
        on_node(&bed.rig, || datapath::inspect(&settings().bpffs)).expect_err("refused");
    assert_eq!(inspected.to_string(), refused.to_string());
    assert!(bed.connects(10).flawless());
    let removed = on_node(&bed.rig, || datapath::unload(&settings().bpffs)).unwrap();
    assert_eq!((removed.links, removed.maps), (names::PROGRAMS.len(), names::MAPS.len()));
}

#[test]
fn an_upgrade_that_is_never_attached_changes_nothing() {
    let (mut bed, _one, _two) = Bed::with_two_servers();
    let before = bed.datapath.plan();
    drop(open(&bed.rig, &newer(1, &[names::ROUTES])).unwrap());
    assert_eq!(pinned(&bed.rig, "."), [format!("v{}", abi::ABI), format!("v{}-new", abi::ABI + 1)]);
    bed.datapath = crate::rig::attached(&bed.rig);
    assert_eq!(bed.datapath.plan(), before);
    assert!(bed.connects(10).flawless());
    let removed = on_node(&bed.rig, || datapath::unload(&settings().bpffs)).unwrap();
    assert_eq!(removed.links, names::PROGRAMS.len());
    assert!(!on_node(&bed.rig, || settings().bpffs.exists()));
}

#[test]
fn an_older_version_of_another_pool_is_replaced() {
    let (mut bed, _one, _two) = Bed::with_two_servers();
    let pool = redirector::pool::Pool::new("198.19.0.0/16".parse().unwrap(), None, true).unwrap();
    let elsewhere = datapath::Settings { pool, ..settings() };
    bed.datapath = on_node(&bed.rig, || Datapath::open_as(&elsewhere, &newer(1, &[]))).unwrap();
    assert!(bed.connects(10).flawless());
    assert!(bed.datapath.lacks_routes());
    bed.datapath.apply(&[put(&[], &LOAD_BALANCERS)]).unwrap();
    crate::rig::attach(&bed.rig, &mut bed.datapath);
    assert_eq!(bed.greeting("198.19.0.7", PORT).len(), 3);
    assert_eq!(pinned(&bed.rig, "."), [format!("v{}", abi::ABI + 1)]);
}
