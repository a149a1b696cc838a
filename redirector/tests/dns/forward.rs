//! Forwarded bytes, and upstreams that fail or send wrong replies.

use std::{
    collections::HashSet,
    net::Ipv4Addr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use hickory_proto::{
    op::ResponseCode,
    rr::{
        RData, RecordType,
        rdata::{A, TXT},
    },
};
use testbed::unused_address;
use tokio::net::UdpSocket;

use crate::{
    message::{bytes, parsed, query, raw_opt, raw_query, raw_question, reply},
    running_shim::{RunningShim, receive, source},
    scripted_upstream::{Action, ReceivedQuery, ScriptedUpstream},
};

const ADDRESS: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 7);

fn good(received: &ReceivedQuery) -> Vec<u8> {
    reply(&received.query, ResponseCode::NoError, &[RData::A(A(ADDRESS))])
}

fn servfail(received: &ReceivedQuery) -> Vec<u8> {
    reply(&received.query, ResponseCode::ServFail, &[])
}

fn other_query() -> Vec<u8> {
    bytes(&query("www.example.com", RecordType::A))
}

fn is_good(reply: &[u8], query: &[u8]) -> bool {
    let message = parsed(reply);
    reply[..2] == query[..2]
        && message.answers.len() == 1
        && message.answers[0].data.ip_addr() == Some(ADDRESS.into())
}

async fn silent() -> ScriptedUpstream {
    ScriptedUpstream::start(|_| vec![]).await
}

/// A reply that no library would write: odd case and flags, unknown types, an answer for another
/// name, compression, two OPT options.
fn odd_reply(query: &[u8]) -> Vec<u8> {
    let mut bytes = [&query[..2], &[0x85, 0xb0, 0, 1, 0, 2, 0, 0, 0, 1]].concat();
    let end = query.len() - raw_opt(4096, 0, true).len();
    bytes.extend_from_slice(&query[12..end]);
    bytes.extend_from_slice(&[0xc0, 12, 0xff, 0x01, 0, 1, 0, 0, 0, 5, 0, 3, 0xde, 0xad, 0xbf]);
    bytes.extend_from_slice(b"\x03WwW\xc0\x10\x00\x10\x00\x01\x00\x00\x00\x00\x00\x04\x03odd");
    bytes.extend_from_slice(&[
        0, 0, 41, 4, 0xd0, 0, 0, 0x80, 0, 0, 12, 0, 3, 0, 2, b'i', b'd', 0, 10, 0, 2, 1, 2,
    ]);
    bytes
}

#[tokio::test]
async fn queries_and_replies_keep_every_byte_except_the_id() {
    let upstream =
        ScriptedUpstream::start(|received| vec![Action::Send(odd_reply(&received.query))]).await;
    let shim = RunningShim::start(&[upstream.address]).await;
    let query = raw_query(
        0x1234,
        0x0130,
        [1, 0, 0, 1],
        &[raw_question("wWw.exAmple.com", 0xff01, 1), raw_opt(4096, 0, true)].concat(),
    );
    let udp = shim.ask(&query).await;
    let tcp = shim.ask_tcp(&query).await;
    assert_eq!(udp, odd_reply(&query));
    assert_eq!(tcp, odd_reply(&query));
    let received = upstream.queries();
    assert_eq!(
        received.iter().map(|received| received.tcp).collect::<Vec<_>>(),
        [false, true],
        "TCP for TCP"
    );
    assert!(received.iter().all(|received| received.query[2..] == query[2..]));
    assert_eq!(shim.publisher.counters().forwarded, 2);
    shim.stop().await;
}

#[tokio::test]
async fn each_query_has_its_own_id_and_source_port() {
    let upstream = ScriptedUpstream::start(|received| vec![Action::Send(good(received))]).await;
    let shim = RunningShim::start(&[upstream.address]).await;
    let query = other_query();
    for _ in 0..32 {
        assert!(is_good(&shim.ask(&query).await, &query));
    }
    let received = upstream.queries();
    let ids: HashSet<_> = received.iter().map(|received| received.query[..2].to_vec()).collect();
    let ports: HashSet<_> = received.iter().map(|received| received.from.port()).collect();
    assert!(
        ids.len() > 24 && ports.len() > 24,
        "{} IDs and {} ports for 32 queries",
        ids.len(),
        ports.len()
    );
    shim.stop().await;
}

