//! The ports of DNS that is intercepted at sockets: each forwards to the resolver of its slot and
//! to no other.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    time::{Duration, Instant},
};

use hickory_proto::{
    op::ResponseCode,
    rr::{RData, RecordType, rdata::A},
};
use redirector::dns::{BindError, ShimSettings, bind};

use crate::{
    message::{bytes, parsed, query, reply},
    running_shim::{DnsClient, RunningShim, settings, source, unused},
    scripted_upstream::{Action, ReceivedQuery, ScriptedUpstream},
};

/// An address that only this process uses, since port 53 is fixed and tests run in parallel.
fn resolver(last: u8) -> IpAddr {
    let [.., high, low] = std::process::id().to_be_bytes();
    Ipv4Addr::new(127, high | 1, low, last).into()
}

/// A shim at an address of its own, since its ports are fixed, too.
fn own_settings(last: u8, upstream: SocketAddr) -> ShimSettings {
    ShimSettings { listen: vec![(resolver(last), 0).into()], ..settings(&[upstream]) }
}

fn answers(last: u8) -> impl Fn(&ReceivedQuery) -> Vec<Action> {
    move |received| {
        vec![Action::Send(reply(
            &received.query,
            ResponseCode::NoError,
            &[RData::A(A::new(192, 0, 2, last))],
        ))]
    }
}

/// The last octet of the answer, which identifies the server.
fn last_octet(reply: &[u8]) -> u8 {
    match parsed(reply).answers[0].data.ip_addr() {
        Some(IpAddr::V4(ip)) => ip.octets()[3],
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn other_names_go_to_the_resolver_of_the_slot() {
    let (one, two) = (
        ScriptedUpstream::at((resolver(1), 53).into(), answers(1)).await,
        ScriptedUpstream::at((resolver(2), 53).into(), answers(2)).await,
    );
    let system = ScriptedUpstream::start(answers(9)).await;
    let mut bound = bind(&own_settings(11, system.address)).await.expect("bound");
    let own = bound.local_addrs()[0];
    let ports = bound.intercept(&[Some(resolver(1)), None, Some(resolver(2))]).expect("free ports");
    assert_eq!((ports.ipv4.map(IpAddr::V4), ports.ipv6), (Some(own.ip()), None));
    let shim = RunningShim::serve(bound);
    for (slot, expected) in [(0, 1), (2, 2)] {
        let port = DnsClient(SocketAddr::new(own.ip(), ports.first_port + slot));
        let query = bytes(&query("www.example.com", RecordType::A));
        assert_eq!(last_octet(&port.ask(&query).await), expected, "slot {slot}");
        assert_eq!(last_octet(&port.ask_tcp(&query).await), expected, "slot {slot}, TCP");
        assert_eq!(
            parsed(&port.ask(&source(RecordType::A)).await).answers[0].data.ip_addr(),
            Some([198, 18, 0, 1].into()),
            "slot {slot}"
        );
    }
    assert_eq!(
        last_octet(&shim.ask(&bytes(&query("www.example.com", RecordType::A))).await),
        9,
        "the shim's own port"
    );
    assert_eq!((one.queries().len(), two.queries().len()), (2, 2));
    let unused = tokio::net::TcpStream::connect((own.ip(), ports.first_port + 1)).await;
    assert!(unused.is_err(), "an unused slot has no port");
    shim.stop().await;
}

#[tokio::test]
async fn no_other_upstream_answers_for_a_silent_resolver() {
    let system = ScriptedUpstream::start(answers(9)).await;
    let mut bound = bind(&own_settings(13, system.address)).await.expect("bound");
    let own = bound.local_addrs()[0];
    let ports = bound.intercept(&[Some(resolver(3))]).expect("free ports");
    let shim = RunningShim::serve(bound);
    let port = DnsClient(SocketAddr::new(own.ip(), ports.first_port));
    for _ in 0..3 {
        let answer = port.ask(&bytes(&query("www.example.com", RecordType::A))).await;
        assert_eq!(parsed(&answer).metadata.response_code, ResponseCode::ServFail);
    }
    assert!(system.queries().is_empty());
    shim.stop().await;
}

#[tokio::test]
async fn a_stopping_port_still_answers_and_pending_get_servfail() {
    let mut bound = bind(&own_settings(14, unused())).await.expect("bound");
    // Silent over UDP, closed over TCP.
    let silent = tokio::net::UdpSocket::bind((resolver(4), 53)).await.expect("a resolver");
    let ports = bound.intercept(&[Some(resolver(4))]).expect("free ports");
    let port = SocketAddr::new(bound.local_addrs()[0].ip(), ports.first_port);
    let shim = RunningShim::serve(bound);
    let waiting = tokio::spawn(async move {
        DnsClient(port).ask(&bytes(&query("www.example.com", RecordType::A))).await
    });
    let over_tcp = tokio::spawn(async move {
        DnsClient(port).ask_tcp(&bytes(&query("www.example.com", RecordType::A))).await
    });
    silent.recv(&mut [0; 512]).await.expect("the forwarded query");
    tokio::time::sleep(Duration::from_millis(100)).await;
    let began = Instant::now();
    let stopping = tokio::spawn(shim.stop());
    for _ in 0..4 {
        tokio::time::sleep(Duration::from_millis(50)).await;
        assert_eq!(
            parsed(&DnsClient(port).ask(&source(RecordType::A)).await).answers.len(),
            1,
            "after {:?}",
            began.elapsed()
        );
    }
    for answer in [waiting.await, over_tcp.await] {
        assert_eq!(
            parsed(&answer.expect("an answer")).metadata.response_code,
            ResponseCode::ServFail
        );
    }
    stopping.await.expect("stopped");
}

#[tokio::test]
async fn an_occupied_port_is_reported() {
    let listed = [Some(resolver(5))];
    let mut first = bind(&own_settings(15, unused())).await.expect("bound");
    let ports = first.intercept(&listed).expect("free ports");
    let mut second = bind(&own_settings(15, unused())).await.expect("bound");
    let error = second.intercept(&listed).expect_err("in use");
    assert!(
        matches!(error, BindError::InUse { address, .. } if address.port() == ports.first_port),
        "{error}"
    );
    assert!(ports.first_port < 1024, "only a privileged process can bind it");
}
