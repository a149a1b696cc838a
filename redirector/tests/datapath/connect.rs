//! The results of connects: a backend with the mapped port and the VIP as its peer, or a refusal.

use std::net::Ipv4Addr;

use redirector::{
    plan::{Change, PlannedRoute},
    route::OnNoBackend,
};
use testbed::topology::LOAD_BALANCERS;

use crate::rig::{Bed, INDEX, PORT, VIP, put};

#[test]
fn a_connect_reaches_a_backend_and_getpeername_has_the_vip() {
    let (bed, _one, _two) = Bed::with_two_servers();
    let report = bed.connects(200);
    assert!(report.flawless(), "{report:?}");
    let counters = bed.counters();
    assert_eq!(
        (counters.started, counters.established, counters.denied),
        (200, 200, 0),
        "{counters:?}"
    );
    assert_eq!(bed.rig.customer.leaked_packets().unwrap(), 0);
}

#[test]
fn backends_share_the_connects_evenly() {
    let (bed, _one, _two) = Bed::with_two_servers();
    let report = bed.connects(2000);
    assert!(report.flawless(), "{report:?}");
    let one = report.banners["one"];
    // Six standard deviations of 2000 fair draws are 134.
    assert!(one.abs_diff(1000) < 134, "{:?}", report.banners);
}

#[test]
fn a_dual_stack_socket_keeps_the_mapped_vip_as_its_peer() {
    let (bed, _one, _two) = Bed::with_two_servers();
    let script = format!(
        "import socket; s = socket.socket(socket.AF_INET6); s.connect(('::ffff:{VIP}', {PORT})); \
            print(s.getpeername()[:2], s.makefile().read().split()[-1])"
    );
    let seen = bed.run(&format!("/usr/bin/python3 -c \"{script}\"")).success().unwrap().stdout;
    assert!(seen.starts_with(&format!("('::ffff:{VIP}', {PORT}) ")), "{seen}");
    assert!(seen.contains("one") || seen.contains("two"), "{seen}");
    assert_eq!(bed.counters().established, 1);
}

#[test]
fn a_listed_port_is_mapped_and_any_other_is_refused_at_once() {
    let mut bed = Bed::new();
    let _server = bed.server(0, "one");
    bed.put(&[(80, PORT), (443, PORT)], &LOAD_BALANCERS[..1]);
    assert_eq!((bed.greeting(VIP, 80), bed.greeting(VIP, 443)), ("one".into(), "one".into()));
    assert_eq!(bed.greeting(VIP, PORT), "ECONNREFUSED");
    let counters = bed.counters();
    assert_eq!((counters.started, counters.denied), (2, 1), "{counters:?}");
}

#[test]
fn no_route_and_no_backends_are_refused_at_once() {
    let mut bed = Bed::new();
    assert_eq!(bed.greeting(VIP, PORT), "ECONNREFUSED");
    bed.put(&[], &[]);
    assert_eq!(bed.greeting(VIP, PORT), "ECONNREFUSED");
    assert_eq!(bed.counters().denied, 2);
    assert_eq!(bed.rig.customer.leaked_packets().unwrap(), 0);
}

#[test]
fn with_pass_a_route_without_backends_leaves_connects_alone() {
    let mut bed = Bed::new();
    let route = PlannedRoute {
        ports: Vec::new(),
        backends: Some(Vec::new()),
        on_no_backend: OnNoBackend::Pass,
        ..PlannedRoute::default()
    };
    bed.datapath.apply(&[Change::Put { index: INDEX, route }]).unwrap();
    bed.rig
        .node
        .sandbox()
        .run("ip route add unreachable 198.18.0.0/16", crate::rig::LIMIT)
        .unwrap()
        .success()
        .unwrap();
    assert_eq!(bed.greeting(VIP, PORT), "EHOSTUNREACH");
    let counters = bed.counters();
    assert_eq!((counters.passed, counters.denied, counters.started), (1, 0, 0), "{counters:?}");
}