#[tokio::test]
async fn a_truncated_reply_is_forwarded_unchanged() {
    let truncated = |query: &[u8]| {
        let mut bytes = [&query[..2], &[0x83, 0x80, 0, 1, 0, 9, 0, 0, 0, 0], &query[12..]].concat();
        bytes.extend_from_slice(&[0xc0, 12, 0, 16, 0]);
        bytes
    };
    let upstream =
        ScriptedUpstream::start(move |received| vec![Action::Send(truncated(&received.query))])
            .await;
    let shim = RunningShim::start(&[upstream.address]).await;
    let query = other_query();
    assert_eq!(shim.ask(&query).await, truncated(&query));
    assert_eq!(upstream.queries().len(), 1, "the client retries over TCP");
    shim.stop().await;
}

#[tokio::test]
async fn a_large_reply_is_forwarded_over_tcp() {
    let text = TXT::new((0..60).map(|index| format!("{index:0>250}")).collect());
    let large =
        move |query: &[u8]| reply(query, ResponseCode::NoError, &[RData::TXT(text.clone())]);
    let upstream_large = large.clone();
    let upstream = ScriptedUpstream::start(move |received| {
        vec![Action::Send(upstream_large(&received.query))]
    })
    .await;
    let shim = RunningShim::start(&[upstream.address]).await;
    let query = bytes(&query("big.example.com", RecordType::TXT));
    let got = shim.ask_tcp(&query).await;
    assert!(got.len() > 15_000);
    assert_eq!(got, large(&query));
    shim.stop().await;
}

#[tokio::test]
async fn replies_that_do_not_match_are_ignored() {
    let upstream = ScriptedUpstream::start(|received| {
        let right = good(received);
        let mut wrong_id = right.clone();
        wrong_id[0] ^= 0xff;
        let mut wrong_type = right.clone();
        wrong_type[received.query.len() - 3] = 28;
        let wrong_name =
            reply(&bytes(&query("www.example.org", RecordType::A)), ResponseCode::NoError, &[]);
        let wrong_name = [&received.query[..2], &wrong_name[2..]].concat();
        let not_a_reply = received.query.clone();
        let garbage = vec![0x55; 700];
        let mut actions: Vec<_> = [wrong_id, wrong_type, wrong_name, not_a_reply, garbage, vec![]]
            .into_iter()
            .map(Action::Send)
            .collect();
        if !received.tcp {
            actions.push(Action::Spoof(reply(&received.query, ResponseCode::NXDomain, &[])));
        }
        actions.extend([Action::Wait(Duration::from_millis(100)), Action::Send(right)]);
        actions
    })
    .await;
    let shim = RunningShim::start(&[upstream.address]).await;
    let query = other_query();
    assert!(is_good(&shim.ask(&query).await, &query));
    assert_eq!(shim.publisher.counters().mismatched, 6);
    assert!(is_good(&shim.ask_tcp(&query).await, &query));
    assert_eq!(upstream.queries().len(), 2);
    shim.stop().await;
}

#[tokio::test]
async fn a_reply_over_udp_has_at_most_4096_bytes() {
    let padded = |query: &[u8], length| {
        let mut reply = reply(query, ResponseCode::NoError, &[RData::A(A(ADDRESS))]);
        reply.resize(length, 0xee);
        reply
    };
    let upstream = ScriptedUpstream::start(move |received| {
        [5000, 4097, 4096].map(|length| Action::Send(padded(&received.query, length))).to_vec()
    })
    .await;
    let shim = RunningShim::start(&[upstream.address]).await;
    let query = other_query();
    assert_eq!(shim.ask(&query).await, padded(&query, 4096));
    assert_eq!(shim.publisher.counters().mismatched, 2, "longer ones would be cut");
    shim.stop().await;
}

#[tokio::test]
async fn a_formerr_header_without_question_is_forwarded() {
    // The reply of servers without EDNS; the client retries without it.
    let upstream = ScriptedUpstream::start(|received| {
        vec![Action::Send([&received.query[..2], &[0x81, 0x81], &[0; 8]].concat())]
    })
    .await;
    let shim = RunningShim::start(&[upstream.address]).await;
    let query = other_query();
    assert_eq!(shim.ask(&query).await, [&query[..2], &[0x81, 0x81], &[0; 8]].concat());
    shim.stop().await;
}

