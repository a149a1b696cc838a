//! Programs are swapped under as many connects as two cores can make: each succeeds, reaches a
//! backend, and is counted.

use std::{
    net::Ipv4Addr,
    time::{Duration, Instant},
};

use testbed::{clients::ConnectStorm, process};

use crate::rig::{Bed, VIP, attached};

const SWAPS: u32 = 20;

/// Connects in all, beside other tests. `cargo xtask test` runs this once more, alone and with
/// `REDIRECTOR_TEST_CONNECTS=1000000`: a million takes half a minute to two minutes of two idle
/// cores.
const CONNECTS: u64 = 100_000;

/// Of how many closes one may be missing. On one virtual machine the kernel did not call our
/// program for 5 of 119 million, nor its own tracepoints where they were read
/// (docs/reference/measurements.md).
const CLOSES_PER_MISSED: u64 = 1_000_000;

/// Longest time until the last connect is counted.
const COUNT_LIMIT: Duration = Duration::from_secs(30);

/// Longest time, also for a million connects beside a second run of the tests.
const LIMIT: Duration = Duration::from_secs(1200);

#[test]
fn twenty_swaps_under_load_lose_no_connect_and_no_count() {
    let wanted =
        std::env::var("REDIRECTOR_TEST_CONNECTS").map_or(CONNECTS, |text| text.parse().unwrap());
    let mut bed = Bed::new();
    // A connect that no program saw would fail at once.
    bed.run("ip route add unreachable 198.18.0.0/16").success().unwrap();
    let mut storm = ConnectStorm::start(bed.executor.sandbox(), VIP.parse().unwrap()).unwrap();
    bed.put(&[(storm.port, storm.port)], &[Ipv4Addr::LOCALHOST]);
    storm.begin().unwrap();
    let (began, mut swaps) = (Instant::now(), 0);
    while swaps < SWAPS || bed.counters().started < wanted {
        assert!(began.elapsed() < LIMIT, "{swaps} swaps and {:?}", bed.counters());
        if swaps < SWAPS && bed.counters().started >= wanted * u64::from(swaps) / u64::from(SWAPS) {
            bed.datapath = attached(&bed.rig);
            swaps += 1;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    let report = storm.report().unwrap();
    println!("{swaps} swaps: {report:?}");
    assert!(report.attempted >= wanted, "{report:?}");
    assert_eq!(
        (report.redirected, report.wrong_peer, report.failed.len()),
        (report.attempted, 0, 0),
        "{report:?}"
    );
    assert_eq!(report.accepted, report.attempted, "{report:?}");
    // The kernel counts a close when it releases the socket, which may be after the process's end.
    let is_closed = || Ok(bed.counters().closed == report.attempted);
    let _ = process::until("all connects to be counted", COUNT_LIMIT, is_closed);
    let c = bed.counters();
    assert_eq!(
        (c.started, c.established, c.denied),
        (report.attempted, report.attempted, 0),
        "{c:?} after {report:?}"
    );
    let missed = report.attempted / CLOSES_PER_MISSED;
    assert!(
        (report.attempted - missed..=report.attempted).contains(&c.closed),
        "{c:?} after {report:?}"
    );
}
