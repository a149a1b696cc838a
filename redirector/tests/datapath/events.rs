//! Events of single connects: one for each outcome, with the caller, and none that delays a
//! connect.

use std::{
    collections::HashMap,
    net::{Ipv4Addr, SocketAddr},
    os::unix::fs::MetadataExt,
    time::Duration,
};

use redirector::datapath::{DenyReason, Event, EventKind, EventReader};
use testbed::{
    Executor, ExecutorOptions,
    process::{self, until},
    topology::LOAD_BALANCERS,
};

use crate::rig::{Bed, INDEX, LIMIT, PORT, VIP, VIP6};

/// More events than any test causes.
const ALL: usize = 1 << 20;

/// A reader of the events.
fn read_events(bed: &mut Bed) -> EventReader {
    bed.datapath.set_event_sampling(Some(0)).unwrap();
    bed.datapath.take_event_reader().expect("the first call gets the reader")
}

fn kinds(events: &[Event]) -> Vec<EventKind> {
    events.iter().map(|event| event.kind).collect()
}

/// Connects in Python, whatever the result.
fn connect(bed: &Bed, address: &str, port: u16, before: &str) -> String {
    let family = if address.contains(':') { "10" } else { "2" };
    bed.python(&format!(
        "import os, socket\ns = socket.socket({family})\n{before}\n\
         try: s.connect(('{address}', {port})); s.makefile().read()\n\
         except OSError: pass\nprint(os.getpid())"
    ))
}

#[test]
fn a_connection_has_events_at_its_start_and_end() {
    let (mut bed, _one, _two) = Bed::with_two_servers();
    bed.put(&[(80, PORT)], &LOAD_BALANCERS[..1]);
    let mut reader = read_events(&mut bed);
    let before = jiff::Timestamp::now();
    connect(&bed, VIP, 80, "");
    let events = reader.read(ALL);
    assert_eq!(kinds(&events), [EventKind::Established, EventKind::Closed], "{events:?}");
    let cgroup = bed.executor.sandbox().cgroup().metadata().unwrap().ino();
    for event in &events {
        assert_eq!((event.index, event.vip6, event.vip_port), (INDEX, false, 80), "{event:?}");
        assert_eq!(event.backend, Some(SocketAddr::from((LOAD_BALANCERS[0], PORT))), "{event:?}");
        assert_eq!(
            (event.command.as_str(), event.cgroup, event.sampling_ratio),
            ("python3", cgroup, 1),
            "{event:?}"
        );
        assert!(event.pid > 1 && event.pid == events[0].pid, "{event:?}");
        assert!(event.at >= before && event.at <= jiff::Timestamp::now(), "{event:?}");
        assert!(
            event.elapsed > Duration::ZERO && event.elapsed < Duration::from_secs(10),
            "{event:?}"
        );
    }
    // "one\n" and the end; the SYN and the end.
    assert_eq!(
        (events[0].rx_bytes, events[1].rx_bytes >= 4, events[1].tx_bytes >= 1),
        (0, true, true),
        "{events:?}"
    );
    assert!(
        events[1].srtt > Duration::ZERO && events[1].srtt < Duration::from_secs(1),
        "{events:?}"
    );
    // The same numbers are in the counters.
    let counters = bed.counters();
    assert_eq!(counters.latency.iter().sum::<u64>(), 1, "{counters:?}");
    assert_eq!(Duration::from_nanos(counters.connect_ns), events[0].elapsed);
    assert_eq!(Duration::from_micros(counters.srtt_us), events[1].srtt);
    let backend = bed.datapath.backends(INDEX).unwrap()[0].counters;
    assert_eq!((backend.connect_ns, backend.srtt_us), (counters.connect_ns, counters.srtt_us));
    assert_eq!(bed.datapath.lost_events().unwrap(), 0);
}

