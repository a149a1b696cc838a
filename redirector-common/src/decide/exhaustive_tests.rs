//! What must hold for every route of up to four backends, in every state, for every draw, and
//! wherever its block is replaced: small domains, each tried whole.

extern crate std;
use core::cell::Cell;
use std::{collections::BTreeMap, vec::Vec};

use super::{
    backend::Backend,
    connect::{Verdict, connect},
    fast_path::{few_backends, single_backend},
    packed::Families,
    tables::Tables,
    test_tables::{CALLER, TestClient, TestTables, searches_of_these_tables},
};
use crate::{
    addr::{Ip6Be, PortBe},
    backend::{BackendId, Caller, Health, Witness},
    route::{RouteEntry, Slot},
};

const VIP: u32 = 1;
/// Each number of candidates up to four divides this number of draws.
const DRAWS: u32 = 12;
const ALL_DRAWS: u32 = DRAWS * DRAWS;

/// Tables that are replaced by others after some reads, and with given random numbers.
struct Scripted<'a> {
    before: &'a TestTables,
    after: &'a TestTables,
    reads_before: Cell<u32>,
    draws: [Cell<u32>; 2],
}

impl<'a> Scripted<'a> {
    fn new(tables: &'a TestTables, draws: u32) -> Self {
        Self::replaced((tables, tables), u32::MAX, draws)
    }

    fn replaced(
        (before, after): (&'a TestTables, &'a TestTables),
        reads_before: u32,
        draws: u32,
    ) -> Self {
        let draws = [Cell::new(draws % DRAWS), Cell::new(draws / DRAWS)];
        Self { before, after, reads_before: Cell::new(reads_before), draws }
    }

    fn tables(&self) -> &TestTables {
        match self.reads_before.get() {
            0 => self.after,
            left => {
                self.reads_before.set(left - 1);
                self.before
            }
        }
    }
}

impl Tables for Scripted<'_> {
    fn route(&self, index: u32) -> RouteEntry {
        self.tables().route(index)
    }
    fn slot(&self, index: u32) -> Slot {
        self.tables().slot(index)
    }
    fn address6(&self, id: BackendId) -> Ip6Be {
        TestTables::address(id.0)
    }
    fn connects(&self, index: u32) -> u32 {
        self.before.connects(index)
    }
    fn health(&self, id: BackendId, port: PortBe) -> Health {
        self.before.health(id, port)
    }
    fn succeeded_ns(&self, id: BackendId) -> Option<u64> {
        self.before.succeeded_ns(id)
    }
    fn now_ns(&self) -> u64 {
        self.before.now
    }
    /// The middle of one of as many parts as there are draws.
    fn random(&self) -> u32 {
        let draw = self.draws[0].replace(self.draws[1].get());
        ((u64::from(draw * 2 + 1) << 32) / u64::from(DRAWS * 2)) as u32
    }
    searches_of_these_tables!();
}

/// The states of a backend, each with whether the caller may get it while others are eligible.
fn states(now: u64) -> [(Health, bool); 6] {
    let other = Caller::new(CALLER.port(), Witness::cgroup(8));
    let failed = |caller, at| Health::HEALTHY.after_failure(caller, at);
    let over = now - Health::INITIAL_BACKOFF_NS - 2 * Health::UNIT_NS;
    [
        (Health::HEALTHY, true),
        (failed(CALLER, now), false),
        (failed(other, now), true),
        (failed(other, now).agreed_on(now), false),
        (failed(CALLER, over), true),
        (failed(CALLER, over).on_trial(CALLER, now), false),
    ]
}

/// Calls `check` with each route of up to four backends, their eligibility and the last backend.
fn each_route(check: impl Fn(&TestTables, &[(u32, bool)], u32)) {
    let now = TestTables::default().now;
    let states = states(now);
    for count in 1..=4_u32 {
        let ids: Vec<u32> = (1..=count).collect();
        for combination in 0..states.len().pow(count) {
            let mut tables = TestTables::with_route(VIP, &[], &ids, 0);
            let of = |id: u32| states[combination / states.len().pow(id - 1) % states.len()];
            for &id in &ids {
                tables.health.insert(id, of(id).0);
                tables.succeeded.insert(id, u64::from(id * 7 % 5));
            }
            let backends: Vec<(u32, bool)> = ids.iter().map(|&id| (id, of(id).1)).collect();
            for last in 0..=count {
                check(&tables, &backends, last);
            }
        }
    }
}

fn client(last: u32) -> TestClient {
    TestClient { last: BackendId(last), ..TestClient::default() }
}

/// Whom the contract allows, and whether all are ejected.
fn allowed(tables: &TestTables, backends: &[(u32, bool)], last: u32) -> (Vec<u32>, bool) {
    let ids = |wanted: &dyn Fn(u32, bool) -> bool| -> Vec<u32> {
        backends.iter().filter(|at| wanted(at.0, at.1)).map(|at| at.0).collect()
    };
    let others = ids(&|id, eligible| eligible && id != last);
    if !others.is_empty() {
        return (others, false);
    }
    let own = ids(&|_, eligible| eligible);
    if !own.is_empty() {
        return (own, false);
    }
    // The one that worked last, but for the socket's own; all alike if none has worked.
    let worked = |id: u32| tables.succeeded[&id];
    let latest = backends.iter().filter(|at| at.0 != last).map(|at| worked(at.0)).max();
    match latest.filter(|latest| *latest > 0) {
        Some(latest) => (ids(&|id, _| id != last && worked(id) == latest), true),
        None => (ids(&|_, _| true), true),
    }
}

