//! The addresses of destinations when answers change, fail or vanish.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use hickory_proto::{
    op::ResponseCode,
    rr::{RData, RecordType, rdata::CNAME},
};
use redirector::{
    backend::{Freshness, Target},
    route::{Destination, SourceName},
};

use crate::{
    follower_rig::{FollowerRig, addresses, by_name, only, source},
    message::{bytes, name_of, parsed, reply},
    running_shim::TEST_TIMEOUT,
    scripted_upstream::{Action, ScriptedUpstream},
    scripted_zone::{NAME, ScriptedZone, ZoneScript, one, v4, v6},
};

#[tokio::test]
async fn both_families_are_merged_sorted_and_deduplicated() {
    let records =
        ["203.0.113.8", "203.0.113.7", "203.0.113.8"].map(|address| (NAME, v4(address), 20));
    let zone = ScriptedZone::new(ZoneScript::Records(
        records.into_iter().chain([(NAME, v6("2001:db8::7"), 10)]).collect(),
    ));
    let upstream = zone.serve().await;
    let (rig, resolved) = FollowerRig::follow(&[upstream.address]).await;
    assert_eq!(resolved.addresses, addresses(&["203.0.113.7", "203.0.113.8", "2001:db8::7"]));
    assert_eq!(
        (resolved.freshness.clone(), resolved.ttl),
        (Freshness::Fresh, Duration::from_secs(10))
    );
    assert_eq!(rig.now(), resolved);
}

#[tokio::test]
async fn cnames_are_followed_and_their_ttl_counts() {
    let alias = |target: &str| RData::CNAME(CNAME(name_of(target)));
    let zone = ScriptedZone::new(ZoneScript::Records(vec![
        (NAME, alias("lb.cloud.example"), 7),
        ("lb.cloud.example", alias("lb-1.cloud.example"), 300),
        ("lb-1.cloud.example", v4("203.0.113.7"), 60),
    ]));
    let upstream = zone.serve().await;
    let (_rig, resolved) = FollowerRig::follow(&[upstream.address]).await;
    assert_eq!(resolved.addresses, addresses(&["203.0.113.7"]));
    assert_eq!(resolved.ttl, Duration::from_secs(7));
}

#[tokio::test]
async fn a_cname_whose_target_needs_another_query_is_followed() {
    let alias = RData::CNAME(CNAME(name_of("lb.cloud.example")));
    let zone = ScriptedUpstream::start(move |received| {
        let is_alias = parsed(&received.query).queries[0].name() == &name_of(NAME);
        let records = if is_alias {
            vec![(NAME, alias.clone(), 5)]
        } else {
            vec![("lb.cloud.example", v4("203.0.113.7"), 60)]
        };
        ScriptedZone::new(ZoneScript::Records(records)).answer(received)
    })
    .await;
    let (_rig, resolved) = FollowerRig::follow(&[zone.address]).await;
    assert_eq!(resolved.addresses, addresses(&["203.0.113.7"]));
    assert_eq!(resolved.ttl, Duration::from_secs(5));
}

#[tokio::test]
async fn a_change_is_followed_when_the_ttl_ends() {
    let zone = ScriptedZone::new(one("203.0.113.7", 0));
    let upstream = zone.serve().await;
    let (rig, resolved) = FollowerRig::follow(&[upstream.address]).await;
    assert_eq!(
        (resolved.addresses, resolved.ttl),
        (addresses(&["203.0.113.7"]), Duration::from_secs(1))
    );
    zone.set(one("203.0.113.8", 100_000));
    let start = Instant::now();
    let resolved =
        rig.until("the change", |resolved| resolved.addresses == addresses(&["203.0.113.8"])).await;
    assert!(start.elapsed() < Duration::from_secs(4), "{:?}", start.elapsed());
    assert_eq!(resolved.ttl, Duration::from_secs(300), "a long TTL is limited");
}

