//! Every way for a backend to fail: the errno, the counter, and later connects, which avoid it.

use std::{
    net::Ipv4Addr,
    thread,
    time::{Duration, Instant},
};

use redirector::datapath::RouteCounters;
use testbed::{customer::BannerServer, topology::LOAD_BALANCERS};

use crate::rig::{Bed, INDEX, LIMIT, PORT, VIP, backend, put};

/// How long the programs eject a backend after its first failure.
const FIRST_EJECTION: Duration = Duration::from_secs(1);

/// How a backend fails.
#[derive(Clone, Copy, Debug)]
enum Fault {
    /// No listener: the host answers with a reset.
    Reset,
    /// Nothing answers.
    Blackhole,
    /// A router reports that the host is unreachable.
    Unreachable,
    /// The pod has no route to it.
    NoRoute,
}

impl Fault {
    fn cause(self, bed: &Bed, address: Ipv4Addr) {
        let route = format!("ip route add unreachable {address}/32");
        match self {
            Self::Reset => {}
            Self::Blackhole => bed.rig.customer.silence(address).unwrap(),
            Self::Unreachable => {
                drop(bed.rig.node.sandbox().run(&route, LIMIT).unwrap().success().unwrap())
            }
            Self::NoRoute => drop(bed.run(&route).success().unwrap()),
        }
    }
}

/// Makes `count` connects in turn; returns the greeting or the errno's name, and the seconds, of
/// each.
fn connects(bed: &Bed, count: u32, pause: f64) -> Vec<(String, f64)> {
    let script = format!(
        "import errno, socket, time\n\
         for n in range({count}):\n\
         \x20s, began = socket.socket(), time.monotonic()\n\
         \x20try: s.connect(('{VIP}', {PORT})); end = s.makefile().read().split()[-1]\n\
         \x20except OSError as e: end = errno.errorcode[e.errno]\n\
         \x20print(end, time.monotonic() - began, flush=True); s.close(); time.sleep({pause})"
    );
    let parse = |line: &str| {
        line.split_once(' ')
            .map(|(end, seconds)| (end.to_owned(), seconds.parse().unwrap()))
            .unwrap()
    };
    bed.python(&script).lines().map(parse).collect()
}

/// The number of failed connects; checks that the counters add up.
#[track_caller]
fn failures(c: &RouteCounters) -> u64 {
    let failed = c.refused + c.timed_out + c.unreachable + c.aborted + c.unsent;
    assert_eq!(c.started, c.established + failed, "{c:?}");
    failed
}

/// A single backend that fails: the errno and the counter.
#[test]
fn each_fault_has_its_errno_and_its_counter() {
    let [dead, _] = LOAD_BALANCERS;
    for (fault, errno, ejected) in [
        (Fault::Reset, "ECONNREFUSED", true),
        (Fault::Blackhole, "ETIMEDOUT", true),
        (Fault::Unreachable, "EHOSTUNREACH", true),
        (Fault::NoRoute, "EHOSTUNREACH", false),
    ] {
        let mut bed = Bed::new();
        bed.run("sysctl -qw net.ipv4.tcp_syn_retries=1 net.ipv4.tcp_syn_linear_timeouts=0")
            .success()
            .unwrap();
        fault.cause(&bed, dead);
        bed.put(&[], &[dead]);
        let seen: Vec<String> = connects(&bed, 1, 0.0).into_iter().map(|(end, _)| end).collect();
        assert_eq!(seen, [errno], "{fault:?}");
        let c = bed.counters();
        assert_eq!(failures(&c), 1);
        let counted = match fault {
            Fault::Reset => c.refused,
            Fault::Blackhole => c.timed_out,
            // Before the first retransmission the programs can't distinguish it from a reset.
            Fault::Unreachable => c.unreachable + c.refused,
            Fault::NoRoute => c.unsent,
        };
        assert_eq!(counted, 1, "{fault:?}: {c:?}");
        assert_eq!(
            bed.datapath.unhealthy_backends().unwrap().len(),
            usize::from(ejected),
            "{fault:?}"
        );
    }
}

#[test]
fn a_failed_backend_is_avoided_while_it_is_ejected() {
    for fault in [Fault::Reset, Fault::Blackhole, Fault::Unreachable] {
        let mut bed = Bed::new();
        bed.datapath.set_connect_timeout(Duration::from_millis(1500)).unwrap();
        let [dead, _] = LOAD_BALANCERS;
        let _two = bed.server(1, "two");
        fault.cause(&bed, dead);
        bed.put(&[], &LOAD_BALANCERS);
        while bed.datapath.unhealthy_backends().unwrap().is_empty() {
            connects(&bed, 1, 0.0);
        }
        // Extended as by the agent's prober, so that the ejection does not expire on a busy
        // machine.
        bed.datapath.extend_ejection(backend(dead), Duration::from_secs(60)).unwrap();
        let started = |bed: &Bed| bed.datapath.backends(INDEX).unwrap()[0].counters.started;
        let before = started(&bed);
        let report = bed.connects(1000);
        assert!(report.flawless(), "{fault:?}: {report:?}");
        assert_eq!(started(&bed), before, "{fault:?}");
        failures(&bed.counters());
    }
}

