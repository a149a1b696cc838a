//! A flood of names that no upstream answers: memory and descriptors stay bounded, and others are
//! answered. In a binary of its own, since it measures its process.

use std::{
    net::{Ipv4Addr, SocketAddr, UdpSocket},
    time::{Duration, Instant},
};

use redirector::{
    config::{DnsClients, Upstream},
    dns::{Publisher, ShimSettings, Vip, Zone, bind},
};
use testbed::dns_query::{A, query};
use tokio_util::sync::CancellationToken;

const NAME: &str = "artifactory.internal.company.net";
/// Clients that flood, each with an address of its own.
const CLIENTS: u8 = 40;
/// Duration of the flood.
const FLOOD: Duration = Duration::from_secs(6);
/// Sockets of waiting queries: 4096 queries, three each.
const MAX_SOCKETS: usize = 3 * 4096;
/// Descriptors that the rest of the process may open.
const OTHER_DESCRIPTORS: usize = 300;
/// Growth of resident memory, in KiB: 4096 queries with their tasks, timers and sockets.
const MAX_GROWTH_KIB: u64 = 64 * 1024;

fn descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").expect("the descriptors").count()
}

/// Resident memory, in KiB.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("the status");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("VmRSS");
    line.split_ascii_whitespace().next().and_then(|word| word.parse().ok()).expect("a number")
}

/// Sends from every client in turn, and reads no replies.
fn flood(shim: SocketAddr) {
    let clients: Vec<_> = (1..=CLIENTS)
        .map(|n| {
            let socket = UdpSocket::bind((Ipv4Addr::new(127, 0, 9, n), 0)).expect("bound");
            socket.connect(shim).expect("connected");
            socket
        })
        .collect();
    let end = Instant::now() + FLOOD;
    for n in 0_u32.. {
        if Instant::now() > end {
            return;
        }
        for (client, socket) in clients.iter().enumerate() {
            // Packets that do not fit the buffer are lost, as on any network.
            let _ = socket.send(&query(1, &format!("n{n}.c{client}.example"), A));
        }
        std::thread::sleep(Duration::from_micros(200));
    }
}

/// Queries the source, and retries if the packet was lost in the flood.
fn is_answered(shim: SocketAddr) -> bool {
    let socket = UdpSocket::bind((Ipv4Addr::new(127, 0, 0, 2), 0)).expect("bound");
    socket.connect(shim).expect("connected");
    socket.set_read_timeout(Some(Duration::from_secs(1))).expect("set");
    (0..5).any(|_| {
        let mut reply = [0; 512];
        socket.send(&query(7, NAME, A)).expect("sent");
        socket.recv(&mut reply).is_ok_and(|length| reply[..length].ends_with(&[198, 18, 0, 1]))
    })
}

fn shim(
    upstream: SocketAddr,
    runtime: &tokio::runtime::Runtime,
) -> (SocketAddr, Publisher, CancellationToken) {
    let settings = ShimSettings {
        listen: vec![SocketAddr::from(([127, 0, 0, 1], 0))],
        upstreams: vec![Upstream::Server(upstream)],
        clients: vec![DnsClients::Local],
        real_address_clients: vec![],
        ttl: 30,
    };
    let shim = runtime.block_on(bind(&settings)).expect("bound");
    let (address, publisher, stop) =
        (shim.local_addrs()[0], shim.publisher(), CancellationToken::new());
    publisher.publish(Zone::new([(
        NAME.parse().expect("a source"),
        Vip { v4: [198, 18, 0, 1].into(), v6: None },
    )]));
    runtime.spawn(shim.serve(stop.clone()));
    (address, publisher, stop)
}

#[test]
fn a_flood_uses_bounded_memory_and_sockets() {
    let silent = UdpSocket::bind("127.0.0.1:0").expect("bound");
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime");
    let (address, publisher, stop) = shim(silent.local_addr().expect("an address"), &runtime);
    assert!(is_answered(address));
    let before = (descriptors(), resident());
    let mut most = before;
    let mut answered = true;
    std::thread::scope(|scope| {
        let flood = scope.spawn(|| flood(address));
        while !flood.is_finished() {
            most = (most.0.max(descriptors()), most.1.max(resident()));
            answered &= is_answered(address);
            std::thread::sleep(Duration::from_millis(100));
        }
    });
    let counters = publisher.counters();
    eprintln!(
        "descriptors {} to {}, resident {} to {} KiB; {counters:?}",
        before.0, most.0, before.1, most.1
    );
    assert!(answered, "another client is always answered: {counters:?}");
    assert!(counters.overloaded > 1000, "it was a flood: {counters:?}");
    assert!(most.0 - before.0 > 1000, "the flood was forwarded");
    assert!(
        most.0 - before.0 < MAX_SOCKETS + OTHER_DESCRIPTORS,
        "{} descriptors more than before",
        most.0 - before.0
    );
    assert!(most.1 - before.1 < MAX_GROWTH_KIB, "{} KiB more than before", most.1 - before.1);
    // The last clients get SERVFAIL after four seconds.
    let deadline = Instant::now() + Duration::from_secs(20);
    while descriptors() > before.0 + OTHER_DESCRIPTORS {
        assert!(Instant::now() < deadline, "{} descriptors are still open", descriptors());
        std::thread::sleep(Duration::from_millis(100));
    }
    stop.cancel();
}