#[tokio::test]
async fn a_failure_keeps_the_last_addresses_as_stale() {
    let zone = ScriptedZone::new(one("203.0.113.7", 1));
    let upstream = zone.serve().await;
    let (rig, good) = FollowerRig::follow(&[upstream.address]).await;
    zone.set(ZoneScript::Code(ResponseCode::ServFail));
    let stale =
        rig.until("stale", |resolved| matches!(resolved.freshness, Freshness::Stale { .. })).await;
    assert_eq!(stale.addresses, good.addresses);
    let expected = format!("{} answered SERVFAIL", upstream.address);
    assert_eq!(stale.freshness, Freshness::Stale { error: expected });
    zone.set(one("203.0.113.7", 1));
    rig.until("fresh", |resolved| resolved.freshness == Freshness::Fresh).await;
}

#[tokio::test]
async fn only_the_third_negative_answer_empties_a_route() {
    let zone = ScriptedZone::new(one("203.0.113.7", 1));
    let upstream = zone.serve().await;
    let (rig, good) = FollowerRig::follow(&[upstream.address]).await;
    zone.set(ZoneScript::Code(ResponseCode::NXDomain));
    let mut updates = rig.follower.subscribe();
    let mut seen = Vec::new();
    while !rig.now().addresses.is_empty() {
        tokio::time::timeout(TEST_TIMEOUT, updates.changed())
            .await
            .expect("a change in time")
            .expect("still running");
        seen.push(rig.now());
    }
    let [first, second, third] = &seen[..] else { panic!("{seen:?}") };
    for (round, stale) in [first, second].into_iter().enumerate() {
        assert_eq!(stale.addresses, good.addresses);
        let error = format!(
            "{} answered that there is no such name (answer {} of 3 that empty the route)",
            upstream.address,
            round + 1
        );
        assert_eq!(stale.freshness, Freshness::Stale { error });
    }
    assert_eq!((&third.addresses, &third.freshness), (&vec![], &Freshness::Fresh));

    zone.set(one("203.0.113.9", 1));
    rig.until("the addresses again", |resolved| resolved.addresses == addresses(&["203.0.113.9"]))
        .await;
}

#[tokio::test]
async fn a_name_that_never_resolved_has_the_reason() {
    let zone = ScriptedZone::new(ZoneScript::Code(ResponseCode::Refused));
    let upstream = zone.serve().await;
    let rig = FollowerRig::start(&[upstream.address]);
    rig.follower.set_targets(only(by_name(NAME)));
    assert_eq!(rig.now().freshness, Freshness::Unresolved { error: None });
    let resolved = rig.follower.wait_for_answer(&source(), Duration::from_millis(500)).await;
    assert_eq!(
        resolved.freshness,
        Freshness::Unresolved { error: Some(format!("{} answered REFUSED", upstream.address)) }
    );
    assert!(resolved.addresses.is_empty());
}

#[tokio::test]
async fn waiting_for_an_answer_outlasts_a_failure() {
    let zone = ScriptedZone::new(ZoneScript::Code(ResponseCode::ServFail));
    let upstream = zone.serve().await;
    let rig = FollowerRig::start(&[upstream.address]);
    rig.follower.set_targets(only(by_name(NAME)));
    let change = async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        zone.set(one("203.0.113.7", 60));
    };
    let source = source();
    let (resolved, ()) = tokio::join!(rig.follower.wait_for_answer(&source, TEST_TIMEOUT), change);
    assert_eq!(resolved.addresses, addresses(&["203.0.113.7"]));
}

#[tokio::test]
async fn the_second_nameserver_is_queried_when_the_first_fails() {
    let (bad, good) = (
        ScriptedZone::new(ZoneScript::Code(ResponseCode::ServFail)),
        ScriptedZone::new(one("203.0.113.7", 60)),
    );
    let (bad, good) = (bad.serve().await, good.serve().await);
    let (_rig, resolved) = FollowerRig::follow(&[bad.address, good.address]).await;
    assert_eq!(
        (resolved.addresses, resolved.freshness),
        (addresses(&["203.0.113.7"]), Freshness::Fresh)
    );
}

#[tokio::test]
async fn a_server_without_aaaa_replies_does_not_delay_ipv4() {
    let zone = ScriptedZone::new(ZoneScript::OnlyV4(vec![(NAME, v4("203.0.113.7"), 60)]));
    let start = Instant::now();
    let upstream = zone.serve().await;
    let (_rig, resolved) = FollowerRig::follow(&[upstream.address]).await;
    assert_eq!(
        (resolved.addresses, resolved.freshness),
        (addresses(&["203.0.113.7"]), Freshness::Fresh)
    );
    assert!(start.elapsed() < Duration::from_millis(1900), "{:?}", start.elapsed());
}

