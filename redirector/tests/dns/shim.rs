//! The answers for sources over real sockets, and errors of binding them.

use std::{net::Ipv4Addr, process::Command, time::Duration};

use hickory_proto::{op::ResponseCode, rr::RecordType};
use redirector::{
    config::DnsClients,
    dns::{Answer, BindError, ShimSettings, Vip, Zone, bind},
    net::Transport,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpStream, UdpSocket},
    time::timeout,
};
use tokio_util::sync::CancellationToken;

use crate::{
    message::{bytes, parsed, query, reply},
    running_shim::{RunningShim, TEST_TIMEOUT, framed, read, receive, settings, source, unused},
    scripted_upstream::{Action, ScriptedUpstream},
};

#[tokio::test]
async fn a_source_is_answered_over_udp_and_tcp_on_one_port() {
    let shim = RunningShim::start(&[unused()]).await;
    let query = source(RecordType::A);
    let udp = shim.ask(&query).await;
    assert_eq!(parsed(&udp).answers[0].data.ip_addr(), Some(Ipv4Addr::new(198, 18, 0, 1).into()));
    assert_eq!(shim.ask_tcp(&query).await, udp);
    let counters = shim.publisher.counters();
    assert_eq!((counters.queries, counters.answered, counters.forwarded), (2, 2, 0));
    shim.stop().await;
}

#[tokio::test]
async fn published_answers_apply_to_the_next_query() {
    let shim = RunningShim::start(&[unused()]).await;
    let vip = Vip { v4: Ipv4Addr::new(198, 18, 0, 99), v6: None };
    shim.publisher
        .publish(Zone::new([("artifactory.internal.company.net".parse().expect("a source"), vip)]));
    let reply = parsed(&shim.ask(&source(RecordType::A)).await);
    assert_eq!(reply.answers[0].data.ip_addr(), Some(vip.v4.into()));
    shim.stop().await;
}

#[tokio::test]
async fn an_update_changes_the_named_sources_only() {
    let shim = RunningShim::start(&[unused()]).await;
    let vip = |last| Answer::from(Vip { v4: Ipv4Addr::new(198, 18, 0, last), v6: None });
    let source = |text: &str| text.parse().expect("a source");
    let (kept, added) = (source("artifactory.internal.company.net"), source("new.example"));
    shim.publisher.update([(added, Some(vip(2))), (source("gone.example"), Some(vip(3)))]);
    shim.publisher.update([(source("gone.example"), None), (kept, Some(vip(4)))]);
    let expected = |last| {
        let artifactory = source("artifactory.internal.company.net");
        [(artifactory, vip(last)), (source("new.example"), vip(2))]
    };
    assert!(shim.publisher.is_current(expected(4)) && !shim.publisher.is_current(expected(1)));
    let address = |reply: Vec<u8>| parsed(&reply).answers[0].data.ip_addr();
    let new = bytes(&query("new.example", RecordType::A));
    assert_eq!(address(shim.ask(&new).await), Some([198, 18, 0, 2].into()));
    assert_eq!(shim.publisher.answer_counts()(&source("new.example")), 1);
    shim.publisher.update([(source("new.example"), Some(vip(5)))]);
    assert_eq!(address(shim.ask(&new).await), Some([198, 18, 0, 5].into()));
    assert_eq!(shim.publisher.answer_counts()(&source("new.example")), 2, "it keeps its count");
    shim.stop().await;
}

#[tokio::test]
async fn new_settings_apply_to_the_next_query() {
    let upstream = |code| {
        ScriptedUpstream::start(move |received| {
            vec![Action::Send(reply(&received.query, code, &[]))]
        })
    };
    let (old, new) = (upstream(ResponseCode::NXDomain).await, upstream(ResponseCode::NotImp).await);
    let shim = RunningShim::start(&[old.address]).await;
    let elsewhere = bytes(&query("elsewhere.example", RecordType::A));
    let code = |reply: Vec<u8>| parsed(&reply).metadata.response_code;
    assert_eq!(code(shim.ask(&elsewhere).await), ResponseCode::NXDomain);
    let changed = ShimSettings { ttl: 7, ..settings(&[new.address]) };
    shim.publisher.reconfigure(&changed).expect("fine");
    assert_eq!(code(shim.ask(&elsewhere).await), ResponseCode::NotImp);
    assert_eq!(parsed(&shim.ask(&source(RecordType::A)).await).answers[0].ttl, 7);
    let clients = vec![DnsClients::Network("192.0.2.0/24".parse().expect("a network"))];
    shim.publisher.reconfigure(&ShimSettings { clients, ..changed }).expect("fine");
    assert_eq!(code(shim.ask(&source(RecordType::A)).await), ResponseCode::Refused);
    assert_eq!(shim.publisher.denied_client(), Some([127, 0, 0, 1].into()));
    shim.stop().await;
}

