extern crate std;
use std::collections::BTreeMap;

use super::*;
use crate::{
    addr::PortBe,
    backend::{BackendId, Caller, Witness},
    decide::{
        backend::Backend,
        connect::{Verdict, connect},
        packed::Families,
        test_tables::{CALLER, TestClient, TestTables},
    },
};

const VIP: u32 = 1;
const DRAWS: u32 = 30_000;

/// The number of [`DRAWS`] draws that select each backend, and of those with all backends ejected.
fn draw(tables: &TestTables, last: u32) -> (BTreeMap<u32, u32>, u32) {
    draw_for(tables, Families::V4_ONLY, last)
}

fn draw_for(tables: &TestTables, families: Families, last: u32) -> (BTreeMap<u32, u32>, u32) {
    let mut counts = BTreeMap::new();
    let mut all_ejected = 0;
    for _ in 0..DRAWS {
        let backend = backend(tables, families, last).expect("a backend");
        assert_eq!(backend.address(tables, families), TestTables::address(backend.id().0));
        *counts.entry(backend.id().0).or_insert(0) += 1;
        all_ejected += u32::from(backend.all_ejected());
    }
    (counts, all_ejected)
}

fn backend(tables: &TestTables, families: Families, last: u32) -> Option<Backend> {
    let mut backend = Backend::default();
    let client = TestClient { families, last: BackendId(last), ..TestClient::default() };
    (connect(tables, VIP, &client, &mut backend) == Verdict::Redirect).then_some(backend)
}

#[track_caller]
fn assert_uniform(counts: &BTreeMap<u32, u32>, expected: &[u32]) {
    assert_eq!(counts.keys().copied().collect::<std::vec::Vec<_>>(), expected);
    let fair = DRAWS / expected.len() as u32;
    for (id, count) in counts {
        assert!(
            count.abs_diff(fair) < fair / 10,
            "backend {id}: {count} of {DRAWS}, fair is {fair}"
        );
    }
}

fn failed(now: u64) -> Health {
    Health::HEALTHY.after_failure(CALLER, now)
}

#[test]
fn healthy_backends_share_evenly_without_reading_the_clock() {
    let tables = TestTables::with_route(VIP, &[], &[1, 2, 3], 0);
    assert_uniform(&draw(&tables, 0).0, &[1, 2, 3]);
    assert_eq!(tables.clock_reads.get(), 0);
}

#[test]
fn the_share_of_an_ejected_backend_is_spread_evenly() {
    let mut tables = TestTables::with_route(VIP, &[(443, 443)], &[1, 2, 3, 4], 0);
    tables.health.insert(2, failed(tables.now));
    assert_uniform(&draw(&tables, 0).0, &[1, 3, 4]);
}

#[test]
fn a_backend_is_eligible_again_after_its_ejection() {
    let mut tables = TestTables::with_route(VIP, &[], &[1, 2], 0);
    tables.health.insert(2, failed(tables.now));
    tables.now += Health::INITIAL_BACKOFF_NS + Health::UNIT_NS;
    assert_uniform(&draw(&tables, 0).0, &[1, 2]);
}

#[test]
fn a_sockets_last_backend_is_avoided_if_there_is_another() {
    let tables = TestTables::with_route(VIP, &[], &[1, 2, 3], 0);
    assert_uniform(&draw(&tables, 3).0, &[1, 2]);
    assert_uniform(&draw(&TestTables::with_route(VIP, &[], &[5], 0), 5).0, &[5]);
}

#[test]
fn a_sockets_last_backend_is_preferred_to_an_ejected_one() {
    let mut tables = TestTables::with_route(VIP, &[], &[1, 2], 0);
    tables.health.insert(2, failed(tables.now));
    let (counts, all_ejected) = draw(&tables, 1);
    assert_uniform(&counts, &[1]);
    assert_eq!(all_ejected, 0);
}

#[test]
fn if_all_are_ejected_all_are_tried_and_flagged() {
    let mut tables = TestTables::with_route(VIP, &[], &[1, 2], 0);
    for id in [1, 2] {
        tables.health.insert(id, failed(tables.now));
    }
    let (counts, all_ejected) = draw(&tables, 0);
    assert_uniform(&counts, &[1, 2]);
    assert_eq!(all_ejected, DRAWS);
}

#[test]
fn if_all_are_ejected_the_latest_success_is_preferred() {
    let mut tables = TestTables::with_route(VIP, &[], &[1, 2, 3], 0);
    for id in [1, 2, 3] {
        tables.fail(id);
        tables.succeeded.insert(id, [0, 7, 9, 8][id as usize]);
    }
    assert_uniform(&draw(&tables, 0).0, &[2]);
    assert_uniform(&draw(&tables, 2).0, &[3]);
}

#[test]
fn a_failure_of_others_or_at_another_port_is_ignored() {
    let mut tables = TestTables::with_route(VIP, &[], &[1, 2], 0);
    let other = Caller::new(CALLER.port(), Witness::cgroup(8));
    for caller in [other, Caller::new(PortBe::new(80), Witness::cgroup(7))] {
        tables.health.insert(1, Health::HEALTHY.after_failure(caller, tables.now));
        assert_uniform(&draw(&tables, 0).0, &[1, 2]);
        let backend = backend(&tables, Families::V4_ONLY, 2).expect("a backend");
        assert!(backend.id() == BackendId(1) && !backend.is_trial());
    }
    tables.health.insert(1, Health::HEALTHY.after_failure(other, tables.now).agreed_on(tables.now));
    assert_uniform(&draw(&tables, 0).0, &[2]);
}

