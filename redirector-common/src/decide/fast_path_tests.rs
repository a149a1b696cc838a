extern crate std;
use std::collections::BTreeSet;

use super::*;
use crate::{
    addr::PortBe,
    decide::{
        connect::{Verdict, connect},
        test_tables::{TestClient, TestTables},
    },
};

const VIP: u32 = 7;
const FOUR_FIRST: Families = Families { prefer_v6: false, dual_stack: true };

/// The fast paths, in the order in which the hook tries them.
fn fast(tables: &TestTables, client: &TestClient) -> Option<Backend> {
    single_backend(tables, VIP, client).or_else(|| few_backends(tables, VIP, client))
}

fn slow(tables: &TestTables, client: &TestClient) -> Option<Backend> {
    let mut backend = Backend::default();
    (connect(tables, VIP, client, &mut backend) == Verdict::Redirect).then_some(backend)
}

/// The different results of many connects.
fn outcomes(
    tables: &TestTables,
    client: &TestClient,
    path: fn(&TestTables, &TestClient) -> Option<Backend>,
) -> BTreeSet<std::string::String> {
    let outcome = |backend: Backend| {
        let flags = [
            backend.has_alternative(),
            backend.all_ejected(),
            backend.is_trial(),
            backend.has_options(),
        ];
        std::format!(
            "{:?} {:?} {:?} {flags:?}",
            backend.id(),
            backend.port(),
            backend.address(tables, client.families)
        )
    };
    (0..300).map(|_| path(tables, client).map_or_else(|| "none".into(), outcome)).collect()
}

#[test]
fn a_fast_path_decides_as_the_slow_path_does() {
    for ids in [&[1][..], &[1, 101], &[1, 2], &[1, 2, 3, 101, 102], &[1, 2, 3, 4]] {
        for policy in [0, RouteEntry::PASS] {
            for families in [Families::V4_ONLY, FOUR_FIRST] {
                let (tables, client) = (
                    TestTables::with_route(VIP, &[], ids, policy),
                    TestClient { families, ..TestClient::default() },
                );
                assert!(fast(&tables, &client).is_some(), "{ids:?}");
                assert_eq!(
                    outcomes(&tables, &client, fast),
                    outcomes(&tables, &client, slow),
                    "{ids:?}"
                );
            }
        }
    }
}

#[test]
fn everything_else_takes_the_slow_path() {
    let ejected = |ids: &[u32], id| {
        let mut tables = TestTables::with_route(VIP, &[], ids, 0);
        tables.fail(id);
        tables
    };
    let replaced = |ids: &[u32]| {
        let mut tables = TestTables::with_route(VIP, &[], ids, 0);
        tables.replace_after_first_read(VIP);
        tables
    };
    let others = [
        ("no route", TestTables::default()),
        ("no backend", TestTables::with_route(VIP, &[], &[], 0)),
        ("five backends", TestTables::with_route(VIP, &[], &[1, 2, 3, 4, 5], 0)),
        ("no IPv4 backend", TestTables::with_route(VIP, &[], &[101], 0)),
        ("a list of ports", TestTables::with_route(VIP, &[(443, 443)], &[1], 0)),
        ("options", TestTables::with_options(VIP, &[1, 2], 350, &[])),
        ("the only one is ejected", ejected(&[1], 1)),
        ("one of two is ejected", ejected(&[1, 2], 2)),
        ("one of four is ejected", ejected(&[1, 2, 3, 4], 4)),
    ];
    let client = TestClient::default();
    for (what, tables) in others {
        for _ in 0..30 {
            assert_eq!(fast(&tables, &client), None, "{what}");
        }
    }
    assert_eq!(single_backend(&replaced(&[1]), VIP, &client), None, "a block that was replaced");
    assert_eq!(few_backends(&replaced(&[1, 2]), VIP, &client), None, "a block that was replaced");
    for ids in [&[1][..], &[1, 2]] {
        let tables = TestTables::with_route(VIP, &[], ids, 0);
        assert_eq!(
            fast(&tables, &TestClient { last: BackendId(1), ..client }),
            None,
            "a second connect"
        );
        let six = Families { prefer_v6: true, dual_stack: true };
        assert_eq!(fast(&tables, &TestClient { families: six, ..client }), None, "an IPv6 VIP");
        assert_eq!(
            fast(&tables, &TestClient { port: PortBe::new(22), ..client })
                .map(|backend| backend.port().get()),
            Some(22)
        );
    }
}

#[test]
fn one_of_a_few_is_drawn_uniformly() {
    const DRAWS: usize = 30_000;
    let tables = TestTables::with_route(VIP, &[], &[1, 2, 3], 0);
    for id in 1..=3 {
        let drawn = (0..DRAWS)
            .filter(|_| {
                few_backends(&tables, VIP, &TestClient::default())
                    .is_some_and(|backend| backend.id().0 == id)
            })
            .count();
        assert!(drawn.abs_diff(DRAWS / 3) < DRAWS / 50, "{id}: {drawn} of {DRAWS}");
    }
}