#[tokio::test]
async fn a_connection_is_not_read_while_many_queries_wait() {
    const FLOOD: usize = 16 << 20;
    let short = framed(&bytes(&query("n", RecordType::A)));
    let mut long = bytes(&query("n", RecordType::A));
    long.resize(512, 0);
    // The limits are 64 queries, and 16 KiB of them.
    for (first, most) in [(vec![], 64), (framed(&long).repeat(32), 32)] {
        let silent = ScriptedUpstream::start(|_| vec![]).await;
        let shim = RunningShim::start(&[silent.address]).await;
        let mut stream = TcpStream::connect(shim.address).await.expect("connected");
        let flood = [first, short.repeat(FLOOD / short.len())].concat();
        let sent = timeout(Duration::from_secs(2), stream.write_all(&flood)).await;
        assert!(sent.is_err(), "{FLOOD} bytes are accepted");
        let queries = || shim.publisher.counters().queries;
        let deadline = std::time::Instant::now() + TEST_TIMEOUT;
        while queries() < most {
            assert!(std::time::Instant::now() < deadline, "{} wait", queries());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        assert_eq!(queries(), most);
        drop(stream);
        shim.stop().await;
    }
}

#[tokio::test]
async fn queries_on_one_connection_are_answered_out_of_order() {
    let upstream = ScriptedUpstream::start(|received| {
        vec![
            Action::Wait(Duration::from_secs(1)),
            Action::Send(reply(&received.query, ResponseCode::NXDomain, &[])),
        ]
    })
    .await;
    let shim = RunningShim::start(&[upstream.address]).await;
    let mut stream = TcpStream::connect(shim.address).await.expect("connected");
    let (slow, slow2, fast) = (
        bytes(&query("slow.example", RecordType::A)),
        bytes(&query("slow2.example", RecordType::A)),
        source(RecordType::A),
    );
    let start = std::time::Instant::now();
    stream.write_all(&[framed(&slow), framed(&slow2), framed(&fast)].concat()).await.expect("sent");
    assert_eq!(read(&mut stream).await[..2], fast[..2], "a local answer comes first");
    let mut ids = [read(&mut stream).await[..2].to_vec(), read(&mut stream).await[..2].to_vec()];
    assert!(start.elapsed() < Duration::from_millis(1900), "both were forwarded at the same time");
    ids.sort();
    let mut expected = [slow[..2].to_vec(), slow2[..2].to_vec()];
    expected.sort();
    assert_eq!(ids, expected);
    shim.stop().await;
}

#[tokio::test]
async fn a_query_that_arrives_in_pieces_is_answered() {
    let shim = RunningShim::start(&[unused()]).await;
    let mut stream = TcpStream::connect(shim.address).await.expect("connected");
    stream.set_nodelay(true).expect("set");
    for byte in framed(&source(RecordType::A)) {
        stream.write_all(&[byte]).await.expect("sent");
        tokio::task::yield_now().await;
    }
    assert_eq!(parsed(&read(&mut stream).await).answers.len(), 1);
    shim.stop().await;
}

#[tokio::test]
async fn a_half_closed_connection_still_gets_its_answers() {
    let upstream = ScriptedUpstream::start(|received| {
        vec![
            Action::Wait(Duration::from_millis(100)),
            Action::Send(reply(&received.query, ResponseCode::NXDomain, &[])),
        ]
    })
    .await;
    let shim = RunningShim::start(&[upstream.address]).await;
    let mut stream = TcpStream::connect(shim.address).await.expect("connected");
    stream.write_all(&framed(&bytes(&query("a.example", RecordType::A)))).await.expect("sent");
    stream.shutdown().await.expect("shut down");
    assert_eq!(parsed(&read(&mut stream).await).metadata.response_code, ResponseCode::NXDomain);
    let mut rest = Vec::new();
    timeout(TEST_TIMEOUT, stream.read_to_end(&mut rest))
        .await
        .expect("closed in time")
        .expect("closed");
    assert!(rest.is_empty());
    shim.stop().await;
}

#[tokio::test]
async fn idle_connections_close_and_garbage_closes_at_once() {
    let shim = RunningShim::start(&[unused()]).await;
    let mut garbage = TcpStream::connect(shim.address).await.expect("connected");
    garbage.write_all(&framed(b"hello")).await.expect("sent");
    let closed =
        timeout(Duration::from_secs(2), garbage.read(&mut [0; 16])).await.expect("closed at once");
    assert_eq!(closed.expect("closed"), 0);

    let mut idle = TcpStream::connect(shim.address).await.expect("connected");
    let closed =
        timeout(Duration::from_secs(20), idle.read(&mut [0; 16])).await.expect("closed in time");
    assert_eq!(closed.expect("closed"), 0);
    shim.stop().await;
}

#[tokio::test]
async fn random_packets_neither_stop_nor_slow_the_shim() {
    // The upstream answers, so that mutated names cause no time-outs.
    let upstream = ScriptedUpstream::start(|received| {
        vec![Action::Send([&received.query[..2], &[0x81, 0x85], &[0; 8]].concat())]
    })
    .await;
    let shim = RunningShim::start(&[upstream.address]).await;
    let socket = UdpSocket::bind("127.0.0.1:0").await.expect("a port");
    socket.connect(shim.address).await.expect("connected");
    for round in 0..10_000_u32 {
        let mut packet = source(if round % 2 == 0 { RecordType::A } else { RecordType::AAAA });
        for _ in 0..rand::random_range(1..6) {
            let at = rand::random_range(0..packet.len());
            packet[at] = rand::random();
        }
        packet.truncate(rand::random_range(0..=packet.len()));
        socket.send(&packet).await.expect("sent");
        if round % 64 == 0 {
            tokio::task::yield_now().await;
        }
    }
    let start = std::time::Instant::now();
    assert_eq!(parsed(&shim.ask(&source(RecordType::A)).await).answers.len(), 1);
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
    let counters = shim.publisher.counters();
    assert!(
        counters.queries > 1000
            && counters.formerr > 0
            && counters.dropped > 0
            && counters.forwarded > 0,
        "{counters:?}"
    );
    shim.stop().await;
}

#[tokio::test]
async fn a_port_in_use_is_an_error_with_address_and_owner() {
    let taken = UdpSocket::bind("127.0.0.1:0").await.expect("a port");
    let address = taken.local_addr().expect("an address");
    let error = bind(&ShimSettings { listen: vec![address], ..settings(&[unused()]) })
        .await
        .expect_err("in use");
    let text = error.to_string();
    assert!(
        text.contains(&format!("failed to bind UDP {address}: "))
            && text.contains(&format!("(pid {})", std::process::id())),
        "{text}"
    );
    assert!(text.contains("`dns.listen`"), "{text}");

    let taken = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = taken.local_addr().expect("an address");
    let error = bind(&ShimSettings { listen: vec![address], ..settings(&[unused()]) })
        .await
        .expect_err("in use");
    assert!(
        matches!(&error, BindError::InUse { transport: Transport::Tcp, owner: Some(_), .. }),
        "{error}"
    );
}

#[tokio::test]
async fn unusable_addresses_are_refused_with_the_remedy() {
    let refused = async |listen: &str| {
        let listen = vec![listen.parse().expect("an address")];
        bind(&ShimSettings { listen, ..settings(&[unused()]) })
            .await
            .expect_err("refused")
            .to_string()
    };
    assert!(refused("0.0.0.0:0").await.contains("list each address"));
    let missing = refused("192.0.2.53:5353").await;
    assert!(
        missing.contains("this host has no such address")
            && missing.contains("ip address add 192.0.2.53/32 dev lo"),
        "{missing}"
    );
    let none =
        bind(&ShimSettings { listen: vec![], ..settings(&[unused()]) }).await.expect_err("refused");
    assert!(matches!(none, BindError::NoAddress), "{none}");
}

#[tokio::test]
async fn our_own_address_as_upstream_is_refused() {
    let free = testbed::unused_address();
    let error =
        bind(&ShimSettings { listen: vec![free], ..settings(&[free]) }).await.expect_err("a loop");
    assert!(matches!(error, BindError::Loop(address) if address == free), "{error}");
}

#[tokio::test]
async fn two_shims_cannot_share_an_address() {
    let one = bind(&settings(&[unused()])).await.expect("bound");
    let error = bind(&ShimSettings { listen: one.local_addrs(), ..settings(&[unused()]) })
        .await
        .expect_err("in use");
    assert!(matches!(error, BindError::InUse { .. }), "{error}");
}

#[tokio::test]
async fn a_shim_that_stops_answers_what_it_has_received() {
    let bound = bind(&settings(&[unused()])).await.expect("bound");
    let vip = Vip { v4: Ipv4Addr::new(198, 18, 0, 1), v6: None };
    let name = "artifactory.internal.company.net".parse().expect("a source");
    bound.publisher().publish(Zone::new([(name, vip)]));
    let client = UdpSocket::bind("127.0.0.1:0").await.expect("a port");
    client.connect(bound.local_addrs()[0]).await.expect("connected");
    client.send(&source(RecordType::A)).await.expect("sent");
    let stop = CancellationToken::new();
    stop.cancel();
    bound.serve(stop).await.expect("no error");
    assert_eq!(parsed(&receive(&client).await).answers.len(), 1);
}

#[tokio::test]
async fn a_stopped_shim_frees_its_addresses() {
    let shim = RunningShim::start(&[unused()]).await;
    let address = shim.address;
    // A connection that the shim closes stays in TIME-WAIT, which must not block the next bind.
    let mut stream = TcpStream::connect(address).await.expect("connected");
    stream.write_all(&framed(&source(RecordType::A))).await.expect("sent");
    read(&mut stream).await;
    shim.stop().await;
    let next = bind(&ShimSettings { listen: vec![address], ..settings(&[unused()]) })
        .await
        .expect("free again");
    assert_eq!(next.local_addrs(), [address]);
}

#[tokio::test(flavor = "multi_thread")]
async fn dig_accepts_answers() {
    let upstream = ScriptedUpstream::start(|received| {
        vec![Action::Send(reply(&received.query, ResponseCode::NXDomain, &[]))]
    })
    .await;
    let shim = RunningShim::start(&[upstream.address]).await;
    let dig = |arguments: &[&str]| {
        let at = [
            format!("@{}", shim.address.ip()),
            "-p".into(),
            shim.address.port().to_string(),
            "+tries=1".into(),
            "+time=5".into(),
        ];
        let output = Command::new("dig")
            .args(at)
            .args(arguments)
            .output()
            .expect("dig, which `cargo xtask setup` installs");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success() && !text.contains("WARNING"), "dig {arguments:?}: {text}");
        text
    };
    let name = "ArtiFactory.internal.company.net";
    let text = dig(&[name, "A"]);
    assert!(
        text.contains("status: NOERROR")
            && text.contains("flags: qr aa rd ra; QUERY: 1, ANSWER: 1, AUTHORITY: 0"),
        "{text}"
    );
    assert!(text.contains("ArtiFactory.internal.company.net. 30 IN\tA\t198.18.0.1"), "{text}");
    assert!(text.contains("EDNS: version: 0, flags:; udp: 1232"), "{text}");
    assert_eq!(dig(&["+tcp", "+short", name, "A"]), "198.18.0.1\n");
    assert_eq!(dig(&["+noedns", "+short", name, "A"]), "198.18.0.1\n");
    assert_eq!(dig(&["+short", "-x", "198.18.0.1"]), "artifactory.internal.company.net.\n");
    for kind in ["AAAA", "HTTPS", "SVCB", "TXT", "MX", "TYPE65280"] {
        let text = dig(&["+dnssec", name, kind]);
        assert!(
            text.contains("status: NOERROR")
                && text.contains("ANSWER: 0, AUTHORITY: 1")
                && text.contains("SOA"),
            "{text}"
        );
        assert!(text.contains("flags: do; udp: 1232"), "{text}");
    }
    assert!(dig(&["+edns=1", "+noednsnegotiation", name, "A"]).contains("status: BADVERS"));
    assert!(dig(&["+opcode=notify", name, "SOA"]).contains("status: NOTIMP"));
    assert!(dig(&["version.bind", "TXT", "CH"]).contains("status: REFUSED"));
    assert!(
        dig(&["artifactory.internal.company.net.corp.example", "A"]).contains("status: NXDOMAIN")
    );
    assert_eq!(upstream.queries().len(), 1, "only the last name is forwarded");
    shim.stop().await;
}
