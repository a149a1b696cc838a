//! IPv6: VIPs of the IPv6 pool, backends of either family, and which socket can use which.

use std::{
    net::{IpAddr, Ipv6Addr, SocketAddr},
    time::Duration,
};

use redirector::plan::{Change, PlannedRoute, by_family};
use testbed::{customer::BannerServer, topology::LOAD_BALANCERS};

use crate::rig::{Bed, INDEX, LIMIT, PORT, VIP, VIP6, on_node};

/// Two servers on the node's side of the pod's link.
const SIX: [Ipv6Addr; 2] =
    [Ipv6Addr::new(0xfd61, 0, 0, 0, 0, 0, 0, 0x11), Ipv6Addr::new(0xfd61, 0, 0, 0, 0, 0, 0, 0x12)];

/// A pod with IPv6; servers `six-1` and `six-2` on the node, `one` and `two` at the customer.
fn bed() -> (Bed, Vec<BannerServer>) {
    let bed = Bed::new();
    let pod = bed.run("ip -4 -o addr show dev eth0").success().unwrap().stdout;
    let number = pod.split_whitespace().nth(3).unwrap().split('.').nth(2).unwrap().to_owned();
    bed.run("ip addr add fd61::2/64 dev eth0 nodad").success().unwrap();
    let mut servers = vec![bed.server(0, "one"), bed.server(1, "two")];
    for (n, address) in SIX.iter().enumerate() {
        let node = bed.rig.node.sandbox();
        node.run(&format!("ip addr add {address}/64 dev pod{number} nodad"), LIMIT)
            .unwrap()
            .success()
            .unwrap();
        let server = BannerServer::start(
            node.namespaces(),
            SocketAddr::new((*address).into(), PORT),
            &format!("six-{}", n + 1),
        );
        servers.push(server.unwrap());
    }
    (bed, servers)
}

fn put(bed: &mut Bed, backends: &[IpAddr], sources: &[&str]) {
    let sources = sources.iter().map(|text| text.parse().unwrap()).collect();
    let route = PlannedRoute {
        backends: Some(by_family(backends.to_vec())),
        sources,
        ..PlannedRoute::default()
    };
    bed.datapath.apply(&[Change::Put { index: INDEX, route }]).unwrap();
}

/// Connects `count` sockets of `family` to `vip`, after the Python statement `before`. Returns the
/// peer and the greeting, or the errno's name, of each.
fn connects(bed: &Bed, family: &str, before: &str, vip: &str, count: usize) -> Vec<String> {
    let script = format!(
        "import errno, socket\n\
         for n in range({count}):\n\
         \x20s = socket.socket(socket.{family})\n\
         \x20{before}\n\
         \x20try: s.connect(('{vip}', {PORT}))\n\
         \x20except OSError as e: print(errno.errorcode[e.errno]); continue\n\
         \x20print(s.getpeername()[0], s.makefile().read().split()[-1]); s.close()"
    );
    bed.python(&script).lines().map(str::to_owned).collect()
}

/// Asserts that every line is `vip` and one of `banners`, and that each banner occurs.
#[track_caller]
fn assert_greeted(seen: &[String], vip: &str, banners: &[&str]) {
    let expected: Vec<String> = banners.iter().map(|banner| format!("{vip} {banner}")).collect();
    assert!(seen.iter().all(|line| expected.contains(line)), "{seen:?}");
    assert!(expected.iter().all(|line| seen.contains(line)), "{seen:?}");
}

fn four() -> Vec<IpAddr> {
    LOAD_BALANCERS.map(IpAddr::from).to_vec()
}

fn six() -> Vec<IpAddr> {
    SIX.map(IpAddr::from).to_vec()
}

#[test]
fn each_family_gets_its_own_backends_and_peer() {
    let (mut bed, _servers) = bed();
    put(&mut bed, &[six(), four()].concat(), &[]);
    let mapped = format!("::ffff:{VIP}");
    assert_greeted(&connects(&bed, "AF_INET6", "", VIP6, 24), VIP6, &["six-1", "six-2"]);
    assert_greeted(&connects(&bed, "AF_INET", "", VIP, 24), VIP, &["one", "two"]);
    assert_greeted(&connects(&bed, "AF_INET6", "", &mapped, 24), &mapped, &["one", "two"]);
    let counters = bed.counters();
    assert_eq!(
        (counters.started, counters.established, counters.denied),
        (72, 72, 0),
        "{counters:?}"
    );
    let backends = bed.datapath.backends(INDEX).unwrap();
    assert_eq!(
        backends.iter().map(|backend| backend.address).collect::<Vec<_>>(),
        [four(), six()].concat()
    );
    assert_eq!(backends.iter().map(|backend| backend.counters.established).sum::<u64>(), 72);
}

