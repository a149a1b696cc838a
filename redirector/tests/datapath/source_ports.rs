//! Source ports that are used up towards one backend, while another has room.

use std::net::{IpAddr, SocketAddr};

use redirector::{
    datapath::{DenyReason, EventKind},
    plan::{Change, PlannedRoute},
};
use testbed::{Executor, ExecutorOptions, customer::Ending, process, topology::LOAD_BALANCERS};

use crate::rig::{Bed, INDEX, LIMIT, PORT, VIP, python};

/// The errno EADDRNOTAVAIL.
const NO_PORT: &str = "99";

const PORT_RANGE: &str = "/proc/sys/net/ipv4/ip_local_port_range";

/// A bed with two backends and four source ports; with the executor's address as the route's
/// source, or without one.
fn bed_with_four_ports(has_source: bool) -> Bed {
    let mut bed = Bed::new();
    limit_ports(&bed.executor);
    let backends = Some(LOAD_BALANCERS.map(IpAddr::from).to_vec());
    let sources = if has_source { vec![own_address(&bed)] } else { Vec::new() };
    let route = PlannedRoute { backends, sources, ..PlannedRoute::default() };
    bed.datapath.apply(&[Change::Put { index: INDEX, route }]).unwrap();
    bed
}

fn limit_ports(executor: &Executor) {
    let namespaces = executor.sandbox().namespaces();
    namespaces.run(|| std::fs::write(PORT_RANGE, "40000 40003")).unwrap().unwrap();
}

/// The address from which the executor connects to the first backend.
fn own_address(bed: &Bed) -> IpAddr {
    let script = format!(
        "import socket\n\
         s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.connect(('{}', 9))\n\
         print(s.getsockname()[0])",
        LOAD_BALANCERS[0]
    );
    bed.python(&script).trim().parse().unwrap()
}

/// Opens `held` connections to the first backend, then connects `number` times to the VIP while
/// they are open. What each connect gets: `ok` or its errno.
fn connect(executor: &Executor, held: u32, number: u32, family: &str) -> Vec<String> {
    let address = if family == "AF_INET6" { format!("::ffff:{VIP}") } else { VIP.to_owned() };
    let script = format!(
        "import socket\n\
         held = [socket.create_connection(('{}', {PORT}), 10) for n in range({held})]\n\
         for n in range({number}):\n\
         \x20with socket.socket(socket.{family}) as s:\n\
         \x20\x20try: s.connect(('{address}', {PORT})); s.makefile().read(); print('ok')\n\
         \x20\x20except OSError as e: print(e.errno)",
        LOAD_BALANCERS[0]
    );
    python(executor, &script).lines().map(ToOwned::to_owned).collect()
}

/// After a connect that found no source port, the next one goes to the other backend.
fn assert_others_are_used(has_source: bool, family: &str) {
    let mut bed = bed_with_four_ports(has_source);
    let first = SocketAddr::from((LOAD_BALANCERS[0], PORT));
    let _one = bed.rig.customer.abrupt_server(first, Ending::Wait).unwrap();
    let _two = bed.server(1, "two");
    bed.datapath.set_event_sampling(Some(0)).unwrap();
    let mut reader = bed.datapath.take_event_reader().expect("the first call");
    let began = std::time::Instant::now();
    let outcomes = connect(&bed.executor, 4, 40, family);
    // One at first, and one more after each of 1, 2, 4 … s.
    let most = 3 + began.elapsed().as_secs().max(1).ilog2() as usize;
    let failed = outcomes.iter().filter(|outcome| *outcome != "ok").count();
    assert!((1..=most).contains(&failed) && outcomes.len() == 40, "{outcomes:?}");
    assert!(outcomes.iter().all(|outcome| outcome == "ok" || outcome == NO_PORT), "{outcomes:?}");
    let repeated = outcomes.windows(2).any(|pair| pair[0] == NO_PORT && pair[1] == NO_PORT);
    assert!(!repeated, "{outcomes:?}");
    let counters = bed.counters();
    assert_eq!((counters.unsent, counters.started), (failed as u64, 40), "{counters:?}");
    let unhealthy = bed.datapath.unhealthy_backends().unwrap();
    assert_eq!((unhealthy.len(), unhealthy[0].address), (1, LOAD_BALANCERS[0].into()));
    assert!(unhealthy[0].client.is_some(), "for its own cgroup only");
    let unsent = reader.read(1000).into_iter().filter(|event| event.kind == EventKind::Unsent);
    let reasons: Vec<_> = unsent.map(|event| event.reason).collect();
    assert_eq!(reasons, vec![Some(DenyReason::NoSourcePort); failed]);
}

#[test]
fn without_a_source_port_the_other_backend_is_used() {
    assert_others_are_used(false, "AF_INET");
}

#[test]
fn without_a_port_of_a_routes_source_the_other_is_used() {
    assert_others_are_used(true, "AF_INET");
    assert_others_are_used(true, "AF_INET6");
}

/// It is no evidence of the network, so nobody agrees with anybody.
#[test]
fn two_clients_without_ports_eject_a_backend_for_nobody_else() {
    let mut bed = bed_with_four_ports(false);
    let first = SocketAddr::from((LOAD_BALANCERS[0], PORT));
    let _one = bed.rig.customer.abrupt_server(first, Ending::Wait).unwrap();
    let _two = bed.server(1, "two");
    let other = bed.rig.executor(ExecutorOptions::pod("other")).unwrap();
    limit_ports(&other);
    for executor in [&bed.executor, &other] {
        let outcomes = connect(executor, 4, 40, "AF_INET");
        assert!(outcomes.iter().any(|outcome| outcome == NO_PORT), "{outcomes:?}");
    }
    let unhealthy = bed.datapath.unhealthy_backends().unwrap();
    assert_eq!((unhealthy.len(), unhealthy[0].address), (1, LOAD_BALANCERS[0].into()));
    assert!(unhealthy[0].client.is_some(), "{unhealthy:?}");
}

#[test]
fn a_missing_route_is_no_missing_port() {
    let mut bed = bed_with_four_ports(false);
    bed.datapath.set_event_sampling(Some(0)).unwrap();
    let mut reader = bed.datapath.take_event_reader().expect("the first call");
    bed.run("ip route del default").success().unwrap();
    assert_eq!(connect(&bed.executor, 0, 3, "AF_INET"), ["101"; 3]);
    assert_eq!(bed.datapath.unhealthy_backends().unwrap(), []);
    let events = reader.read(10);
    let reasons: Vec<_> = events.iter().map(|event| (event.kind, event.reason)).collect();
    assert_eq!(reasons, [(EventKind::Unsent, None); 3]);
    process::until("all ends", LIMIT, || Ok(bed.counters().unsent == 3)).unwrap();
}