#[test]
fn every_other_outcome_has_one_event() {
    let mut bed = Bed::new();
    let mut reader = read_events(&mut bed);
    let mut expect = |bed: &mut Bed, kind: EventKind, address: &str, port: u16, before: &str| {
        connect(bed, address, port, before);
        let events = reader.read(ALL);
        assert_eq!(kinds(&events), [kind], "{events:?}");
        assert_eq!(
            (events[0].command.as_str(), events[0].vip_port, events[0].vip6),
            ("python3", port, address.contains(':'))
        );
        events.into_iter().next().unwrap()
    };
    bed.put(&[], &LOAD_BALANCERS[..1]);
    let refused = expect(&mut bed, EventKind::Refused, VIP, PORT, "");
    assert_eq!(refused.backend, Some(SocketAddr::from((LOAD_BALANCERS[0], PORT))));
    expect(&mut bed, EventKind::Refused, VIP6, PORT, "");
    bed.put(&[], &[Ipv4Addr::new(203, 0, 113, 99)]);
    // ARP gives up after three seconds.
    let unreachable = expect(&mut bed, EventKind::Unreachable, VIP, PORT, "");
    assert!(unreachable.elapsed > Duration::from_millis(500), "{unreachable:?}");
    bed.rig.customer.silence(LOAD_BALANCERS[0]).unwrap();
    bed.put(&[], &LOAD_BALANCERS[..1]);
    let timed_out = expect(&mut bed, EventKind::TimedOut, VIP, PORT, "s.setsockopt(6, 7, 1)");
    assert!(timed_out.elapsed > Duration::from_secs(1), "{timed_out:?}");
    expect(&mut bed, EventKind::Aborted, VIP, PORT, "s.settimeout(0.3)");
    // Connects that the programs refuse.
    bed.put(&[(443, 443)], &LOAD_BALANCERS[..1]);
    let denied = expect(&mut bed, EventKind::Denied, VIP, 22, "");
    assert_eq!((denied.index, denied.backend), (INDEX, None));
    assert_eq!(denied.reason, Some(DenyReason::PortNotListed));
    bed.put(&[], &[]);
    let denied = expect(&mut bed, EventKind::Denied, VIP, 443, "");
    assert_eq!(denied.reason, Some(DenyReason::NoBackend));
    let unknown = expect(&mut bed, EventKind::Denied, "198.18.0.9", 443, "");
    assert_eq!((unknown.index, unknown.reason), (9, Some(DenyReason::NoRoute)));
    let pass = redirector::plan::PlannedRoute {
        on_no_backend: redirector::route::OnNoBackend::Pass,
        ..Default::default()
    };
    bed.datapath.apply(&[redirector::plan::Change::Put { index: INDEX, route: pass }]).unwrap();
    let passed = expect(&mut bed, EventKind::Passed, VIP, 443, "s.settimeout(0.3)");
    assert_eq!(passed.reason, Some(DenyReason::NoBackend));
    bed.put(&[], &LOAD_BALANCERS[..1]);
    bed.run("ip route del default").success().unwrap();
    expect(&mut bed, EventKind::Unsent, VIP, 443, "");
    let c = bed.counters();
    assert_eq!(
        c.started,
        c.established + c.refused + c.timed_out + c.unreachable + c.aborted + c.unsent,
        "{c:?}"
    );
}

#[test]
fn without_a_reader_no_event_is_emitted_or_lost() {
    let (mut bed, _one, _two) = Bed::with_two_servers();
    assert!(bed.connects(50).flawless());
    let mut reader = bed.datapath.take_event_reader().unwrap();
    assert_eq!((reader.read(ALL), bed.datapath.lost_events().unwrap()), (vec![], 0));
    assert!(bed.datapath.take_event_reader().is_none(), "there is one reader");
}

/// What these events represent, by result.
fn represented(events: &[Event], kind: EventKind) -> u64 {
    let of_kind = events.iter().filter(|event| event.kind == kind);
    of_kind.map(|event| u64::from(event.sampling_ratio)).sum()
}

#[test]
fn a_flood_of_denials_is_sampled_and_leaves_room() {
    let (mut bed, _one, _two) = Bed::with_two_servers();
    bed.put(&[(PORT, PORT), (9, 9)], &LOAD_BALANCERS);
    let mut reader = read_events(&mut bed);
    // Refused by the programs, which is fast: more than the ring buffer holds.
    const DENIED: usize = 12_000;
    bed.python(&format!(
        "import socket\nfor n in range({DENIED}):\n s = socket.socket()\n try: s.connect(('{VIP}', \
            1))\n except OSError: pass\n s.close()"
    ));
    let report = bed.connects(300);
    assert!(report.flawless(), "{report:?}");
    let c = bed.counters();
    assert_eq!((c.denied, c.started, c.established), (DENIED as u64, 300, 300), "{c:?}");
    let events = reader.read(ALL);
    let denied = events.iter().filter(|event| event.kind == EventKind::Denied).count() as u64;
    let suppressed = bed.datapath.suppressed_events().unwrap();
    assert_eq!((denied + suppressed, bed.datapath.lost_events().unwrap()), (DENIED as u64, 0));
    assert!(denied < DENIED as u64 / 2, "{denied}");
    // One in 256 represents the others, but for the last of each window.
    let represented = represented(&events, EventKind::Denied);
    assert!(represented <= DENIED as u64 && represented >= DENIED as u64 / 4, "{represented}");
    // No success gives way.
    let established = events.iter().filter(|event| event.kind == EventKind::Established).count();
    assert_eq!(established, 300);
}