#[tokio::test]
async fn a_silent_upstream_is_ejected_and_the_next_one_queried() {
    let (first, second) = (
        silent().await,
        ScriptedUpstream::start(|received| vec![Action::Send(good(received))]).await,
    );
    let shim = RunningShim::start(&[first.address, second.address]).await;
    let query = other_query();
    for _ in 0..2 {
        let start = Instant::now();
        assert!(is_good(&shim.ask(&query).await, &query));
        assert!((900..4000).contains(&start.elapsed().as_millis()), "{:?}", start.elapsed());
    }
    let before = first.queries().len();
    let start = Instant::now();
    for _ in 0..20 {
        assert!(is_good(&shim.ask(&query).await, &query));
    }
    assert!(start.elapsed() < Duration::from_millis(900), "ejected: {:?}", start.elapsed());
    assert!(first.queries().len() <= before + 1);
    shim.stop().await;
}

#[tokio::test]
async fn an_ejected_upstream_returns_without_delaying_clients() {
    let works = Arc::new(AtomicBool::new(false));
    let answers = Arc::clone(&works);
    let first = ScriptedUpstream::start(move |received| {
        if answers.load(Ordering::Relaxed) { vec![Action::Send(good(received))] } else { vec![] }
    })
    .await;
    let second = ScriptedUpstream::start(|received| vec![Action::Send(good(received))]).await;
    let shim = RunningShim::start(&[first.address, second.address]).await;
    let query = other_query();
    for _ in 0..2 {
        shim.ask(&query).await;
    }
    works.store(true, Ordering::Relaxed);
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        let start = Instant::now();
        let second_before = second.queries().len();
        assert!(is_good(&shim.ask(&query).await, &query));
        assert!(
            start.elapsed() < Duration::from_millis(900),
            "the trial runs next to a healthy upstream: {:?}",
            start.elapsed()
        );
        if second.queries().len() == second_before {
            break;
        }
        assert!(Instant::now() < deadline, "it never returned");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    shim.stop().await;
}