#[test]
fn a_dual_stack_socket_reaches_backends_of_both_families() {
    let (mut bed, _servers) = bed();
    put(&mut bed, &four(), &[]);
    assert_greeted(&connects(&bed, "AF_INET6", "", VIP6, 24), VIP6, &["one", "two"]);
    put(&mut bed, &six(), &[]);
    let mapped = format!("::ffff:{VIP}");
    assert_greeted(&connects(&bed, "AF_INET6", "", &mapped, 24), &mapped, &["six-1", "six-2"]);
    // An AF_INET socket can't.
    assert_eq!(connects(&bed, "AF_INET", "", VIP, 2), ["ECONNREFUSED"; 2]);
    assert_eq!((bed.counters().established, bed.counters().denied), (48, 2));
}

#[test]
fn a_single_family_socket_is_refused_without_ejection() {
    let (mut bed, _servers) = bed();
    put(&mut bed, &four(), &[]);
    // The kernel itself refuses IPV6_V6ONLY, which no hook can see; the programs refuse a socket
    // that is bound to a native address.
    assert_eq!(connects(&bed, "AF_INET6", "s.setsockopt(41, 26, 1)", VIP6, 2), ["ENETUNREACH"; 2]);
    assert_eq!(connects(&bed, "AF_INET6", "s.bind(('fd61::2', 0))", VIP6, 2), ["ECONNREFUSED"; 2]);
    let counters = bed.counters();
    assert_eq!((counters.started, counters.unsent, counters.denied), (2, 2, 2), "{counters:?}");
    assert!(bed.datapath.unhealthy_backends().unwrap().is_empty());
    put(&mut bed, &six(), &[]);
    assert_greeted(
        &connects(&bed, "AF_INET6", "s.setsockopt(41, 26, 1)", VIP6, 24),
        VIP6,
        &["six-1", "six-2"],
    );
    assert_greeted(
        &connects(&bed, "AF_INET6", "s.bind(('fd61::2', 0))", VIP6, 24),
        VIP6,
        &["six-1", "six-2"],
    );
}

#[test]
fn ipv6_backends_fail_and_come_back_as_ipv4_ones_do() {
    let (mut bed, mut servers) = bed();
    put(&mut bed, &six(), &[]);
    servers.truncate(3);
    while bed.datapath.unhealthy_backends().unwrap().is_empty() {
        connects(&bed, "AF_INET6", "", VIP6, 1);
    }
    let unhealthy = bed.datapath.unhealthy_backends().unwrap().remove(0);
    assert_eq!((unhealthy.address, unhealthy.port), (SIX[1].into(), PORT));
    // Extended, so that the ejection does not expire on a busy machine.
    bed.datapath.extend_ejection(unhealthy.place(), Duration::from_secs(60)).unwrap();
    assert_greeted(&connects(&bed, "AF_INET6", "", VIP6, 50), VIP6, &["six-1"]);
    bed.datapath.reinstate(unhealthy.place()).unwrap();
    let backends = bed.datapath.backends(INDEX).unwrap();
    assert!(backends.iter().all(|backend| backend.ejections.is_empty()), "{backends:?}");
}

#[test]
fn ipv6_connects_use_ipv6_sources() {
    let (mut bed, _servers) = bed();
    for last in [3, 4] {
        bed.run(&format!("ip addr add fd61::{last}/64 dev eth0 nodad")).success().unwrap();
    }
    put(&mut bed, &six(), &["fd61::3", "fd61::4"]);
    let before = bed.datapath.plan();
    bed.datapath = crate::rig::attached(&bed.rig);
    assert_eq!(bed.datapath.plan(), before);
    let script = format!(
        "import socket\nfor n in range(6):\n s = socket.socket(socket.AF_INET6); \
            s.connect(('{VIP6}', {PORT})); print(s.getsockname()[0]); s.close()"
    );
    let seen = bed.python(&script);
    let seen: Vec<&str> = seen.lines().collect();
    assert!(
        seen.windows(2)
            .all(|pair| pair[0] != pair[1]
                && pair.iter().all(|ip| ["fd61::3", "fd61::4"].contains(ip))),
        "{seen:?}"
    );
    assert_eq!(bed.counters().source_ip_failed, 0);
}

#[test]
fn an_ipv6_vip_without_a_route_is_refused() {
    let (bed, _servers) = bed();
    assert_eq!(connects(&bed, "AF_INET6", "", VIP6, 1), ["ECONNREFUSED"]);
    assert_eq!(bed.counters().denied, 1);
    assert_eq!(connects(&bed, "AF_INET6", "", "fd00:18::1:7", 1), ["ENETUNREACH"]);
    assert_greeted(&connects(&bed, "AF_INET6", "", "fd61::11", 1), "fd61::11", &["six-1"]);
    assert_eq!(bed.counters().started, 0);
    let pinned = on_node(&bed.rig, || redirector::datapath::inspect(&crate::rig::settings().bpffs))
        .unwrap()
        .unwrap();
    assert_eq!(pinned.pool_ipv6.as_deref(), Some("fd00:18::/112"));
}
