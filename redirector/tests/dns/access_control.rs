//! Which clients the shim answers, how much one client may use, and the state before the first
//! answer of an upstream.

use std::{net::IpAddr, time::Duration};

use hickory_proto::{op::ResponseCode, rr::RecordType};
use redirector::{
    config::DnsClients,
    dns::{Answer, ShimSettings, Vip, Zone},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::UdpSocket,
    time::timeout,
};

use crate::{
    message::{bytes, parsed, query, raw_opt, raw_query, raw_question, reply},
    running_shim::{RunningShim, TEST_TIMEOUT, framed, receive, settings, source, unused},
    scripted_upstream::{Action, ScriptedUpstream},
};

fn denies_this_host() -> ShimSettings {
    let network = "192.0.2.0/24".parse().expect("a network");
    ShimSettings { clients: vec![DnsClients::Network(network)], ..settings(&[unused()]) }
}

#[tokio::test]
async fn a_refusal_is_no_longer_than_its_query() {
    let shim = RunningShim::start_with(denies_this_host()).await;
    let any_query =
        [raw_question("artifactory.internal.company.net", 255, 1), raw_opt(4096, 0, true)].concat();
    let queries = [
        source(RecordType::A),
        bytes(&query("elsewhere.example", RecordType::TXT)),
        raw_query(7, 0x0100, [1, 0, 0, 1], &any_query),
        raw_query(7, 0x0100, [1, 0, 0, 0], b"\xff"),
    ];
    for query in &queries {
        let reply = shim.ask(query).await;
        assert_eq!(reply[3] & 15, 5, "REFUSED");
        assert!(reply.len() <= query.len(), "{} bytes for {}", reply.len(), query.len());
    }
    assert_eq!(shim.ask_tcp(&queries[0]).await[3] & 15, 5);
    let counters = shim.publisher.counters();
    assert_eq!((counters.denied_clients, counters.refused, counters.answered), (5, 5, 0));
    shim.stop().await;
}

#[tokio::test]
async fn a_flood_of_a_denied_client_gets_few_refusals() {
    let shim = RunningShim::start_with(denies_this_host()).await;
    let socket = UdpSocket::bind("127.0.0.1:0").await.expect("a port");
    socket.connect(shim.address).await.expect("connected");
    for _ in 0..2000 {
        socket.send(&source(RecordType::A)).await.expect("sent");
    }
    let mut answers = 0;
    while timeout(Duration::from_millis(500), socket.recv(&mut [0; 512])).await.is_ok() {
        answers += 1;
    }
    assert!((20..60).contains(&answers), "{answers}");
    assert!(shim.publisher.counters().rate_limited > 1000, "{:?}", shim.publisher.counters());
    shim.stop().await;
}