#[test]
fn failures_of_others_are_seen_during_a_flood() {
    let (mut bed, _one, _two) = Bed::with_two_servers();
    bed.put(&[(9, 9)], &LOAD_BALANCERS);
    let mut reader = read_events(&mut bed);
    let victim = bed.rig.executor(ExecutorOptions::pod("victim")).unwrap();
    let victims = victim.sandbox().cgroup().metadata().unwrap().ino();
    // Refused here, and refused by a load balancer: 50 of each within four seconds, while another
    // cgroup fills the ring many times over.
    let script = format!(
        "import socket, time\nfor n in range(100):\n s = socket.socket()\n try: \
            s.connect(('{VIP}', 1 if n % 2 else 9))\n except OSError: pass\n s.close()\n \
            time.sleep(0.04)"
    );
    let flood = format!(
        "import os, socket, time\nend = time.monotonic() + 6\nos.fork()\nn = 0\nwhile \
            time.monotonic() < end:\n s = socket.socket()\n try: s.connect(('{VIP}', 1 if n % 8 \
            else 9))\n except OSError: pass\n s.close()\n n += 1"
    );
    let python = |executor: &Executor, script: &str| {
        let mut command = executor.command("/usr/bin/python3");
        command.args(["-c", script]);
        command
    };
    let (flooder, sufferer) = (python(&bed.executor, &flood), python(&victim, &script));
    std::thread::scope(|scope| {
        let flooding = scope.spawn(|| process::finish(flooder, LIMIT).unwrap().success());
        std::thread::sleep(Duration::from_millis(500));
        let suffering = scope.spawn(|| process::finish(sufferer, LIMIT).unwrap().success());
        let mut events = Vec::new();
        // As the agent does.
        while !flooding.is_finished() || !suffering.is_finished() {
            events.extend(reader.read(ALL));
            std::thread::sleep(Duration::from_millis(100));
        }
        flooding.join().unwrap().unwrap();
        suffering.join().unwrap().unwrap();
        events.extend(reader.read(ALL));
        let (own, others): (Vec<Event>, Vec<Event>) =
            events.into_iter().partition(|event| event.cgroup == victims);
        let suppressed = bed.datapath.suppressed_events().unwrap();
        println!("{} events of the flood, {suppressed} suppressed", others.len());
        assert_eq!((represented(&own, EventKind::Denied), own.len()), (50, 100), "{own:?}");
        assert_eq!(bed.datapath.lost_events().unwrap(), 0);
        assert!(suppressed > 2 * others.len() as u64, "{suppressed}, {}", others.len());
    });
}

#[test]
fn successes_are_sampled_and_failures_are_not() {
    let (mut bed, _one, _two) = Bed::with_two_servers();
    let mut reader = read_events(&mut bed);
    bed.datapath.set_event_sampling(Some(3)).unwrap();
    assert!(bed.connects(800).flawless());
    let mut events = Vec::new();
    let count = |events: &[Event], what| events.iter().filter(|event| event.kind == what).count();
    // The last sockets close when the server has answered their FIN.
    until("the end of each reported connection", LIMIT, || {
        events.extend(reader.read(ALL));
        let [opened, closed] = [EventKind::Established, EventKind::Closed];
        Ok(count(&events, opened) == count(&events, closed))
    })
    .unwrap();
    let established = count(&events, EventKind::Established);
    // 100 of 800; the bounds are six standard deviations away.
    assert!((44..=156).contains(&established), "{established}");
    assert_eq!(events.len(), 2 * established, "{events:?}");
    assert!(
        events.iter().all(|event| event.sampling_ratio == 8 && event.pid > 1 && event.cgroup != 0)
    );
    bed.put(&[(1, 1)], &LOAD_BALANCERS);
    for _ in 0..20 {
        assert_eq!(bed.greeting(VIP, 1), "ECONNREFUSED");
    }
    let failures = reader.read(ALL);
    assert_eq!((kinds(&failures), failures[0].sampling_ratio), (vec![EventKind::Refused; 20], 1));
    // A backend that has never failed, or whose ejection has expired, was expected to accept: then
    // the caller is not recorded.
    let mut failed_at = HashMap::new();
    for event in &failures {
        let last = failed_at.insert(event.backend, event.at);
        let is_ejected = last.is_some_and(|last| event.at < last + Duration::from_millis(900));
        assert!(event.cgroup != 0 && (event.pid > 1 || !is_ejected), "{failures:?}");
    }
}

#[test]
fn events_without_an_agent_are_read_by_the_next() {
    let (mut bed, _one, _two) = Bed::with_two_servers();
    drop(read_events(&mut bed));
    assert!(bed.connects(20).flawless());
    bed.datapath = crate::rig::attached(&bed.rig);
    let events = bed.datapath.take_event_reader().unwrap().read(ALL);
    assert_eq!(
        events.iter().filter(|event| event.kind == EventKind::Established).count(),
        20,
        "{events:?}"
    );
}
