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
const FOUR_FIRST: Families = Families { six_first: false, both: true };

/// What the hook tries, in its order, before the long way.
fn short(tables: &TestTables, client: &TestClient) -> Option<Choice> {
    only(tables, VIP, client).or_else(|| one_of_few(tables, VIP, client))
}

fn long(tables: &TestTables, client: &TestClient) -> Option<Choice> {
    let mut choice = Choice::default();
    (connect(tables, VIP, client, &mut choice) == Verdict::Redirect).then_some(choice)
}

/// Everything that can come of many connects.
fn outcomes(
    tables: &TestTables,
    client: &TestClient,
    way: fn(&TestTables, &TestClient) -> Option<Choice>,
) -> BTreeSet<std::string::String> {
    let outcome = |choice: Choice| {
        let flags = [choice.another(), choice.desperate(), choice.trial(), choice.has_options()];
        std::format!(
            "{:?} {:?} {:?} {flags:?}",
            choice.id(),
            choice.port(),
            choice.address(tables, client.families)
        )
    };
    (0..300).map(|_| way(tables, client).map_or_else(|| "none".into(), outcome)).collect()
}

#[test]
fn a_short_way_leads_where_the_long_one_does() {
    for ids in [&[1][..], &[1, 101], &[1, 2], &[1, 2, 3, 101, 102], &[1, 2, 3, 4]] {
        for policy in [0, RouteEntry::PASS] {
            for families in [Families::ONLY4, FOUR_FIRST] {
                let (tables, client) = (
                    TestTables::with_route(VIP, &[], ids, policy),
                    TestClient { families, ..TestClient::default() },
                );
                assert!(short(&tables, &client).is_some(), "{ids:?}");
                assert_eq!(
                    outcomes(&tables, &client, short),
                    outcomes(&tables, &client, long),
                    "{ids:?}"
                );
            }
        }
    }
}

#[test]
fn whatever_else_there_is_to_decide_takes_the_long_way() {
    let aside = |ids: &[u32], id| {
        let mut tables = TestTables::with_route(VIP, &[], ids, 0);
        tables.fail(id);
        tables
    };
    let replaced = |ids: &[u32]| {
        let mut tables = TestTables::with_route(VIP, &[], ids, 0);
        tables.flip_after_first_read(VIP);
        tables
    };
    let others = [
        ("no route", TestTables::default()),
        ("no backend", TestTables::with_route(VIP, &[], &[], 0)),
        ("five backends", TestTables::with_route(VIP, &[], &[1, 2, 3, 4, 5], 0)),
        ("no IPv4 backend", TestTables::with_route(VIP, &[], &[101], 0)),
        ("a list of ports", TestTables::with_route(VIP, &[(443, 443)], &[1], 0)),
        ("options", TestTables::with_options(VIP, &[1, 2], 350, &[])),
        ("the only one is set aside", aside(&[1], 1)),
        ("one of two is set aside", aside(&[1, 2], 2)),
        ("one of four is set aside", aside(&[1, 2, 3, 4], 4)),
    ];
    let client = TestClient::default();
    for (what, tables) in others {
        for _ in 0..30 {
            assert_eq!(short(&tables, &client), None, "{what}");
        }
    }
    assert_eq!(only(&replaced(&[1]), VIP, &client), None, "a block that was replaced meanwhile");
    assert_eq!(
        one_of_few(&replaced(&[1, 2]), VIP, &client),
        None,
        "a block that was replaced meanwhile"
    );
    for ids in [&[1][..], &[1, 2]] {
        let tables = TestTables::with_route(VIP, &[], ids, 0);
        assert_eq!(
            short(&tables, &TestClient { last: BackendId(1), ..client }),
            None,
            "a socket that tries again"
        );
        let six = Families { six_first: true, both: true };
        assert_eq!(short(&tables, &TestClient { families: six, ..client }), None, "an IPv6 VIP");
        assert_eq!(
            short(&tables, &TestClient { port: PortBe::new(22), ..client })
                .map(|choice| choice.port().get()),
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
                one_of_few(&tables, VIP, &TestClient::default())
                    .is_some_and(|choice| choice.id().0 == id)
            })
            .count();
        assert!(drawn.abs_diff(DRAWS / 3) < DRAWS / 50, "{id}: {drawn} of {DRAWS}");
    }
}
