extern crate std;

use super::*;
use crate::{
    addr::Ip6Be,
    backend::BackendId,
    decide::{
        backend::SocketOptions,
        packed::Families,
        test_tables::{TestClient, TestTables},
    },
    route::RouteEntry,
};

const VIP: u32 = 7;

/// Connects an `AF_INET` socket: its backend, or the verdict without one.
fn connect(
    tables: &TestTables,
    index: u32,
    port: PortBe,
    last: BackendId,
) -> Result<Backend, Verdict> {
    connect_client(tables, index, TestClient { port, families: Families::V4_ONLY, last })
}

fn connect_client(tables: &TestTables, index: u32, client: TestClient) -> Result<Backend, Verdict> {
    let mut backend = Backend::default();
    match super::connect(tables, index, &client, &mut backend) {
        Verdict::Redirect => Ok(backend),
        other => Err(other),
    }
}

#[test]
fn a_vip_without_a_route_is_refused() {
    assert_eq!(
        connect(&TestTables::default(), VIP, PortBe::new(443), BackendId::NONE),
        Err(Verdict::Refuse)
    );
}

#[test]
fn without_a_port_list_every_port_stays_the_same() {
    let tables = TestTables::with_route(VIP, &[], &[1], 0);
    for port in [1, 443, 65535] {
        let Ok(backend) = connect(&tables, VIP, PortBe::new(port), BackendId::NONE) else {
            panic!("not redirected")
        };
        assert_eq!(backend.port().get(), port);
        assert!(!backend.has_options());
    }
}

#[test]
fn a_listed_port_is_mapped_and_any_other_is_refused() {
    let tables = TestTables::with_route(VIP, &[(443, 443), (80, 8080)], &[1], 0);
    let port = |asked| {
        connect(&tables, VIP, PortBe::new(asked), BackendId::NONE)
            .ok()
            .map(|backend| backend.port().get())
    };
    assert_eq!((port(443), port(80), port(8080), port(22)), (Some(443), Some(8080), None, None));
}

#[test]
fn a_denial_has_its_reason() {
    let tables = TestTables::with_route(VIP, &[(443, 443)], &[], 0);
    let reason = |index, port| deny_reason(&tables, index, PortBe::new(port));
    assert_eq!(reason(VIP + 1, 443), DenyReason::NoRoute);
    assert_eq!(reason(VIP, 80), DenyReason::PortNotListed);
    assert_eq!(reason(VIP, 443), DenyReason::NoBackend);
}

#[test]
fn the_policy_decides_between_pass_and_refuse() {
    let pass = RouteEntry::PASS;
    assert_eq!(
        connect(
            &TestTables::with_route(VIP, &[(443, 443)], &[1], pass),
            VIP,
            PortBe::new(22),
            BackendId::NONE
        ),
        Err(Verdict::Pass)
    );
    assert_eq!(
        connect(
            &TestTables::with_route(VIP, &[], &[], pass),
            VIP,
            PortBe::new(443),
            BackendId::NONE
        ),
        Err(Verdict::Pass)
    );
    assert_eq!(
        connect(&TestTables::with_route(VIP, &[], &[], 0), VIP, PortBe::new(443), BackendId::NONE),
        Err(Verdict::Refuse)
    );
}

#[test]
fn a_block_that_was_replaced_is_read_again() {
    let mut tables = TestTables::with_route(VIP, &[(443, 443)], &[1], 0);
    tables.replace_after_first_read(VIP);
    let Ok(backend) = connect(&tables, VIP, PortBe::new(443), BackendId::NONE) else {
        panic!("not redirected")
    };
    assert!(
        [9, 10, 11].map(TestTables::address).contains(&backend.address(&tables, Families::V4_ONLY)),
        "{backend:?}"
    );
}

#[test]
fn a_repeated_read_avoids_ejected_backends_unless_all_are() {
    let again = |ejected: &[u32]| -> std::collections::BTreeSet<u32> {
        let seen = (0..100).map(|seed| {
            let mut tables = TestTables::with_route(VIP, &[(443, 443)], &[1], 0);
            tables.seed(seed);
            tables.replace_after_first_read(VIP);
            for &id in ejected {
                tables.fail(id);
            }
            let Ok(backend) = connect(&tables, VIP, PortBe::new(443), BackendId::NONE) else {
                panic!("not redirected")
            };
            assert_eq!(backend.all_ejected(), ejected.len() == 3);
            backend.id().0
        });
        seen.collect()
    };
    assert_eq!(again(&[]), [9, 10, 11].into());
    assert_eq!(again(&[9]), [10, 11].into());
    assert_eq!(again(&[9, 10, 11]), [9, 10, 11].into());
}

#[test]
fn source_addresses_of_the_backends_family_take_turns() {
    let tables = TestTables::with_options(VIP, &[1, 101], 350, &[2, 3, 4, 102, 103]);
    let sources = |families| -> std::vec::Vec<Ip6Be> {
        let client = TestClient { families, ..TestClient::default() };
        let source = |_| {
            let backend = connect_client(&tables, VIP, client).expect("redirected");
            let options = backend.options(&tables, VIP, families);
            assert_eq!(options.idle_seconds, 350);
            options.source
        };
        (0..6).map(source).collect()
    };
    let [two, three, four] = [2, 3, 4].map(TestTables::address);
    assert_eq!(sources(Families::V4_ONLY), [three, four, two, three, four, two]);
    let [two, three] = [102, 103].map(TestTables::address);
    assert_eq!(
        sources(Families { prefer_v6: true, dual_stack: true }),
        [three, two, three, two, three, two]
    );
    let tables = TestTables::with_options(VIP, &[1], 0, &[]);
    let Ok(backend) = connect(&tables, VIP, PortBe::new(443), BackendId::NONE) else {
        panic!("not redirected")
    };
    assert!(backend.has_options());
    assert_eq!(backend.options(&tables, VIP, Families::V4_ONLY), SocketOptions::default());
}
