//! Whom the shim serves, how much of it, and what it says before it can.

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

fn only_strangers() -> ShimSettings {
    let network = "192.0.2.0/24".parse().expect("a network");
    ShimSettings { clients: vec![DnsClients::Network(network)], ..settings(&[unused()]) }
}

#[tokio::test]
async fn a_stranger_is_refused_in_no_more_bytes_than_it_sent() {
    let shim = RunningShim::start_with(only_strangers()).await;
    let asked =
        [raw_question("artifactory.internal.company.net", 255, 1), raw_opt(4096, 0, true)].concat();
    let queries = [
        source(RecordType::A),
        bytes(&query("elsewhere.example", RecordType::TXT)),
        raw_query(7, 0x0100, [1, 0, 0, 1], &asked),
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
async fn a_flood_of_a_stranger_gets_a_few_refusals_and_then_silence() {
    let shim = RunningShim::start_with(only_strangers()).await;
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
async fn one_client_cannot_take_every_place_in_the_queue_for_a_silent_upstream() {
    let upstream = ScriptedUpstream::start(|asked| {
        let name = &asked.query[13..17];
        if name == b"fast" {
            vec![Action::Send(reply(&asked.query, ResponseCode::NXDomain, &[]))]
        } else {
            vec![]
        }
    })
    .await;
    let shim = RunningShim::start(&[upstream.address]).await;
    let flood = UdpSocket::bind("127.0.0.9:0").await.expect("a port");
    flood.connect(shim.address).await.expect("connected");
    for n in 0..1500 {
        flood.send(&bytes(&query(&format!("slow{n}.example"), RecordType::A))).await.expect("sent");
        if n % 50 == 0 {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }
    assert_eq!(receive(&flood).await[3] & 15, 2, "SERVFAIL at once for what is too much");
    assert!(shim.publisher.counters().client_over_limit > 0);
    let answer =
        timeout(Duration::from_secs(1), shim.ask(&bytes(&query("fast.example", RecordType::A))))
            .await
            .expect("not behind the flood");
    assert_eq!(parsed(&answer).metadata.response_code, ResponseCode::NXDomain);
    shim.stop().await;
}

/// A connection that stays open, or that was closed at once.
async fn connects(from: [u8; 4], shim: &RunningShim) -> Option<tokio::net::TcpStream> {
    let socket = tokio::net::TcpSocket::new_v4().expect("a socket");
    socket.bind((from, 0).into()).expect("bound");
    let mut stream = socket.connect(shim.address).await.expect("connected");
    stream.write_all(&framed(&source(RecordType::A))).await.expect("sent");
    let mut length = [0; 2];
    // Closed without a word, or with a reset.
    matches!(timeout(TEST_TIMEOUT, stream.read_exact(&mut length)).await.expect("in time"), Ok(2))
        .then_some(stream)
}

#[tokio::test]
async fn one_client_cannot_take_every_connection() {
    let shim = RunningShim::start(&[unused()]).await;
    let (mut held, mut refused) = (Vec::new(), 0);
    for _ in 0..140 {
        match connects([127, 0, 0, 9], &shim).await {
            Some(stream) => held.push(stream),
            None => refused += 1,
        }
    }
    assert!(
        refused > 0 && !held.is_empty() && held.len() <= 128,
        "{} held, {refused} refused",
        held.len()
    );
    assert_eq!(shim.publisher.counters().connections_refused, refused);
    assert!(connects([127, 0, 0, 10], &shim).await.is_some(), "another client has room");
    drop(held);
    let deadline = std::time::Instant::now() + TEST_TIMEOUT;
    while connects([127, 0, 0, 9], &shim).await.is_none() {
        assert!(std::time::Instant::now() < deadline, "what is closed is given back");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    shim.stop().await;
}

#[tokio::test]
async fn listed_guests_get_real_addresses_and_others_the_virtual_one() {
    let guests = vec!["127.0.0.2/32".parse().expect("a network")];
    let shim = RunningShim::start_with(ShimSettings {
        real_address_clients: guests,
        ..settings(&[unused()])
    })
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
    let answered = || shim.publisher.answer_counts()(&name.parse().expect("a source"));
    assert_eq!(answered(), 2);
    shim.publisher.publish(Zone::new([(name.parse().expect("a source"), Answer::Pending)]));
    assert_eq!(
        parsed(&shim.ask(&source(RecordType::A)).await).metadata.response_code,
        ResponseCode::ServFail
    );
    assert_eq!(shim.publisher.counters().pending, 1);
    assert_eq!(answered(), 2, "counts outlive a change");
    shim.stop().await;
}

#[tokio::test]
async fn the_upstream_is_awaited_until_it_says_anything_at_all() {
    let silent = RunningShim::start(&[unused()]).await;
    let awaited = silent.publisher.awaited_upstream().expect("nobody is there");
    assert!(awaited.contains("127.0.0.1:9"), "{awaited}");
    let upstream = ScriptedUpstream::start(|asked| {
        vec![Action::Send([&asked.query[..2], &[0x81, 0x85], &[0; 8]].concat())]
    })
    .await;
    let shim = RunningShim::start(&[upstream.address]).await;
    let deadline = std::time::Instant::now() + Duration::from_secs(10);
    while shim.publisher.awaited_upstream().is_some() {
        assert!(std::time::Instant::now() < deadline, "a refusal is an answer, too");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(shim.publisher.counters().queries, 0, "nobody asked");
    let health = shim.publisher.upstreams();
    assert_eq!((health.len(), health[0].address, health[0].ejected), (1, upstream.address, false));
    assert!(silent.publisher.awaited_upstream().is_some());
    shim.stop().await;
    silent.stop().await;
}
