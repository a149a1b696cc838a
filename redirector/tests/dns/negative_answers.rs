//! Answers without an address, CNAMEs without an end, and resolvers that do not know EDNS.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use hickory_proto::{
    op::ResponseCode,
    rr::{RData, RecordType, rdata::CNAME},
};
use redirector::backend::{Freshness, Resolved};

use crate::{
    follower_rig::{FollowerRig, addresses},
    message::{bytes, name_of, parsed, reply},
    scripted_upstream::{Action, ReceivedQuery, ScriptedUpstream},
    scripted_zone::{NAME, ScriptedZone, ZoneScript, one, v4, v6},
};

fn alias(target: &str) -> RData {
    RData::CNAME(CNAME(name_of(target)))
}

fn has_error(resolved: &Resolved, part: &str) -> bool {
    matches!(&resolved.freshness, Freshness::Stale { error } if error.contains(part))
}

/// Waits until the follower has asked for the A records `count` times more.
async fn more_queries(upstream: &ScriptedUpstream, count: usize) {
    let asked = || {
        let is_a = |received: &&ReceivedQuery| {
            parsed(&received.query).queries[0].query_type() == RecordType::A
        };
        upstream.queries().iter().filter(is_a).count()
    };
    let (before, deadline) = (asked(), Instant::now() + Duration::from_secs(20));
    while asked() < before + count {
        assert!(Instant::now() < deadline, "{} of {count} queries", asked() - before);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn only_the_third_empty_answer_removes_a_family() {
    let both = || vec![(NAME, v4("203.0.113.7"), 1), (NAME, v6("2001:db8::7"), 1)];
    for (left, gone) in [("2001:db8::7", "203.0.113.7"), ("203.0.113.7", "2001:db8::7")] {
        let zone = ScriptedZone::new(ZoneScript::Records(both()));
        let upstream = zone.serve().await;
        let (rig, _) = FollowerRig::follow(&[upstream.address]).await;
        let mut updates = rig.follower.subscribe();
        let one = if left.contains(':') { v6(left) } else { v4(left) };
        zone.set(ZoneScript::Records(vec![(NAME, one, 1)]));
        let mut seen: Vec<Resolved> = Vec::new();
        while rig.now().addresses != addresses(&[left]) {
            let changed = tokio::time::timeout(Duration::from_secs(10), updates.changed());
            changed.await.expect("a change in time").expect("still running");
            seen.push(rig.now());
        }
        let [first, second, third] = &seen[..] else { panic!("{seen:?}") };
        for kept in [first, second] {
            assert!(kept.addresses.contains(&addresses(&[gone])[0]), "{kept:?}");
            let Freshness::Stale { error } = &kept.freshness else { panic!("{kept:?}") };
            assert!(error.contains("of 3 that remove its IPv"), "{error}");
        }
        assert_eq!(third.freshness, Freshness::Fresh);
    }
}

#[tokio::test]
async fn a_cname_loop_keeps_the_last_addresses() {
    let zone = ScriptedZone::new(one("203.0.113.7", 1));
    let upstream = zone.serve().await;
    let (rig, good) = FollowerRig::follow(&[upstream.address]).await;
    zone.set(ZoneScript::Records(vec![
        (NAME, alias("lb.cloud.example"), 1),
        ("lb.cloud.example", alias(NAME), 1),
    ]));
    let is_stale = |resolved: &Resolved| has_error(resolved, "CNAME loop");
    rig.until("stale", is_stale).await;
    more_queries(&upstream, 3).await;
    assert_eq!(rig.now().addresses, good.addresses);
}

#[tokio::test]
async fn an_endless_cname_chain_keeps_the_last_addresses() {
    let zone = ScriptedZone::new(one("203.0.113.7", 1));
    let chain = Arc::new(AtomicBool::new(false));
    let is_chain = Arc::clone(&chain);
    let upstream = ScriptedUpstream::start(move |received| {
        if !is_chain.load(Ordering::Relaxed) {
            return zone.answer(received);
        }
        let next = format!("hop-{}.example", rand::random::<u32>());
        vec![Action::Send(reply(&received.query, ResponseCode::NoError, &[alias(&next)]))]
    })
    .await;
    let (rig, good) = FollowerRig::follow(&[upstream.address]).await;
    chain.store(true, Ordering::Relaxed);
    let is_stale = |resolved: &Resolved| has_error(resolved, "chain of over 16 CNAMEs");
    rig.until("stale", is_stale).await;
    // Three more look-ups, each of a whole chain.
    more_queries(&upstream, 3 * 17).await;
    assert_eq!(rig.now().addresses, good.addresses);
}

/// What a resolver without EDNS does with a query that has it.
#[derive(Clone, Copy, Debug)]
enum Rejection {
    Code(ResponseCode),
    /// FORMERR with nothing but the header.
    BareHeader,
    Drop,
}

async fn without_edns(rejection: Rejection) -> ScriptedUpstream {
    let zone = ScriptedZone::new(one("203.0.113.7", 1));
    ScriptedUpstream::start(move |received| {
        if parsed(&received.query).edns.is_none() {
            return zone.answer(received);
        }
        match rejection {
            Rejection::Code(code) => vec![Action::Send(reply(&received.query, code, &[]))],
            Rejection::BareHeader => {
                let id = &received.query[..2];
                vec![Action::Send([id, &[0x80, 1], &[0; 8]].concat())]
            }
            Rejection::Drop => vec![],
        }
    })
    .await
}

#[tokio::test]
async fn a_resolver_that_rejects_edns_is_asked_without() {
    for rejection in [
        Rejection::Code(ResponseCode::FormErr),
        Rejection::Code(ResponseCode::NotImp),
        Rejection::Code(ResponseCode::ServFail),
        Rejection::BareHeader,
        Rejection::Drop,
    ] {
        let upstream = without_edns(rejection).await;
        let (rig, resolved) = FollowerRig::follow(&[upstream.address]).await;
        assert_eq!(resolved.addresses, addresses(&["203.0.113.7"]), "{rejection:?}");
        assert_eq!(rig.now().freshness, Freshness::Fresh, "{rejection:?}");
        // Later queries have no EDNS from the start.
        let before = upstream.queries().len();
        more_queries(&upstream, 2).await;
        let has_edns = |received: &ReceivedQuery| parsed(&received.query).edns.is_some();
        assert!(!upstream.queries()[before..].iter().any(has_edns), "{rejection:?}");
    }
}

#[tokio::test]
async fn a_lost_query_is_sent_again() {
    let zone = ScriptedZone::new(one("203.0.113.7", 60));
    let seen = AtomicUsize::new(0);
    let upstream = ScriptedUpstream::start(move |received| {
        // The first query of each family is lost.
        if seen.fetch_add(1, Ordering::Relaxed) < 2 {
            return vec![];
        }
        assert!(parsed(&received.query).edns.is_some());
        zone.answer(received)
    })
    .await;
    let start = Instant::now();
    let (_rig, resolved) = FollowerRig::follow(&[upstream.address]).await;
    assert_eq!(resolved.addresses, addresses(&["203.0.113.7"]));
    assert!(start.elapsed() < Duration::from_millis(950), "{:?}", start.elapsed());
}

#[tokio::test]
async fn a_reply_to_another_question_is_ignored() {
    let zone = ScriptedZone::new(one("203.0.113.7", 60));
    let upstream = ScriptedUpstream::start(move |received| {
        let mut other = parsed(&received.query);
        other.metadata.message_type = hickory_proto::op::MessageType::Response;
        other.metadata.response_code = ResponseCode::NXDomain;
        other.queries[0].set_name(name_of("other.example"));
        let mut actions = vec![Action::Send(bytes(&other)), Action::Spoof(bytes(&other))];
        actions.extend(zone.answer(received));
        actions
    })
    .await;
    let (_rig, resolved) = FollowerRig::follow(&[upstream.address]).await;
    assert_eq!(resolved.addresses, addresses(&["203.0.113.7"]));
}
