//! A shim that takes over the sockets of another, and the queries that one has not answered.

use std::os::fd::{BorrowedFd, OwnedFd};

use hickory_proto::{
    op::ResponseCode,
    rr::{RData, RecordType, rdata::A},
};
use redirector::{
    dns::{BoundShim, ShimSettings, Vip, Zone, adopt, bind},
    net::InheritedSockets,
};
use tokio::net::UdpSocket;
use tokio_util::sync::CancellationToken;

use crate::{
    message::{bytes, parsed, query, reply},
    running_shim::{RunningShim, receive, settings, source, unused},
    scripted_upstream::{Action, ScriptedUpstream},
};

/// What another process would get of a shim.
fn descriptors(shim: &BoundShim) -> InheritedSockets {
    let owned = |socket: BorrowedFd<'_>| socket.try_clone_to_owned().expect("a descriptor");
    InheritedSockets::new(shim.sockets().into_iter().map(owned).collect::<Vec<OwnedFd>>())
}

#[tokio::test]
async fn queries_that_a_killed_shim_has_left_are_answered_once() {
    let silent = ScriptedUpstream::start(|_| vec![]).await;
    let upstream = ScriptedUpstream::start(|received| {
        let data = RData::A(A::new(192, 0, 2, 7));
        vec![Action::Send(reply(&received.query, ResponseCode::NoError, &[data]))]
    })
    .await;
    let first = bind(&settings(&[silent.address])).await.expect("bound");
    let (address, inherited) = (first.local_addrs()[0], descriptors(&first));
    let task = tokio::spawn(first.serve(CancellationToken::new()));
    let client = UdpSocket::bind("127.0.0.1:0").await.expect("a port");
    client.connect(address).await.expect("connected");
    let queries =
        ["elsewhere.example", "new.example"].map(|name| bytes(&query(name, RecordType::A)));
    for query in &queries {
        client.send(query).await.expect("sent");
    }
    silent.wait_for(2).await;
    let settings = ShimSettings { listen: vec![address], ..settings(&[upstream.address]) };
    let mut second = adopt(&settings, inherited).await.expect("adopted");
    let vip = Vip { v4: [198, 18, 0, 9].into(), v6: None };
    second.publisher().publish(Zone::new([("new.example".parse().expect("a source"), vip)]));
    second.start().expect("started");
    second.start().expect("once only");
    let mut answers = Vec::new();
    for _ in &queries {
        let answer = parsed(&receive(&client).await);
        let [record] = &answer.answers[..] else { panic!("no record: {answer:?}") };
        answers.push(record.data.ip_addr().expect("an address").to_string());
    }
    answers.sort();
    assert_eq!(answers, ["192.0.2.7", "198.18.0.9"]);
    assert_eq!(upstream.queries().len(), 1);
    assert_eq!(second.publisher().counters().queries, 2);
    task.abort();
}

#[tokio::test]
async fn a_shim_that_stops_leaves_no_queries() {
    let silent = ScriptedUpstream::start(|_| vec![]).await;
    let first = bind(&settings(&[silent.address])).await.expect("bound");
    let (address, inherited) = (first.local_addrs()[0], descriptors(&first));
    let shim = RunningShim::serve(first);
    let client = UdpSocket::bind("127.0.0.1:0").await.expect("a port");
    client.connect(address).await.expect("connected");
    client.send(&bytes(&query("elsewhere.example", RecordType::A))).await.expect("sent");
    silent.wait_for(1).await;
    shim.stop().await;
    let answer = parsed(&receive(&client).await);
    assert_eq!(answer.metadata.response_code, ResponseCode::ServFail, "it answers itself");
    let settings = ShimSettings { listen: vec![address], ..settings(&[silent.address]) };
    let second = RunningShim::serve(adopt(&settings, inherited).await.expect("adopted"));
    assert_eq!(parsed(&second.ask(&source(RecordType::A)).await).answers.len(), 1);
    assert_eq!(second.publisher.counters().queries, 1);
    second.stop().await;
}

#[tokio::test]
async fn sockets_of_addresses_that_are_not_served_are_left() {
    let two = ShimSettings {
        listen: vec![([127, 0, 0, 1], 0).into(), ([127, 0, 0, 2], 0).into()],
        ..settings(&[unused()])
    };
    let first = bind(&two).await.expect("bound");
    let (listen, inherited) = (first.local_addrs(), descriptors(&first));
    drop(first);
    let one = |at: usize| ShimSettings { listen: vec![listen[at]], ..settings(&[unused()]) };
    let mut second = adopt(&one(0), inherited).await.expect("adopted");
    bind(&one(1)).await.expect_err("its sockets are still open");
    let third = adopt(&one(1), second.take_unused()).await.expect("adopted");
    assert_eq!((second.local_addrs(), third.local_addrs()), (vec![listen[0]], vec![listen[1]]));
}
