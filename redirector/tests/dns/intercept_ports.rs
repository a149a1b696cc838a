//! The ports for intercepted DNS: each passes on to the resolver that its slot stands for, and to
//! no other.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    time::{Duration, Instant},
};

use hickory_proto::{
    op::ResponseCode,
    rr::{RData, RecordType, rdata::A},
};
use redirector::dns::bind;

use crate::{
    message::{bytes, parsed, query, reply},
    running_shim::{DnsClient, RunningShim, settings, source, unused},
    scripted_upstream::{Action, ReceivedQuery, ScriptedUpstream},
};

const SLOTS: u16 = 4;

/// An address of this process's own, so that tests at the same time do not meet at port 53.
fn resolver(last: u8) -> IpAddr {
    let [.., high, low] = std::process::id().to_be_bytes();
    Ipv4Addr::new(127, high | 1, low, last).into()
}

fn says(last: u8) -> impl Fn(&ReceivedQuery) -> Vec<Action> {
    move |asked| {
        vec![Action::Send(reply(
            &asked.query,
            ResponseCode::NoError,
            &[RData::A(A::new(192, 0, 2, last))],
        ))]
    }
}

/// Which of the servers answered.
fn last(reply: &[u8]) -> u8 {
    match parsed(reply).answers[0].data.ip_addr() {
        Some(IpAddr::V4(ip)) => ip.octets()[3],
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn what_is_not_ours_goes_to_the_resolver_that_was_asked() {
    let (one, two) = (
        ScriptedUpstream::at((resolver(1), 53).into(), says(1)).await,
        ScriptedUpstream::at((resolver(2), 53).into(), says(2)).await,
    );
    let system = ScriptedUpstream::start(says(9)).await;
    let mut bound = bind(&settings(&[system.address])).await.expect("bound");
    let own = bound.local_addrs()[0];
    let slots = [resolver(1), resolver(2)];
    let ports = bound
        .intercept(SLOTS, Box::new(move |slot| slots.get(slot as usize).copied()))
        .expect("a row of ports");
    assert_eq!((ports.ipv4.map(IpAddr::V4), ports.ipv6), (Some(own.ip()), None));
    let shim = RunningShim::serve(bound);
    // The last slots stand for nobody.
    for (slot, expected) in [(0, 1), (1, 2), (2, 9), (3, 9)] {
        let port = DnsClient(SocketAddr::new(own.ip(), ports.first_port + slot));
        let asked = bytes(&query("www.example.com", RecordType::A));
        assert_eq!(last(&port.ask(&asked).await), expected, "slot {slot}");
        assert_eq!(last(&port.ask_tcp(&asked).await), expected, "slot {slot}, TCP");
        assert_eq!(
            parsed(&port.ask(&source(RecordType::A)).await).answers[0].data.ip_addr(),
            Some([198, 18, 0, 1].into()),
            "slot {slot}"
        );
    }
    assert_eq!(
        last(&shim.ask(&bytes(&query("www.example.com", RecordType::A))).await),
        9,
        "the port that all know"
    );
    assert_eq!((one.queries().len(), two.queries().len()), (2, 2));
    let known: Vec<_> =
        shim.publisher.intercepted_resolvers().iter().map(|known| known.address.ip()).collect();
    assert_eq!(known, slots);
    shim.stop().await;
}

#[tokio::test]
async fn a_resolver_that_does_not_answer_is_nobody_elses_business() {
    let system = ScriptedUpstream::start(says(9)).await;
    let mut bound = bind(&settings(&[system.address])).await.expect("bound");
    let own = bound.local_addrs()[0];
    let ports = bound.intercept(SLOTS, Box::new(|_| Some(resolver(3)))).expect("a row of ports");
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
async fn told_to_stop_a_port_goes_on_until_nobody_asks_and_who_waits_for_a_resolver_is_told() {
    let mut bound = bind(&settings(&[unused()])).await.expect("bound");
    // It never answers. Over TCP it refuses.
    let silent = tokio::net::UdpSocket::bind((resolver(4), 53)).await.expect("a resolver");
    let ports = bound.intercept(SLOTS, Box::new(|_| Some(resolver(4)))).expect("a row of ports");
    let port = SocketAddr::new(bound.local_addrs()[0].ip(), ports.first_port);
    let shim = RunningShim::serve(bound);
    let waiting = tokio::spawn(async move {
        DnsClient(port).ask(&bytes(&query("www.example.com", RecordType::A))).await
    });
    let over_tcp = tokio::spawn(async move {
        DnsClient(port).ask_tcp(&bytes(&query("www.example.com", RecordType::A))).await
    });
    silent.recv(&mut [0; 512]).await.expect("the query was passed on");
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
async fn rows_of_ports_never_overlap() {
    let mut rows = Vec::new();
    let mut shims = Vec::new();
    for _ in 0..3 {
        let mut bound = bind(&settings(&[([127, 0, 0, 1], 9).into()])).await.expect("bound");
        rows.push(bound.intercept(SLOTS, Box::new(|_| None)).expect("a row of ports").first_port);
        shims.push(bound);
    }
    rows.sort_unstable();
    assert!(rows.windows(2).all(|pair| pair[1] - pair[0] >= SLOTS), "{rows:?}");
}