#[tokio::test]
async fn one_client_cannot_use_up_the_forwarding_permits() {
    let upstream = ScriptedUpstream::start(|received| {
        let name = &received.query[13..17];
        if name == b"fast" {
            vec![Action::Send(reply(&received.query, ResponseCode::NXDomain, &[]))]
        } else {
            vec![]
        }
    })
    .await;
    let shim = RunningShim::start(&[upstream.address]).await;
    let flood = UdpSocket::bind("127.0.0.9:0").await.expect("a port");
    flood.connect(shim.address).await.expect("connected");
    for n in 0..3000 {
        flood.send(&bytes(&query(&format!("slow{n}.example"), RecordType::A))).await.expect("sent");
        if n % 50 == 0 {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }
    assert_eq!(receive(&flood).await[3] & 15, 2, "SERVFAIL at once above the limit");
    assert!(shim.publisher.counters().client_over_limit > 0);
    let answer =
        timeout(Duration::from_secs(1), shim.ask(&bytes(&query("fast.example", RecordType::A))))
            .await
            .expect("not delayed by the flood");
    assert_eq!(parsed(&answer).metadata.response_code, ResponseCode::NXDomain);
    shim.stop().await;
}

/// A connection, unless the shim closes it at once.
async fn connect(from: [u8; 4], shim: &RunningShim) -> Option<tokio::net::TcpStream> {
    let socket = tokio::net::TcpSocket::new_v4().expect("a socket");
    socket.bind((from, 0).into()).expect("bound");
    let mut stream = socket.connect(shim.address).await.expect("connected");
    stream.write_all(&framed(&source(RecordType::A))).await.expect("sent");
    let mut length = [0; 2];
    // The shim closes a refused connection, with or without a reset.
    matches!(timeout(TEST_TIMEOUT, stream.read_exact(&mut length)).await.expect("in time"), Ok(2))
        .then_some(stream)
}

#[tokio::test]
async fn one_client_cannot_use_up_the_connections() {
    let shim = RunningShim::start(&[unused()]).await;
    let (mut held, mut refused) = (Vec::new(), 0);
    for _ in 0..270 {
        match connect([127, 0, 0, 9], &shim).await {
            Some(stream) => held.push(stream),
            None => refused += 1,
        }
    }
    assert!(
        refused > 0 && !held.is_empty() && held.len() <= 512 / 2,
        "{} held, {refused} refused",
        held.len()
    );
    assert_eq!(shim.publisher.counters().connections_refused, refused);
    assert!(connect([127, 0, 0, 10], &shim).await.is_some(), "another client may connect");
    drop(held);
    let deadline = std::time::Instant::now() + TEST_TIMEOUT;
    while connect([127, 0, 0, 9], &shim).await.is_none() {
        assert!(std::time::Instant::now() < deadline, "closed connections are free again");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    shim.stop().await;
}

#[tokio::test]
async fn denied_clients_share_the_connections_of_one() {
    let shim = RunningShim::start_with(denies_this_host()).await;
    let connect = async |from: [u8; 4]| {
        let socket = tokio::net::TcpSocket::new_v4().expect("a socket");
        socket.bind((from, 0).into()).expect("bound");
        socket.connect(shim.address).await.expect("connected")
    };
    let refused = async |count: u64| {
        let deadline = std::time::Instant::now() + TEST_TIMEOUT;
        while shim.publisher.counters().connections_refused < count {
            assert!(std::time::Instant::now() < deadline, "{:?}", shim.publisher.counters());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let mut held = Vec::new();
    for _ in 0..512 {
        held.push(connect([127, 0, 0, 9]).await);
    }
    refused(512 / 2).await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    let before = shim.publisher.counters().connections_refused;
    held.push(connect([127, 0, 0, 10]).await);
    refused(before + 1).await;
    shim.stop().await;
}

#[tokio::test]
async fn listed_clients_get_real_addresses_others_the_virtual_one() {
    let real_address_clients = vec!["127.0.0.2/32".parse().expect("a network")];
    let shim =
        RunningShim::start_with(ShimSettings { real_address_clients, ..settings(&[unused()]) })
            .await;
    let vip = Vip { v4: [198, 18, 0, 1].into(), v6: None };
    let real = vec![IpAddr::from([203, 0, 113, 7])];
    let name = "artifactory.internal.company.net";
    shim.publisher
        .publish(Zone::new([(name.parse().expect("a source"), Answer::Live { vip, real })]));
    for (from, expected) in [("127.0.0.1:0", [198, 18, 0, 1]), ("127.0.0.2:0", [203, 0, 113, 7])] {
        let socket = UdpSocket::bind(from).await.expect("a port");
        socket.connect(shim.address).await.expect("connected");
        socket.send(&source(RecordType::A)).await.expect("sent");
        assert_eq!(
            parsed(&receive(&socket).await).answers[0].data.ip_addr(),
            Some(expected.into()),
            "{from}"
        );
    }
    let answer_count = || shim.publisher.answer_counts()(&name.parse().expect("a source"));
    assert_eq!(answer_count(), 2);
    shim.publisher.publish(Zone::new([(name.parse().expect("a source"), Answer::Pending)]));
    assert_eq!(
        parsed(&shim.ask(&source(RecordType::A)).await).metadata.response_code,
        ResponseCode::ServFail
    );
    assert_eq!(shim.publisher.counters().pending, 1);
    assert_eq!(answer_count(), 2, "a change keeps the count");
    shim.stop().await;
}

#[tokio::test]
async fn the_upstream_is_awaited_until_any_answer() {
    let silent = RunningShim::start(&[unused()]).await;
    let awaited = silent.publisher.awaited_upstream().expect("no answer yet");
    assert!(awaited.contains("127.0.0.1:9"), "{awaited}");
    let upstream = ScriptedUpstream::start(|received| {
        vec![Action::Send([&received.query[..2], &[0x81, 0x85], &[0; 8]].concat())]
    })
    .await;
    let shim = RunningShim::start(&[upstream.address]).await;
    let deadline = std::time::Instant::now() + Duration::from_secs(10);
    while shim.publisher.awaited_upstream().is_some() {
        assert!(std::time::Instant::now() < deadline, "a refusal is an answer");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(shim.publisher.counters().queries, 0, "probes are not counted");
    let health = shim.publisher.upstreams();
    assert_eq!((health.len(), health[0].address, health[0].ejected), (1, upstream.address, false));
    assert!(silent.publisher.awaited_upstream().is_some());
    shim.stop().await;
    silent.stop().await;
}