#[test]
fn other_cgroups_and_other_destinations_are_untouched() {
    let (bed, one, _two) = Bed::with_two_servers();
    bed.rig
        .node
        .sandbox()
        .run("ip route add unreachable 198.18.0.0/16", crate::rig::LIMIT)
        .unwrap()
        .success()
        .unwrap();
    assert_eq!(crate::rig::greeting(bed.executor.outside(), VIP, PORT), "EHOSTUNREACH");
    assert_eq!(crate::rig::greeting(bed.executor.outside(), "203.0.113.7", PORT), "one");
    assert_eq!(bed.greeting("203.0.113.7", PORT), "one");
    assert_eq!(one.served(), 2);
    assert_eq!(bed.counters(), Default::default());
    assert_eq!(bed.rig.customer.leaked_packets().unwrap(), 0);
}

#[test]
fn a_udp_connect_to_the_vip_is_not_rewritten_and_not_counted() {
    let (bed, _one, _two) = Bed::with_two_servers();
    let script = format!(
        "import socket\nfor port in (9, 443):\n s = socket.socket(type=socket.SOCK_DGRAM); \
            s.connect(('{VIP}', port)); print(s.getpeername())"
    );
    let seen = bed.run(&format!("/usr/bin/python3 -c \"{script}\"")).success().unwrap().stdout;
    assert_eq!(seen, format!("('{VIP}', 9)\n('{VIP}', 443)\n"));
    assert_eq!(bed.counters(), Default::default());
}

#[test]
fn a_changed_route_is_live_for_the_very_next_connect() {
    let (mut bed, _one, _two) = Bed::with_two_servers();
    for (address, banner) in [(0, "one"), (1, "two")].into_iter().cycle().take(20) {
        bed.datapath.apply(&[put(&[], &LOAD_BALANCERS[address..=address])]).unwrap();
        assert_eq!(bed.greeting(VIP, PORT), banner);
    }
}

#[test]
fn a_withdrawn_route_is_refused_and_its_counters_stay() {
    let (mut bed, _one, _two) = Bed::with_two_servers();
    assert!(bed.connects(10).flawless());
    bed.datapath.apply(&[Change::Withdraw { index: INDEX }]).unwrap();
    assert_eq!(bed.greeting(VIP, PORT), "ECONNREFUSED");
    assert_eq!((bed.counters().established, bed.counters().denied), (10, 1));
}

#[test]
fn a_socket_reconnected_elsewhere_has_its_real_peer() {
    let mut bed = Bed::new();
    let _server = bed.server(1, "two");
    bed.put(&[], &LOAD_BALANCERS[..1]);
    let script = format!(
        "import socket\ns = socket.socket()\ntry: s.connect(('{VIP}', {PORT}))\nexcept OSError: \
            pass\ns.connect(('203.0.113.8', {PORT})); print(s.getpeername())"
    );
    let seen = bed.run(&format!("/usr/bin/python3 -c \"{script}\"")).success().unwrap().stdout;
    assert_eq!(seen, format!("('203.0.113.8', {PORT})\n"));
    let counters = bed.counters();
    assert_eq!(
        (counters.started, counters.refused, counters.established),
        (1, 1, 0),
        "{counters:?}"
    );
}

#[test]
fn sixty_four_backends_on_sixteen_ports_are_all_served() {
    let mut bed = Bed::new();
    let servers: Vec<_> = (100..164)
        .map(|last| {
            let address = Ipv4Addr::new(203, 0, 113, last);
            bed.rig
                .customer
                .sandbox()
                .run(&format!("ip addr add {address}/32 dev lo"), crate::rig::LIMIT)
                .unwrap()
                .success()
                .unwrap();
            (
                address,
                bed.rig.customer.banner_server((address, PORT).into(), &last.to_string()).unwrap(),
            )
        })
        .collect();
    let ports: Vec<(u16, u16)> = (1..=15).map(|port| (port, port)).chain([(PORT, PORT)]).collect();
    let addresses: Vec<Ipv4Addr> = servers.iter().map(|(address, _)| *address).collect();
    bed.put(&ports, &addresses);
    let report = bed.connects(2000);
    assert!(report.flawless(), "{report:?}");
    assert_eq!(report.banners.len(), 64, "{:?}", report.banners);
}
