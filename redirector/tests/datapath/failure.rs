//! Failing backends: the result of the connect, its counters, and the backend of the next connect.

use std::time::{Duration, Instant};

use redirector::datapath::RouteCounters;
use testbed::topology::LOAD_BALANCERS;

use crate::rig::{Bed, PORT, VIP};

#[track_caller]
fn assert_balanced(counters: &RouteCounters) {
    let c = counters;
    assert_eq!(
        c.started,
        c.established + c.refused + c.timed_out + c.unreachable + c.aborted + c.unsent,
        "{c:?}"
    );
}

#[test]
fn a_backend_that_refuses_is_avoided_while_it_is_ejected() {
    let mut bed = Bed::new();
    let _two = bed.server(1, "two");
    bed.put(&[], &LOAD_BALANCERS);
    // Building the load client may take longer than the ejection.
    testbed::binaries::client().unwrap();
    let began = Instant::now();
    let mut refused = 0;
    // Half of the connects select the dead backend, until it is ejected.
    while refused == 0 && began.elapsed() < Duration::from_secs(10) {
        refused += u32::from(bed.greeting(VIP, PORT) == "ECONNREFUSED");
    }
    assert_eq!(refused, 1);
    // The first ejection lasts 1 s, the second one 2 s, and 500 connects take half a second. On a
    // busy machine they may begin so late that the ejection expires meanwhile: then only one of
    // them tries it.
    let report = bed.connects(500);
    let again = report.attempted - report.connected;
    assert!(again <= 1 && report.wrong_peer == 0 && report.ungreeted.is_empty(), "{report:?}");
    assert_eq!(report.banners.keys().collect::<Vec<_>>(), ["two"]);
    let unhealthy = bed.datapath.unhealthy_backends().unwrap();
    assert_eq!(unhealthy.len(), 1);
    assert_eq!((unhealthy[0].address, unhealthy[0].port), (LOAD_BALANCERS[0].into(), PORT));
    assert_eq!(u64::from(unhealthy[0].failures), 1 + again);
    assert_balanced(&bed.counters());
}

#[test]
fn an_ejected_backend_returns_after_its_time_or_a_probe() {
    let mut bed = Bed::new();
    let two = bed.server(1, "two");
    bed.put(&[], &LOAD_BALANCERS);
    while bed.datapath.unhealthy_backends().unwrap().is_empty() {
        bed.greeting(VIP, PORT);
    }
    let _one = bed.server(0, "one");
    bed.datapath.reinstate(crate::rig::backend(LOAD_BALANCERS[0])).unwrap();
    let banners = bed.connects(200).banners;
    assert!(banners["one"] > 0 && banners["two"] > 0, "{banners:?}");
    // And without a probe: the other one fails, is ejected for a second, returns, and is healthy
    // after its first success.
    drop(two);
    while bed.datapath.unhealthy_backends().unwrap().is_empty() {
        bed.greeting(VIP, PORT);
    }
    let _two = bed.server(1, "two");
    std::thread::sleep(Duration::from_millis(1100));
    let report = bed.connects(200);
    assert!(report.flawless(), "{report:?}");
    assert!(report.banners["two"] > 0, "{:?}", report.banners);
    assert!(bed.datapath.unhealthy_backends().unwrap().is_empty());
}

#[test]
fn the_first_retransmission_ejects_a_silent_backend() {
    let mut bed = Bed::new();
    let _two = bed.server(1, "two");
    bed.rig.customer.silence(LOAD_BALANCERS[0]).unwrap();
    bed.put(&[], &LOAD_BALANCERS[..1]);
    let began = Instant::now();
    // Gives up after 2 s; the first retransmission of a SYN comes after 1 s.
    let gave_up = bed.run(&format!("curl -sS --connect-timeout 2 http://{VIP}:{PORT}/"));
    assert_eq!(gave_up.status.code(), Some(28), "{}", gave_up.text());
    assert!(began.elapsed() < Duration::from_secs(5));
    assert_eq!(bed.datapath.unhealthy_backends().unwrap().len(), 1);
    let counters = bed.counters();
    assert_eq!((counters.started, counters.aborted, counters.timed_out), (1, 1, 0), "{counters:?}");
    assert_balanced(&counters);
}

#[test]
fn a_connect_that_the_kernel_gives_up_counts_as_timed_out() {
    let mut bed = Bed::new();
    bed.rig.customer.silence(LOAD_BALANCERS[0]).unwrap();
    bed.put(&[], &LOAD_BALANCERS[..1]);
    let script = format!(
        "import socket\ns = socket.socket(); s.setsockopt(6, 7, 1)\ntry: s.connect(('{VIP}', \
            {PORT}))\nexcept OSError as e: print(e.errno)"
    );
    // TCP_SYNCNT (7) of 1: one retransmission; newer kernels add linear ones first.
    let seen = bed.run(&format!("/usr/bin/python3 -c \"{script}\"")).success().unwrap().stdout;
    assert_eq!(seen.trim(), "110");
    let counters = bed.counters();
    assert_eq!((counters.started, counters.timed_out), (1, 1), "{counters:?}");
    assert_balanced(&counters);
}

#[test]
fn a_connect_without_a_route_out_is_unsent() {
    let (mut bed, _one, _two) = Bed::with_two_servers();
    bed.put(&[], &LOAD_BALANCERS[..1]);
    bed.executor.run("ip route del default", crate::rig::LIMIT).unwrap().success().unwrap();
    assert_eq!(bed.greeting(VIP, PORT), "ENETUNREACH");
    let counters = bed.counters();
    assert_eq!((counters.started, counters.unsent), (1, 1), "{counters:?}");
    assert!(bed.datapath.unhealthy_backends().unwrap().is_empty());
}

#[test]
fn when_all_are_ejected_all_are_used_and_it_is_counted() {
    let mut bed = Bed::new();
    bed.put(&[], &LOAD_BALANCERS);
    let report = bed.connects(50);
    assert_eq!(report.failed.get("ECONNREFUSED"), Some(&50), "{report:?}");
    let counters = bed.counters();
    assert_eq!((counters.started, counters.refused), (50, 50), "{counters:?}");
    assert!(counters.all_ejected >= 45, "{counters:?}");
    let _one = bed.server(0, "one");
    let served = (0..20).filter(|_| bed.greeting(VIP, PORT) == "one").count();
    assert!(served >= 1, "one backend works again");
}

#[test]
fn the_retry_of_a_socket_avoids_the_backend_that_refused_it() {
    let mut bed = Bed::new();
    let _two = bed.server(1, "two");
    bed.put(&[], &LOAD_BALANCERS);
    // Reinstated after each failure, so that only the origin of the socket excludes it.
    let script = format!(
        "import socket, sys\ns = socket.socket()\nfor n in (1, 2):\n try: s.connect(('{VIP}', \
            {PORT})); print(n); sys.exit()\n except ConnectionRefusedError: input()"
    );
    for _ in 0..6 {
        bed.datapath.reinstate(crate::rig::backend(LOAD_BALANCERS[0])).unwrap();
        let tries = bed
            .run(&format!("printf '\\n\\n' | /usr/bin/python3 -c \"{script}\""))
            .success()
            .unwrap()
            .stdout;
        assert!(["1\n", "2\n"].contains(&tries.as_str()), "{tries}");
    }
    assert_balanced(&bed.counters());
}
