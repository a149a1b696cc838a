//! Which of the addresses that a destination's name has are used, and how often it is looked up.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use hickory_proto::{op::ResponseCode, rr::RecordType};
use redirector::{
    backend::{Freshness, Resolved, Target},
    route::SourceName,
};

use crate::{
    follower_rig::{FollowerRig, addresses, by_name},
    message::{parsed, reply},
    running_shim::TEST_TIMEOUT,
    scripted_upstream::{Action, ScriptedUpstream},
    scripted_zone::{NAME, ScriptedZone, ZoneScript, one, v4, v6},
};

#[tokio::test]
async fn a_name_never_leads_to_this_host_or_the_pool() {
    let records = [
        "203.0.113.7",
        "127.0.0.1",
        "169.254.169.254",
        "255.255.255.255",
        "240.0.0.1",
        "0.0.0.0",
        "224.0.0.1",
        "198.18.3.4",
    ];
    let mut records: Vec<_> = records.map(|address| (NAME, v4(address), 1)).into();
    let v6s = ["2001:db8::7", "::1", "fe80::1", "ff02::1", "::ffff:127.0.0.1"];
    records.extend(v6s.map(|address| (NAME, v6(address), 1)));
    let zone = ScriptedZone::new(ZoneScript::Records(records));
    let upstream = zone.serve().await;
    let (rig, resolved) = FollowerRig::follow(&[upstream.address]).await;
    let used = addresses(&["203.0.113.7", "2001:db8::7"]);
    assert_eq!(resolved.addresses, used);
    assert_eq!(resolved.rejected.len(), 11, "{:?}", resolved.rejected);
    let shown: Vec<_> = resolved.rejected.iter().map(ToString::to_string).collect();
    assert!(shown.contains(&"127.0.0.1 (loopback)".to_owned()), "{shown:?}");
    assert!(shown.contains(&"169.254.169.254 (link-local)".to_owned()), "{shown:?}");

    // An answer with nothing else is a failure, as from a filter that blocks the name.
    zone.set(ZoneScript::Records(vec![(NAME, v4("169.254.169.254"), 1), (NAME, v6("::1"), 1)]));
    let is_stale = |resolved: &Resolved| matches!(&resolved.freshness, Freshness::Stale { .. });
    let stale = rig.until("stale", is_stale).await;
    let Freshness::Stale { error } = &stale.freshness else { panic!("{stale:?}") };
    assert!(error.contains("no usable address: 169.254.169.254 (link-local)"), "{error}");
    tokio::time::sleep(Duration::from_secs(4)).await;
    assert_eq!(rig.now().addresses, used);
}

#[tokio::test]
async fn a_name_with_one_address_at_a_time_keeps_all() {
    let answers = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&answers);
    let upstream = ScriptedUpstream::start(move |received| {
        let kind = parsed(&received.query).queries[0].query_type();
        if kind == RecordType::AAAA {
            return ScriptedZone::new(ZoneScript::Records(vec![])).answer(received);
        }
        let turn = count.fetch_add(1, Ordering::Relaxed) % 3;
        let address = ["203.0.113.7", "203.0.113.8", "203.0.113.9"][turn];
        ScriptedZone::new(one(address, 1)).answer(received)
    })
    .await;
    let (rig, resolved) = FollowerRig::follow(&[upstream.address]).await;
    assert_eq!(resolved.addresses, addresses(&["203.0.113.7"]));
    let all = addresses(&["203.0.113.7", "203.0.113.8", "203.0.113.9"]);
    rig.until("all addresses", |resolved| resolved.addresses == all).await;
    // No further answer changes the backends, so each keeps its health.
    let before = answers.load(Ordering::Relaxed);
    let updates = rig.follower.subscribe();
    while answers.load(Ordering::Relaxed) < before + 4 {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(!updates.has_changed().expect("still running"));
    assert_eq!(rig.now().addresses, all);
}