#[test]
fn sixty_four_backends_are_all_reachable() {
    let ids: std::vec::Vec<u32> = (1..=64).collect();
    let tables = TestTables::with_route(VIP, &[(443, 443); 16], &ids, 0);
    assert_eq!(draw(&tables, 0).0.len(), 64);
}

#[test]
fn an_expired_ejection_leads_to_a_trial_if_there_is_another() {
    let trials = |tables: &TestTables, last| -> std::vec::Vec<(u32, bool)> {
        let drawn = (0..200).map(|_| backend(tables, Families::V4_ONLY, last).expect("a backend"));
        drawn.map(|backend| (backend.id().0, backend.is_trial())).collect()
    };
    let mut tables = TestTables::with_route(VIP, &[], &[1, 2], 0);
    tables.fail(2);
    assert!(trials(&tables, 0).iter().all(|&drawn| drawn == (1, false)), "ejected");
    tables.now += Health::INITIAL_BACKOFF_NS + Health::UNIT_NS;
    let due = trials(&tables, 0);
    assert!(
        due.contains(&(1, false))
            && due.contains(&(2, true))
            && due.iter().all(|&(id, trial)| trial == (id == 2)),
        "{due:?}"
    );
    let mut single = TestTables::with_route(VIP, &[], &[1], 0);
    single.fail(1);
    assert!(
        trials(&single, 0).iter().all(|&drawn| drawn == (1, false)),
        "a single backend is never on trial"
    );
}

fn another(tables: &TestTables, last: u32) -> bool {
    let backends: std::vec::Vec<bool> = (0..200)
        .map(|_| backend(tables, Families::V4_ONLY, last).expect("a backend").has_alternative())
        .collect();
    assert!(backends.iter().all(|&another| another == backends[0]), "the flag depends on the draw");
    backends[0]
}

#[test]
fn an_eligible_alternative_is_flagged() {
    let mut tables = TestTables::with_route(VIP, &[], &[1, 2, 3, 4], 0);
    assert!(another(&tables, 0));
    assert!(another(&tables, 1), "the last one of this socket is an alternative for its next");
    for id in [2, 3] {
        tables.health.insert(id, failed(tables.now));
    }
    assert!(another(&tables, 0));
    assert!(another(&tables, 4));
    tables.health.insert(4, failed(tables.now));
    assert!(!another(&tables, 0), "only one is eligible");
    tables.health.insert(1, failed(tables.now));
    assert!(another(&tables, 0), "none is eligible, and each may work again");
    tables.now += Health::INITIAL_BACKOFF_NS + Health::UNIT_NS;
    tables.fail(1);
    tables.fail(2);
    tables.fail(3);
    assert!(another(&tables, 0), "only one is eligible, which has failed");
    assert!(!another(&TestTables::with_route(VIP, &[], &[1], 0), 0));
}

#[test]
fn reading_the_neighbour_keeps_the_draw_uniform() {
    let mut tables = TestTables::with_route(VIP, &[], &[1, 2, 3, 4, 5], 0);
    tables.health.insert(3, failed(tables.now));
    tables.health.insert(5, failed(tables.now - 4_000_000_000));
    assert_uniform(&draw(&tables, 0).0, &[1, 2, 4, 5]);
}

#[test]
fn the_other_family_is_used_only_by_dual_stack_sockets() {
    let mixed = TestTables::with_route(VIP, &[], &[1, 2, 101, 102, 103], 0);
    let (four, six) = (
        TestTables::with_route(VIP, &[], &[1, 2], 0),
        TestTables::with_route(VIP, &[], &[101, 102], 0),
    );
    let dual4 = Families { prefer_v6: false, dual_stack: true };
    let dual6 = Families { prefer_v6: true, dual_stack: true };
    let only6 = Families { prefer_v6: true, dual_stack: false };
    for (families, from_mixed) in [
        (Families::V4_ONLY, &[1, 2][..]),
        (dual4, &[1, 2]),
        (dual6, &[101, 102, 103]),
        (only6, &[101, 102, 103]),
    ] {
        assert_uniform(&draw_for(&mixed, families, 0).0, from_mixed);
    }
    // One more IPv6 address than there are IPv4 addresses, so that the counts share no bit.
    let odd = TestTables::with_route(VIP, &[], &[1, 101, 102], 0);
    assert_uniform(&draw_for(&odd, only6, 0).0, &[101, 102]);
    assert_uniform(&draw_for(&four, dual6, 0).0, &[1, 2]);
    assert_uniform(&draw_for(&six, dual4, 0).0, &[101, 102]);
    let any = |tables: &TestTables, families| backend(tables, families, 0);
    assert_eq!(any(&four, only6), None);
    assert_eq!(any(&six, Families::V4_ONLY), None);
}