#[test]
fn one_connect_tries_a_silent_backend_after_its_ejection() {
    let mut bed = Bed::new();
    bed.datapath.set_connect_timeout(Duration::from_millis(1500)).unwrap();
    let [dark, _] = LOAD_BALANCERS;
    let _two = bed.server(1, "two");
    bed.rig.customer.silence(dark).unwrap();
    bed.put(&[], &LOAD_BALANCERS);
    let started = |bed: &Bed| bed.datapath.backends(INDEX).unwrap()[0].counters.started;
    while bed.datapath.unhealthy_backends().unwrap().is_empty() {
        connects(&bed, 1, 0.0);
    }
    let before = started(&bed);
    thread::sleep(FIRST_EJECTION + Duration::from_millis(200));
    // 500 connects in one second: the first one that selects it tries it for all others, and fails.
    let report = bed.load(500, 1.0, &[]).report().unwrap();
    assert_eq!(started(&bed) - before, 1, "{report:?}");
    assert_eq!((report.connected, report.failed.values().sum::<u64>()), (499, 1), "{report:?}");
    assert_eq!(bed.datapath.unhealthy_backends().unwrap()[0].failures, 2);
}

#[test]
fn an_application_waits_once_for_a_silent_backend() {
    let mut bed = Bed::new();
    const TIMEOUT: f64 = 1.5;
    bed.datapath.set_connect_timeout(Duration::from_secs_f64(TIMEOUT)).unwrap();
    let [dark, _] = LOAD_BALANCERS;
    let _two = bed.server(1, "two");
    bed.rig.customer.silence(dark).unwrap();
    bed.put(&[], &LOAD_BALANCERS);
    // One connect after the other until one selects the silent backend, then a hundred more.
    let mut seen = Vec::new();
    let began = Instant::now();
    while bed.datapath.unhealthy_backends().unwrap().is_empty() {
        assert!(began.elapsed() < LIMIT, "no connect selected it");
        seen.extend(connects(&bed, 1, 0.0));
    }
    bed.datapath.extend_ejection(backend(dark), LIMIT).unwrap();
    seen.extend(connects(&bed, 100, 0.01));
    let waits: Vec<_> = seen.iter().filter(|(end, _)| end != "two").collect();
    assert!(waits.len() == 1 && waits[0].0 == "ETIMEDOUT" && waits[0].1 <= TIMEOUT, "{waits:?}");
}

#[test]
fn a_flapping_backend_costs_few_connects_and_is_used() {
    let (mut bed, one, two) = Bed::with_two_servers();
    drop(one);
    let load = bed.load(200, 9.0, &[]);
    let (mut falls, mut one) = (1_u64, None::<BannerServer>);
    // Down for one and a half seconds, up for one, and so on.
    for up in [false, true, false, true, false] {
        if up {
            one = Some(bed.server(0, "one"));
            // Like the agent after a successful probe.
            bed.datapath.reinstate(crate::rig::backend(LOAD_BALANCERS[0])).unwrap();
            thread::sleep(FIRST_EJECTION);
        } else if one.take().is_some() {
            falls += 1;
        }
        thread::sleep(FIRST_EJECTION * 3 / 2);
    }
    let report = load.report().unwrap();
    let c = bed.counters();
    let failed = failures(&c);
    // Each fall costs the connects in progress on it, few at 200 a second, and the one that tries
    // it after the ejection.
    assert!(failed >= 1 && failed <= 8 * falls, "{failed} failures in {falls} falls: {report:?}");
    assert_eq!(c.refused, failed, "{c:?}");
    assert!(report.banners["one"] > 50 && report.banners["two"] > 500, "{report:?}");
    assert_eq!(c.denied, 0);
    drop(two);
}

#[test]
fn when_all_are_dead_connects_fail_at_once_until_one_works() {
    let mut bed = Bed::new();
    bed.put(&[], &LOAD_BALANCERS);
    let report = bed.connects(300);
    assert_eq!(report.failed.get("ECONNREFUSED"), Some(&300), "{report:?}");
    let c = bed.counters();
    assert_eq!((failures(&c), c.refused), (300, 300), "{c:?}");
    assert!(c.all_ejected > 250, "{c:?}");
    let _two = bed.server(1, "two");
    let began = Instant::now();
    while bed.greeting(VIP, PORT) != "two" {
        assert!(began.elapsed() < LIMIT, "no backend works again");
    }
    // The working backend is healthy after its first success, and the dead one stays ejected: up to
    // 30 s after so many failures.
    let report = bed.connects(300);
    assert!(report.flawless(), "{report:?}");
}

#[test]
fn the_backends_change_under_load_and_no_connect_fails() {
    let mut bed = Bed::new();
    let addresses: Vec<Ipv4Addr> =
        (100..108).map(|last| Ipv4Addr::new(203, 0, 113, last)).collect();
    let servers: Vec<BannerServer> = addresses
        .iter()
        .map(|address| {
            bed.rig
                .customer
                .sandbox()
                .run(&format!("ip addr add {address}/32 dev lo"), LIMIT)
                .unwrap()
                .success()
                .unwrap();
            bed.rig.customer.banner_server((*address, PORT).into(), &address.to_string()).unwrap()
        })
        .collect();
    bed.put(&[], &addresses[..2]);
    let load = bed.load(1000, 4.0, &[]);
    let (began, mut changes) = (Instant::now(), 0);
    while began.elapsed() < Duration::from_secs(4) {
        let at = changes % addresses.len();
        let pair = [addresses[at], addresses[(at + 1) % addresses.len()]];
        bed.datapath.apply(&[put(&[], &pair)]).unwrap();
        changes += 1;
        thread::sleep(Duration::from_micros(500));
    }
    let report = load.report().unwrap();
    assert!(report.flawless(), "{report:?}");
    assert!(
        changes > 500 && report.banners.len() == addresses.len(),
        "{changes} changes: {:?}",
        report.banners
    );
    let c = bed.counters();
    assert_eq!((failures(&c), c.established, c.denied), (0, 4000, 0), "{c:?}");
    assert_eq!(servers.iter().map(BannerServer::served).sum::<u64>(), 4000);
}