#[test]
fn every_draw_is_of_the_block_and_all_are_uniform() {
    each_route(|tables, backends, last| {
        let (mut expected, all_ejected) = allowed(tables, backends, last);
        let mut counts = BTreeMap::new();
        for draws in 0..ALL_DRAWS {
            let scripted = Scripted::new(tables, draws);
            let mut found = Backend::default();
            let verdict = connect(&scripted, VIP, &client(last), &mut found);
            assert_eq!(verdict, Verdict::Redirect);
            let id = found.id().0;
            assert_eq!(found.address(&scripted, Families::V4_ONLY), TestTables::address(id));
            assert_eq!(found.all_ejected(), all_ejected, "{backends:?}, last {last}");
            *counts.entry(id).or_insert(0) += 1;
        }
        let drawn: Vec<u32> = counts.keys().copied().collect();
        expected.retain(|id| !all_ejected || counts.contains_key(id));
        assert_eq!(drawn, expected, "{backends:?}, last {last}");
        let fair = ALL_DRAWS / expected.len() as u32;
        let even = counts.values().all(|&count| count == fair);
        assert!(even || all_ejected, "{backends:?}, last {last}: {counts:?}");
    });
}

#[test]
fn only_an_expired_own_ejection_leads_to_a_trial() {
    each_route(|tables, backends, last| {
        for draws in 0..ALL_DRAWS {
            let mut found = Backend::default();
            connect(&Scripted::new(tables, draws), VIP, &client(last), &mut found);
            let health = tables.health[&found.id().0];
            let failed = health.concerns_bit(CALLER) == 1;
            let others = backends.iter().any(|at| at.1 && at.0 != found.id().0);
            let trial = failed && others && !found.all_ejected();
            assert_eq!(found.is_trial(), trial, "{backends:?}, last {last}");
            let retry = failed && backends.len() > 1;
            assert_eq!(found.has_alternative(), others || retry, "{backends:?}, last {last}");
        }
    });
}

#[test]
fn the_fast_paths_allow_what_the_others_allow() {
    each_route(|tables, backends, last| {
        let healthy = tables.health.values().all(|&health| health == Health::HEALTHY);
        let mut counts = BTreeMap::new();
        for draws in 0..DRAWS {
            let scripted = Scripted::new(tables, draws);
            let found = match backends.len() {
                1 => single_backend(&scripted, VIP, &client(last)),
                _ => few_backends(&scripted, VIP, &client(last)),
            };
            assert_eq!(found.is_some(), healthy && last == 0, "{backends:?}, last {last}");
            let Some(found) = found else { continue };
            assert_eq!(found.has_alternative(), backends.len() > 1);
            *counts.entry(found.id().0).or_insert(0) += 1;
        }
        let fair = DRAWS / backends.len() as u32;
        assert!(counts.values().all(|&count| count == fair), "{backends:?}: {counts:?}");
    });
}

/// The block becomes another route's, and this route gets a new one: wherever that happens, a
/// connect gets a backend of its own route's, and never none.
#[test]
fn a_block_that_is_replaced_at_any_read_leads_to_no_other_route() {
    for (ports, ids) in [
        (&[][..], &[1][..]),
        (&[], &[1, 2, 3]),
        (&[(443, 443)], &[1, 2]),
        (&[(80, 80), (443, 443)], &[1, 2, 3, 4]),
    ] {
        for failed in 0..1_u32 << ids.len() {
            let mut before = TestTables::with_route(VIP, ports, ids, 0);
            let failing = ids.iter().filter(|&&id| failed >> (id - 1) & 1 != 0);
            failing.for_each(|&id| before.fail(id));
            let mut after = TestTables::with_route(VIP, ports, ids, 0);
            after.replace_after_first_read(VIP);
            after.route(VIP);
            for (reads, draws) in (0..60).flat_map(|reads| (0..DRAWS).map(move |at| (reads, at))) {
                let scripted = || Scripted::replaced((&before, &after), reads, draws);
                let mut found = Backend::default();
                let verdict = connect(&scripted(), VIP, &client(0), &mut found);
                let own = |id: u32| ids.contains(&id) || [9, 10, 11].contains(&id);
                assert_eq!(verdict, Verdict::Redirect, "after {reads} reads");
                let address = found.address(&scripted(), Families::V4_ONLY);
                let id = found.id().0;
                assert!(own(id) && address == TestTables::address(id), "{id} after {reads} reads");
                let fast = single_backend(&scripted(), VIP, &client(0));
                if let Some(fast) = fast.or(few_backends(&scripted(), VIP, &client(0))) {
                    assert!(own(fast.id().0), "{fast:?} after {reads} reads");
                }
            }
        }
    }
}