#[tokio::test]
async fn a_flapping_upstream_causes_no_negative_answers() {
    let began = Instant::now();
    // Silent and healthy for 0.7 s each.
    let first = ScriptedUpstream::start(move |received| {
        if (began.elapsed().as_millis() / 700).is_multiple_of(2) {
            vec![]
        } else {
            vec![Action::Send(good(received))]
        }
    })
    .await;
    let second = ScriptedUpstream::start(|received| vec![Action::Send(good(received))]).await;
    let shim = RunningShim::start(&[first.address, second.address]).await;
    let (query, mut slow, mut all) = (other_query(), 0, 0);
    while began.elapsed() < Duration::from_secs(8) {
        let start = Instant::now();
        assert!(is_good(&shim.ask(&query).await, &query));
        assert!(
            start.elapsed() < Duration::from_millis(2500),
            "the other one is queried after a second: {:?}",
            start.elapsed()
        );
        slow += usize::from(start.elapsed() > Duration::from_millis(500));
        all += 1;
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let counters = shim.publisher.counters();
    assert_eq!((counters.servfail, counters.forwarded), (0, all));
    assert!(slow <= 8 && all > 50, "{slow} of {all} waited");
    let [first, second] = &shim.publisher.upstreams()[..] else { panic!("two upstreams") };
    assert!(
        first.failures > 0 && first.latency.count() > 0 && second.failures == 0,
        "{first:?} {second:?}"
    );
    shim.stop().await;
}

#[tokio::test]
async fn a_closed_port_causes_no_delay() {
    let second = ScriptedUpstream::start(|received| vec![Action::Send(good(received))]).await;
    let shim = RunningShim::start(&[unused_address(), second.address]).await;
    let query = other_query();
    let start = Instant::now();
    assert!(is_good(&shim.ask(&query).await, &query));
    assert!(is_good(&shim.ask_tcp(&query).await, &query));
    assert!(start.elapsed() < Duration::from_millis(900), "{:?}", start.elapsed());
    shim.stop().await;
}

#[tokio::test]
async fn servfail_is_forwarded_only_without_a_better_answer() {
    let bad = ScriptedUpstream::start(|received| vec![Action::Send(servfail(received))]).await;
    let healthy = ScriptedUpstream::start(|received| vec![Action::Send(good(received))]).await;
    let query = other_query();
    let shim = RunningShim::start(&[bad.address, healthy.address]).await;
    assert!(is_good(&shim.ask(&query).await, &query));
    shim.stop().await;

    let shim = RunningShim::start(&[bad.address]).await;
    let start = Instant::now();
    let expected = reply(&query, ResponseCode::ServFail, &[]);
    assert_eq!(shim.ask(&query).await, expected);
    assert!(start.elapsed() < Duration::from_millis(900), "{:?}", start.elapsed());
    let counters = shim.publisher.counters();
    assert_eq!((counters.forwarded, counters.servfail), (1, 0), "the upstream's answer, not ours");
    shim.stop().await;
}

#[tokio::test]
async fn nxdomain_of_the_first_upstream_is_final() {
    let first = ScriptedUpstream::start(|received| {
        vec![Action::Send(reply(&received.query, ResponseCode::NXDomain, &[]))]
    })
    .await;
    let second = ScriptedUpstream::start(|received| vec![Action::Send(good(received))]).await;
    let shim = RunningShim::start(&[first.address, second.address]).await;
    assert_eq!(
        parsed(&shim.ask(&other_query()).await).metadata.response_code,
        ResponseCode::NXDomain
    );
    assert!(second.queries().is_empty());
    shim.stop().await;
}

#[tokio::test]
async fn without_any_answer_the_client_gets_servfail_in_time() {
    let upstream = silent().await;
    let shim = RunningShim::start(&[upstream.address]).await;
    let query = raw_query(
        0x1234,
        0x0100,
        [1, 0, 0, 1],
        &[raw_question("www.exAmple.com", 1, 1), raw_opt(4096, 0, true)].concat(),
    );
    let start = Instant::now();
    let got = shim.ask(&query).await;
    assert!((3500..5000).contains(&start.elapsed().as_millis()), "{:?}", start.elapsed());
    let message = parsed(&got);
    assert_eq!(
        (message.metadata.response_code, message.metadata.id),
        (ResponseCode::ServFail, 0x1234)
    );
    assert!(
        !message.metadata.authoritative && message.edns.is_some_and(|edns| edns.flags().dnssec_ok)
    );
    assert_eq!(got[12..33], query[12..33]);
    assert!(
        upstream.queries().len() >= 3,
        "it was queried repeatedly: {}",
        upstream.queries().len()
    );
    let counters = shim.publisher.counters();
    assert_eq!((counters.servfail, counters.timeouts, counters.forwarded), (1, 1, 0));
    shim.stop().await;
}

#[tokio::test]
async fn closed_ports_of_all_upstreams_are_servfail_at_once() {
    let shim = RunningShim::start(&[unused_address(), unused_address()]).await;
    let start = Instant::now();
    assert_eq!(
        parsed(&shim.ask(&other_query()).await).metadata.response_code,
        ResponseCode::ServFail
    );
    assert_eq!(
        parsed(&shim.ask_tcp(&other_query()).await).metadata.response_code,
        ResponseCode::ServFail
    );
    assert!(start.elapsed() < Duration::from_millis(900), "{:?}", start.elapsed());
    shim.stop().await;
}

#[tokio::test]
async fn a_slow_reply_is_awaited() {
    let upstream = ScriptedUpstream::start(|received| {
        vec![Action::Wait(Duration::from_millis(1500)), Action::Send(good(received))]
    })
    .await;
    let shim = RunningShim::start(&[upstream.address]).await;
    let query = other_query();
    let start = Instant::now();
    assert!(is_good(&shim.ask(&query).await, &query));
    assert!(start.elapsed() < Duration::from_millis(2400), "{:?}", start.elapsed());
    shim.stop().await;
}

#[tokio::test]
async fn a_slow_answer_is_better_than_a_servfail() {
    let slow = ScriptedUpstream::start(|received| {
        vec![Action::Wait(Duration::from_millis(1500)), Action::Send(good(received))]
    })
    .await;
    let bad = ScriptedUpstream::start(|received| vec![Action::Send(servfail(received))]).await;
    let shim = RunningShim::start(&[slow.address, bad.address]).await;
    let query = other_query();
    assert!(is_good(&shim.ask(&query).await, &query));
    assert_eq!(bad.queries().len(), 1);
    shim.stop().await;
}

#[tokio::test]
async fn a_query_waits_for_three_upstreams_at_most() {
    let silent = [silent().await, silent().await, silent().await, silent().await];
    let shim = RunningShim::start(&silent.each_ref().map(|upstream| upstream.address)).await;
    let answer = parsed(&shim.ask(&other_query()).await);
    assert_eq!(answer.metadata.response_code, ResponseCode::ServFail);
    assert_eq!(silent.map(|upstream| upstream.queries().len()), [1, 1, 1, 0]);
    shim.stop().await;
}

#[tokio::test]
async fn concurrent_replies_reach_their_own_clients() {
    let upstream = ScriptedUpstream::start(|received| {
        let text = received.query[13..21].to_vec();
        let data = RData::TXT(TXT::new(vec![String::from_utf8_lossy(&text).into_owned()]));
        vec![
            Action::Wait(Duration::from_millis(rand::random_range(0..30))),
            Action::Send(reply(&received.query, ResponseCode::NoError, &[data])),
        ]
    })
    .await;
    let shim = RunningShim::start(&[upstream.address]).await;
    let sockets = 50;
    let mut clients = tokio::task::JoinSet::new();
    for client in 0..sockets {
        let address = shim.address;
        clients.spawn(async move {
            let socket = UdpSocket::bind("127.0.0.1:0").await.expect("a port");
            socket.connect(address).await.expect("connected");
            for round in 0..10 {
                let text = format!("c{client:03}r{round:03}");
                let query = bytes(&query(&format!("{text}.example.com"), RecordType::TXT));
                socket.send(&query).await.expect("sent");
                let got = parsed(&receive(&socket).await);
                assert_eq!(got.answers[0].data.to_string(), text);
            }
        });
    }
    while let Some(ended) = clients.join_next().await {
        ended.expect("its own replies");
    }
    assert_eq!(shim.publisher.counters().forwarded, 500);
    shim.stop().await;
}

#[tokio::test]
async fn queries_are_counted_by_type_code_time_and_upstream() {
    let dead = unused_address();
    let upstream = ScriptedUpstream::start(|received| {
        let code =
            if received.query[13] == b'n' { ResponseCode::NXDomain } else { ResponseCode::NoError };
        vec![
            Action::Wait(Duration::from_millis(30)),
            Action::Send(reply(&received.query, code, &[])),
        ]
    })
    .await;
    let shim = RunningShim::start(&[dead, upstream.address]).await;
    for (name, kind) in [
        ("no.example", RecordType::A),
        ("no.example", RecordType::AAAA),
        ("yes.example", RecordType::AAAA),
    ] {
        shim.ask(&bytes(&query(name, kind))).await;
    }
    shim.ask(&source(RecordType::HTTPS)).await;
    shim.ask(&raw_query(7, 0, [0; 4], &[])).await;
    // A local answer is counted after it was sent, when its client may already have it.
    let counted = tokio::time::timeout(Duration::from_secs(5), async {
        while shim.publisher.query_stats().local_latency.count() < 2 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    });
    counted.await.expect("both local answers are counted");
    let stats = shim.publisher.query_stats();
    let counted = |counts: &[(&'static str, u64)]| {
        counts.iter().filter(|(_, number)| *number > 0).copied().collect::<Vec<_>>()
    };
    assert_eq!(counted(&stats.types), [("A", 1), ("AAAA", 2), ("HTTPS", 1), ("unreadable", 1)]);
    assert_eq!(counted(&stats.codes), [("NOERROR", 1), ("NXDOMAIN", 2)]);
    assert_eq!((stats.local_latency.count(), stats.forward_latency.count()), (2, 3));
    let buckets: Vec<_> =
        stats.forward_latency.buckets.iter().filter(|(_, number)| *number > 0).collect();
    assert!(
        buckets.iter().all(|(bound, _)| *bound > 0.025),
        "each waited for the upstream: {buckets:?}"
    );
    assert!(stats.forward_latency.sum_seconds > 0.09, "{}", stats.forward_latency.sum_seconds);
    let health = shim.publisher.upstreams();
    let [first, second] = &health[..] else { panic!("{health:?}") };
    assert_eq!(
        (first.address, first.ejected, first.queries, first.failures),
        (dead, true, 2, 2),
        "ejected by its second failure"
    );
    assert_eq!(
        (second.ejected, second.queries, second.failures, second.latency.count()),
        (false, 3, 0, 3)
    );
    assert_eq!(first.latency.count(), 0);
    shim.stop().await;
}

#[tokio::test]
async fn stopping_waits_for_forwarded_queries() {
    let upstream = ScriptedUpstream::start(|received| {
        vec![Action::Wait(Duration::from_millis(300)), Action::Send(good(received))]
    })
    .await;
    let shim = RunningShim::start(&[upstream.address]).await;
    let socket = UdpSocket::bind("127.0.0.1:0").await.expect("a port");
    socket.connect(shim.address).await.expect("connected");
    let query = other_query();
    socket.send(&query).await.expect("sent");
    upstream.wait_for(1).await;
    shim.stop().await;
    assert!(is_good(&receive(&socket).await, &query));
}