#[tokio::test]
async fn a_failed_family_keeps_its_addresses() {
    let records = |address| vec![(NAME, v4(address), 1), (NAME, v6("2001:db8::7"), 1)];
    let zone = ScriptedZone::new(ZoneScript::Records(records("203.0.113.7")));
    let upstream = zone.serve().await;
    let (rig, _) = FollowerRig::follow(&[upstream.address]).await;
    zone.set(ZoneScript::OnlyV4(records("203.0.113.8")));
    let resolved = rig
        .until("the change", |resolved| resolved.addresses[0] == addresses(&["203.0.113.8"])[0])
        .await;
    assert_eq!(resolved.addresses, addresses(&["203.0.113.8", "2001:db8::7"]));
    assert!(matches!(resolved.freshness, Freshness::Stale { .. }));
    zone.set(one("203.0.113.8", 1));
    rig.until("the end of IPv6", |resolved| resolved.addresses == addresses(&["203.0.113.8"]))
        .await;
}

#[tokio::test]
async fn a_routes_own_resolver_replaces_the_upstreams() {
    let (upstream, own) =
        (ScriptedZone::new(one("203.0.113.1", 60)), ScriptedZone::new(one("203.0.113.2", 60)));
    let (upstream, own) = (upstream.serve().await, own.serve().await);
    let rig = FollowerRig::start(&[upstream.address]);
    rig.follower.set_targets(only(Target { resolver: Some(own.address), ..by_name(NAME) }));
    assert_eq!(
        rig.follower.wait_for_answer(&source(), TEST_TIMEOUT).await.addresses,
        addresses(&["203.0.113.2"])
    );
    assert!(upstream.queries().is_empty());
}

#[tokio::test]
async fn names_are_looked_up_without_search_domains() {
    let zone = ScriptedZone::new(one("203.0.113.7", 60));
    let upstream = zone.serve().await;
    let rig = FollowerRig::start(&[upstream.address]);
    rig.follower.set_targets(only(by_name("lb")));
    rig.follower.wait_for_answer(&source(), TEST_TIMEOUT).await;
    let names: Vec<_> = upstream
        .queries()
        .iter()
        .map(|received| parsed(&received.query).queries[0].name().to_string())
        .collect();
    assert!(names.iter().all(|name| name == "lb."), "{names:?}");
}

#[tokio::test]
async fn literal_addresses_need_no_query() {
    let upstream = ScriptedZone::new(ZoneScript::NoReply).serve().await;
    let rig = FollowerRig::start(&[upstream.address]);
    let list = addresses(&["203.0.113.8", "203.0.113.7", "203.0.113.8"]);
    rig.follower
        .set_targets(only(Target { destination: Destination::Addresses(list), resolver: None }));
    assert_eq!(
        (rig.now().addresses, rig.now().freshness),
        (addresses(&["203.0.113.7", "203.0.113.8"]), Freshness::Literal)
    );
    rig.follower.wait_for_answer(&source(), Duration::from_millis(100)).await;
    assert!(upstream.queries().is_empty());
}

#[tokio::test]
async fn a_refresh_looks_up_early_and_bypasses_caches() {
    let zone = ScriptedZone::new(one("203.0.113.7", 300));
    let upstream = zone.serve().await;
    let (rig, _) = FollowerRig::follow(&[upstream.address]).await;
    zone.set(one("203.0.113.8", 300));
    let start = Instant::now();
    for _ in 0..10 {
        rig.follower.refresh(&source());
    }
    rig.until("the change", |resolved| resolved.addresses == addresses(&["203.0.113.8"])).await;
    assert!(
        (900..6000).contains(&start.elapsed().as_millis()),
        "at least a second after the last look-up: {:?}",
        start.elapsed()
    );
}

#[tokio::test]
async fn a_confirmed_answer_wakes_no_subscriber() {
    let zone = ScriptedZone::new(one("203.0.113.7", 1));
    let upstream = zone.serve().await;
    let (rig, first) = FollowerRig::follow(&[upstream.address]).await;
    let mut updates = rig.follower.subscribe();
    updates.mark_unchanged();
    upstream.wait_for(6).await;
    assert!(!updates.has_changed().expect("still running"));
    assert!(rig.now().resolved_at > first.resolved_at);
}