#[tokio::test]
async fn each_family_has_room_among_many_addresses() {
    let mut records: Vec<_> =
        (0..100).map(|last| (NAME, v4(&format!("203.0.113.{last}")), 60)).collect();
    records.extend((0..40).map(|last| (NAME, v6(&format!("2001:db8::{last:x}")), 60)));
    let zone = ScriptedZone::new(ZoneScript::Records(records));
    let upstream = zone.serve().await;
    let (_rig, resolved) = FollowerRig::follow(&[upstream.address]).await;
    let v4s = resolved.addresses.iter().filter(|address| address.is_ipv4()).count();
    assert_eq!((resolved.addresses.len(), v4s), (64, 32));
    assert_eq!(resolved.left_out.len(), 76);
    let all: BTreeSet<IpAddr> =
        resolved.addresses.iter().chain(&resolved.left_out).copied().collect();
    assert_eq!(all.len(), 140, "none is lost");
}

fn source_of(number: usize) -> SourceName {
    format!("host-{number}.internal.company.net").parse().expect("a source")
}

/// `routes` routes, whose destinations are `names` names.
fn targets(routes: usize, names: usize) -> BTreeMap<SourceName, Target> {
    let target = |n: usize| (source_of(n), by_name(&format!("lb-{}.company.net", n % names)));
    (0..routes).map(target).collect()
}

#[tokio::test]
async fn routes_of_one_name_share_its_look_up() {
    const NAMES: usize = 50;
    let upstream = ScriptedUpstream::start(|received| {
        vec![Action::Send(reply(&received.query, ResponseCode::Refused, &[]))]
    })
    .await;
    let rig = FollowerRig::start(&[upstream.address]);
    rig.follower.set_targets(targets(10_000, NAMES));
    tokio::time::sleep(Duration::from_millis(3500)).await;
    let queries = upstream.queries().len();
    // Two families, at 0, 1 and 3 s.
    assert!((2 * NAMES..=6 * NAMES).contains(&queries), "{queries} queries");
    for number in [0, 4711, 9999] {
        let resolved = rig.follower.resolved(&source_of(number)).expect("followed");
        assert!(matches!(resolved.freshness, Freshness::Unresolved { error: Some(_) }));
    }
    // Each route is reported as changed, in parts.
    let mut changed = BTreeSet::new();
    loop {
        let part = rig.follower.take_changed(3000);
        if part.is_empty() {
            break;
        }
        assert!(part.len() <= 3000);
        changed.extend(part);
    }
    assert_eq!(changed.len(), 10_000);
}

#[tokio::test]
async fn look_ups_of_a_silent_resolver_are_bounded() {
    let upstream = ScriptedUpstream::start(|_| vec![]).await;
    let rig = FollowerRig::start(&[upstream.address]);
    rig.follower.set_targets(targets(10_000, 10_000));
    tokio::time::sleep(Duration::from_secs(1)).await;
    let names: BTreeSet<_> = upstream
        .queries()
        .iter()
        .map(|received| parsed(&received.query).queries[0].name().to_string())
        .collect();
    assert!((1..=32).contains(&names.len()), "{} names at once", names.len());
}

#[tokio::test]
async fn a_shared_name_is_followed_until_its_last_route_goes() {
    let zone = ScriptedZone::new(one("203.0.113.7", 1));
    let upstream = zone.serve().await;
    let rig = FollowerRig::start(&[upstream.address]);
    let (one_source, other) = (source_of(1), source_of(2));
    rig.follower.set_target(&one_source, Some(by_name(NAME)));
    rig.follower.wait_for_answer(&one_source, TEST_TIMEOUT).await;
    let before = upstream.queries().len();
    rig.follower.set_target(&other, Some(by_name(NAME)));
    let resolved = rig.follower.resolved(&other).expect("followed");
    assert_eq!(resolved.addresses, addresses(&["203.0.113.7"]), "known at once");
    assert_eq!(upstream.queries().len(), before);

    rig.follower.set_target(&one_source, None);
    assert_eq!(rig.follower.resolved(&one_source), None);
    zone.set(one("203.0.113.8", 1));
    let followed = async {
        while rig.follower.resolved(&other).expect("followed").addresses
            != addresses(&["203.0.113.8"])
        {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(TEST_TIMEOUT, followed).await.expect("still followed");

    rig.follower.set_target(&other, None);
    // A look-up may be under way.
    tokio::time::sleep(Duration::from_millis(300)).await;
    let before = upstream.queries().len();
    tokio::time::sleep(Duration::from_millis(1500)).await;
    assert_eq!(upstream.queries().len(), before, "no longer looked up");
}
