//! Upstreams that forward queries back to the shim. Where the loop detector misses one, queries go
//! round until a limit ends it.

use std::{
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use hickory_proto::{op::ResponseCode, rr::RecordType};
use tokio::{net::UdpSocket, time::timeout};

use crate::{
    message::{bytes, parsed, query},
    running_shim::{RunningShim, source},
};

/// Forwards every query to `shim` from a new socket and returns the answer.
async fn relay(socket: UdpSocket, shim: SocketAddr, drops_probes: bool) {
    let socket = Arc::new(socket);
    let mut buffer = [0; 512];
    while let Ok((length, client)) = socket.recv_from(&mut buffer).await {
        let (query, socket) = (buffer[..length].to_vec(), Arc::clone(&socket));
        if drops_probes && query[13..].starts_with(b"redirector-loop-") {
            continue;
        }
        tokio::spawn(async move {
            let socket_to_shim = UdpSocket::bind("127.0.0.1:0").await.expect("a port");
            socket_to_shim.send_to(&query, shim).await.expect("sent");
            let mut reply = [0; 512];
            if let Ok(Ok((length, _))) =
                timeout(Duration::from_secs(10), socket_to_shim.recv_from(&mut reply)).await
            {
                drop(socket.send_to(&reply[..length], client).await);
            }
        });
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_undetected_loop_ends_and_sources_are_still_answered() {
    let upstream = UdpSocket::bind("127.0.0.1:0").await.expect("a port");
    let shim = RunningShim::start(&[upstream.local_addr().expect("an address")]).await;
    let relaying = tokio::spawn(relay(upstream, shim.address, true));
    let began = Instant::now();
    assert_eq!(
        parsed(&shim.ask(&bytes(&query("elsewhere.example", RecordType::A))).await)
            .metadata
            .response_code,
        ResponseCode::ServFail
    );
    assert!(began.elapsed() < Duration::from_secs(8), "{:?}", began.elapsed());
    assert_eq!(parsed(&shim.ask(&source(RecordType::A)).await).answers.len(), 1);
    tokio::time::sleep(Duration::from_secs(1)).await;
    let after = shim.publisher.counters();
    println!("{:?}, {after:?}", began.elapsed());
    assert!(after.queries < 10_000, "{after:?}");
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert!(
        shim.publisher.counters().queries - after.queries < 2000,
        "the loop continues: {:?}",
        shim.publisher.counters()
    );
    relaying.abort();
    shim.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_looping_upstream_is_reported_and_not_queried() {
    let upstream = UdpSocket::bind("127.0.0.1:0").await.expect("a port");
    let address = upstream.local_addr().expect("an address");
    let shim = RunningShim::start(&[address]).await;
    let relaying = tokio::spawn(relay(upstream, shim.address, false));
    let deadline = Instant::now() + Duration::from_secs(20);
    while !shim.publisher.upstreams()[0].loops {
        assert!(Instant::now() < deadline, "the loop is not found");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let expected = format!("every DNS upstream forwards back to us ({address})");
    assert_eq!(shim.publisher.awaited_upstream(), Some(expected));
    // The question whether an upstream answers at all may have been before that.
    let before = shim.publisher.upstreams()[0].queries;
    let elsewhere = bytes(&query("elsewhere.example", RecordType::A));
    let answer = parsed(&shim.ask(&elsewhere).await);
    assert_eq!(answer.metadata.response_code, ResponseCode::ServFail);
    let health = &shim.publisher.upstreams()[0];
    assert_eq!((health.queries, health.ejected), (before, true));
    assert_eq!(parsed(&shim.ask(&source(RecordType::A)).await).answers.len(), 1);
    relaying.abort();
    shim.stop().await;
}