#[tokio::test]
async fn a_new_destination_starts_over_and_others_stay() {
    let zone = ScriptedZone::new(one("203.0.113.7", 300));
    let upstream = zone.serve().await;
    let (rig, _) = FollowerRig::follow(&[upstream.address]).await;
    let other: SourceName = "other.internal.company.net".parse().expect("a source");
    let before = upstream.queries().len();
    let mut targets = only(by_name(NAME));
    targets.insert(
        other.clone(),
        Target { destination: Destination::Addresses(addresses(&["203.0.113.9"])), resolver: None },
    );
    rig.follower.set_targets(targets);
    assert_eq!(rig.follower.current().len(), 2);
    assert_eq!(rig.now().freshness, Freshness::Fresh);
    assert_eq!(upstream.queries().len(), before, "not looked up again");

    zone.set(ZoneScript::NoReply);
    rig.follower.set_targets(only(by_name("else.company.net")));
    assert!(!rig.follower.current().contains_key(&other));
    assert_eq!(
        (rig.now().addresses, rig.now().freshness),
        (vec![], Freshness::Unresolved { error: None })
    );
}

#[tokio::test]
async fn a_large_answer_comes_over_tcp_limited_to_64_addresses() {
    let records: Vec<_> =
        (0..100).map(|index| (NAME, v4(&format!("203.0.113.{index}")), 60)).collect();
    let zone = ScriptedZone::new(ZoneScript::Records(records));
    let upstream = ScriptedUpstream::start(move |received| {
        let full = zone.answer(received);
        if received.tcp {
            return full;
        }
        let truncated =
            [&received.query[..2], &[0x83, 0x80, 0, 1, 0, 0, 0, 0, 0, 0], &received.query[12..]]
                .concat();
        let end = received.query.len() - 11;
        vec![Action::Send(truncated[..end].to_vec())]
    })
    .await;
    let (_rig, resolved) = FollowerRig::follow(&[upstream.address]).await;
    assert_eq!(resolved.addresses.len(), 64);
    assert_eq!(resolved.addresses[63], addresses(&["203.0.113.63"])[0]);
    assert!(upstream.queries().iter().any(|received| received.tcp));
}

#[tokio::test]
async fn a_name_blocked_by_a_filter_is_a_failure() {
    let zone = ScriptedZone::new(one("0.0.0.0", 60));
    let upstream = zone.serve().await;
    let rig = FollowerRig::start(&[upstream.address]);
    rig.follower.set_targets(only(by_name(NAME)));
    let resolved = rig.follower.wait_for_answer(&source(), Duration::from_millis(300)).await;
    assert!(
        matches!(
            &resolved.freshness,
            Freshness::Unresolved { error: Some(error) } if error.contains("no usable address")
        ),
        "{resolved:?}"
    );
}

/// Destinations that were looked up at one time, such as after a restart, are not all looked up
/// again at one time.
#[tokio::test]
async fn look_ups_have_a_jitter_of_a_tenth_of_the_ttl() {
    const NAMES: usize = 64;
    const TTL: Duration = Duration::from_secs(3);
    let times = Arc::new(Mutex::new(BTreeMap::<String, Vec<Instant>>::new()));
    let seen = Arc::clone(&times);
    let upstream = ScriptedUpstream::start(move |received| {
        let query = parsed(&received.query);
        let (name, kind) = (query.queries[0].name().to_string(), query.queries[0].query_type());
        if kind == RecordType::A {
            seen.lock().expect("not poisoned").entry(name).or_default().push(Instant::now());
        }
        let records =
            if kind == RecordType::A { vec![v4("203.0.113.7")] } else { vec![v6("2001:db8::7")] };
        let mut reply = parsed(&reply(&received.query, ResponseCode::NoError, &records));
        reply.answers.iter_mut().for_each(|record| record.ttl = TTL.as_secs() as u32);
        vec![Action::Send(bytes(&reply))]
    })
    .await;
    let rig = FollowerRig::start(&[upstream.address]);
    let target = |number| {
        let source: SourceName =
            format!("r{number}.internal.company.net").parse().expect("a source");
        (source, by_name(&format!("r{number}.public.company.net")))
    };
    rig.follower.set_targets((0..NAMES).map(target).collect());
    let twice = || {
        times.lock().expect("not poisoned").values().filter(|times| times.len() >= 2).count()
            == NAMES
    };
    let all = async {
        while !twice() {
            tokio::time::sleep(Duration::from_millis(10)).await
        }
    };
    tokio::time::timeout(3 * TEST_TIMEOUT, all).await.expect("every name is looked up twice");
    let waits: Vec<Duration> =
        times.lock().expect("not poisoned").values().map(|times| times[1] - times[0]).collect();
    let (soonest, latest) =
        (waits.iter().min().expect("waits"), waits.iter().max().expect("waits"));
    // A busy machine delays some, and makes none earlier.
    assert!(*soonest >= TTL.mul_f64(0.9) && *soonest < TTL, "{waits:?}");
    assert!(*latest - *soonest >= TTL.mul_f64(0.1), "{waits:?}");
}

