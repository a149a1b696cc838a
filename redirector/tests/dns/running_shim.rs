//! A shim on real sockets, and clients that query it.

use std::{
    net::{Ipv4Addr, SocketAddr},
    time::Duration,
};

use hickory_proto::rr::RecordType;
use redirector::{
    config::{DnsClients, Upstream},
    dns::{BoundShim, Publisher, ShimSettings, Vip, Zone, bind},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpStream, UdpSocket},
    task::JoinHandle,
    time::timeout,
};
use tokio_util::sync::CancellationToken;

use crate::message::{bytes, query};

/// Longest time of one exchange in a test.
pub(crate) const TEST_TIMEOUT: Duration = Duration::from_secs(10);

/// A shim that answers on its sockets until it is stopped.
pub(crate) struct RunningShim {
    pub(crate) address: SocketAddr,
    pub(crate) publisher: Publisher,
    stop: CancellationToken,
    task: JoinHandle<anyhow::Result<()>>,
}

impl RunningShim {
    /// A shim on a free port with one source and these upstreams.
    pub(crate) async fn start(upstreams: &[SocketAddr]) -> Self {
        let bound = bind(&settings(upstreams)).await.expect("bound");
        Self::serve(bound)
    }

    /// As [`RunningShim::start`], with other settings.
    pub(crate) async fn start_with(settings: ShimSettings) -> Self {
        Self::serve(bind(&settings).await.expect("bound"))
    }

    pub(crate) fn serve(bound: BoundShim) -> Self {
        let (address, publisher, stop) =
            (bound.local_addrs()[0], bound.publisher(), CancellationToken::new());
        let vip = Vip { v4: Ipv4Addr::new(198, 18, 0, 1), v6: None };
        publisher.publish(Zone::new([(
            "artifactory.internal.company.net".parse().expect("a source"),
            vip,
        )]));
        let task = tokio::spawn(bound.serve(stop.clone()));
        Self { address, publisher, stop, task }
    }

    /// One query over UDP.
    pub(crate) async fn ask(&self, query: &[u8]) -> Vec<u8> {
        DnsClient(self.address).ask(query).await
    }

    /// One query over TCP.
    pub(crate) async fn ask_tcp(&self, query: &[u8]) -> Vec<u8> {
        DnsClient(self.address).ask_tcp(query).await
    }

    /// Stops the shim, which must succeed within [`TEST_TIMEOUT`].
    pub(crate) async fn stop(self) {
        self.stop.cancel();
        timeout(TEST_TIMEOUT, self.task)
            .await
            .expect("it stops")
            .expect("no panic")
            .expect("no error");
    }
}

/// A client that queries one address.
pub(crate) struct DnsClient(pub(crate) SocketAddr);

impl DnsClient {
    /// One query over UDP.
    pub(crate) async fn ask(&self, query: &[u8]) -> Vec<u8> {
        let socket = UdpSocket::bind("127.0.0.1:0").await.expect("a port");
        socket.connect(self.0).await.expect("connected");
        socket.send(query).await.expect("sent");
        receive(&socket).await
    }

    /// One query over TCP.
    pub(crate) async fn ask_tcp(&self, query: &[u8]) -> Vec<u8> {
        let mut stream = TcpStream::connect(self.0).await.expect("connected");
        stream.write_all(&framed(query)).await.expect("sent");
        read(&mut stream).await
    }
}

pub(crate) fn settings(upstreams: &[SocketAddr]) -> ShimSettings {
    let upstreams = upstreams.iter().map(|server| Upstream::Server(*server)).collect();
    let listen = vec![SocketAddr::from(([127, 0, 0, 1], 0))];
    ShimSettings {
        listen,
        upstreams,
        clients: vec![DnsClients::Local],
        real_address_clients: vec![],
        ttl: 30,
    }
}

/// The address of an upstream for tests that forward nothing.
pub(crate) fn unused() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 9))
}

pub(crate) async fn receive(socket: &UdpSocket) -> Vec<u8> {
    let mut buffer = vec![0; 65_535];
    let len = timeout(TEST_TIMEOUT, socket.recv(&mut buffer))
        .await
        .expect("a reply in time")
        .expect("a reply");
    buffer.truncate(len);
    buffer
}

pub(crate) fn framed(message: &[u8]) -> Vec<u8> {
    [&u16::try_from(message.len()).expect("short").to_be_bytes(), message].concat()
}

pub(crate) async fn read(stream: &mut TcpStream) -> Vec<u8> {
    let mut message = vec![
        0;
        timeout(TEST_TIMEOUT, stream.read_u16())
            .await
            .expect("a reply in time")
            .expect("a length")
            .into()
    ];
    timeout(TEST_TIMEOUT, stream.read_exact(&mut message))
        .await
        .expect("a reply in time")
        .expect("a reply");
    message
}

pub(crate) fn source(kind: RecordType) -> Vec<u8> {
    bytes(&query("artifactory.internal.company.net", kind))
}