#[tokio::test]
async fn each_change_is_reported_once_by_source() {
    const OTHER: &str = "other.public.company.net";
    let zone = ScriptedZone::new(ZoneScript::Records(vec![
        (NAME, v4("203.0.113.7"), 1),
        (OTHER, v4("203.0.113.9"), 1),
    ]));
    let upstream = zone.serve().await;
    let rig = FollowerRig::start(&[upstream.address]);
    let other: SourceName = "other.internal.company.net".parse().expect("a source");
    rig.follower
        .set_targets(BTreeMap::from([(source(), by_name(NAME)), (other.clone(), by_name(OTHER))]));
    rig.follower.wait_for_answer(&other, TEST_TIMEOUT).await;
    rig.follower.wait_for_answer(&source(), TEST_TIMEOUT).await;
    assert_eq!(rig.follower.take_changed(10), [source(), other.clone()]);

    zone.set(ZoneScript::Records(vec![
        (NAME, v4("203.0.113.8"), 1),
        (OTHER, v4("203.0.113.9"), 1),
    ]));
    rig.until("the change", |resolved| resolved.addresses == addresses(&["203.0.113.8"])).await;
    assert_eq!(rig.follower.take_changed(10), [source()]);
    assert_eq!(rig.follower.current()[&other].addresses, addresses(&["203.0.113.9"]));
}

#[tokio::test]
async fn changing_one_target_leaves_the_others() {
    const OTHER: &str = "other.public.company.net";
    let zone = ScriptedZone::new(ZoneScript::Records(vec![
        (NAME, v4("203.0.113.7"), 60),
        (OTHER, v4("203.0.113.9"), 60),
    ]));
    let upstream = zone.serve().await;
    let rig = FollowerRig::start(&[upstream.address]);
    rig.follower.set_targets(BTreeMap::from([(source(), by_name(NAME))]));
    rig.follower.wait_for_answer(&source(), TEST_TIMEOUT).await;
    let before = upstream.queries().len();

    let other: SourceName = "other.internal.company.net".parse().expect("a source");
    let literal = Target {
        destination: Destination::Addresses(addresses(&["203.0.113.40"])),
        resolver: None,
    };
    for (target, expected) in [
        (literal.clone(), "203.0.113.40"),
        (by_name(OTHER), "203.0.113.9"),
        (literal, "203.0.113.40"),
    ] {
        rig.follower.set_target(&other, Some(target));
        assert_eq!(
            rig.follower.wait_for_answer(&other, TEST_TIMEOUT).await.addresses,
            addresses(&[expected])
        );
        assert_eq!(rig.follower.current()[&other].addresses, addresses(&[expected]));
        assert_eq!(rig.follower.current()[&source()].addresses, addresses(&["203.0.113.7"]));
    }
    rig.follower.set_target(&other, None);
    assert_eq!(rig.follower.current().keys().collect::<Vec<_>>(), [&source()]);
    // The same target again causes no look-up.
    rig.follower.set_target(&source(), Some(by_name(NAME)));
    rig.follower.wait_for_answer(&source(), TEST_TIMEOUT).await;
    let names = upstream
        .queries()
        .iter()
        .skip(before)
        .map(|received| parsed(&received.query).queries[0].name().to_string())
        .collect::<Vec<_>>();
    assert!(!names.is_empty() && names.iter().all(|name| name.starts_with("other.")), "{names:?}");
}
