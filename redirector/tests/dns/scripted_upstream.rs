//! An upstream in this process that acts as a test scripts it, to inject failures.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream, UdpSocket},
    task::JoinSet,
    time::{sleep, timeout},
};

use crate::running_shim::TEST_TIMEOUT;

/// One step of the upstream in response to a query.
#[derive(Clone, Debug)]
pub(crate) enum Action {
    /// Sends these bytes.
    Send(Vec<u8>),
    /// Sends these bytes from another socket, over UDP.
    Spoof(Vec<u8>),
    /// Waits.
    Wait(Duration),
}

/// A query that arrived.
#[derive(Clone, Debug)]
pub(crate) struct ReceivedQuery {
    pub(crate) query: Vec<u8>,
    pub(crate) from: SocketAddr,
    pub(crate) tcp: bool,
}

/// The upstream. It stops when dropped.
pub(crate) struct ScriptedUpstream {
    pub(crate) address: SocketAddr,
    log: Arc<Mutex<Vec<ReceivedQuery>>>,
    _tasks: JoinSet<()>,
}

/// The question that a shim sends until its upstream answers. It is refused, which is an answer,
/// and not logged.
const ROOT_NS: [u8; 5] = [0, 0, 2, 0, 1];

/// Start of the name in a shim's loop probe.
const LOOP_PROBE: &[u8] = b"redirector-loop-";

type Handler = Arc<dyn Fn(&ReceivedQuery) -> Vec<Action> + Send + Sync>;

impl ScriptedUpstream {
    /// Listens on a free port of 127.0.0.1, over UDP and TCP.
    pub(crate) async fn start(
        handler: impl Fn(&ReceivedQuery) -> Vec<Action> + Send + Sync + 'static,
    ) -> Self {
        let (udp, tcp) = loop {
            let udp = UdpSocket::bind("127.0.0.1:0").await.expect("a UDP port");
            if let Ok(tcp) = TcpListener::bind(udp.local_addr().expect("an address")).await {
                break (udp, tcp);
            }
        };
        Self::serve(udp, tcp, Arc::new(handler))
    }

    fn serve(udp: UdpSocket, tcp: TcpListener, handler: Handler) -> Self {
        let (address, log) = (udp.local_addr().expect("an address"), Arc::default());
        let mut tasks = JoinSet::new();
        tasks.spawn(serve_udp(Arc::new(udp), Arc::clone(&handler), Arc::clone(&log)));
        tasks.spawn(serve_tcp(tcp, handler, Arc::clone(&log)));
        Self { address, log, _tasks: tasks }
    }

    /// Listens on this address.
    pub(crate) async fn at(
        address: SocketAddr,
        handler: impl Fn(&ReceivedQuery) -> Vec<Action> + Send + Sync + 'static,
    ) -> Self {
        let (udp, tcp) = (
            UdpSocket::bind(address).await.expect("free"),
            TcpListener::bind(address).await.expect("free"),
        );
        Self::serve(udp, tcp, Arc::new(handler))
    }

    /// Waits until so many queries have arrived.
    pub(crate) async fn wait_for(&self, count: usize) {
        let arrived = async {
            while self.queries().len() < count {
                sleep(Duration::from_millis(5)).await;
            }
        };
        timeout(TEST_TIMEOUT, arrived).await.expect("the queries arrive");
    }

    /// The queries so far.
    pub(crate) fn queries(&self) -> Vec<ReceivedQuery> {
        self.log.lock().expect("not poisoned").clone()
    }
}

async fn serve_udp(socket: Arc<UdpSocket>, handler: Handler, log: Arc<Mutex<Vec<ReceivedQuery>>>) {
    let mut tasks = JoinSet::new();
    let mut buffer = vec![0; 65_535];
    while let Ok((len, from)) = socket.recv_from(&mut buffer).await {
        let received = ReceivedQuery { query: buffer[..len].to_vec(), from, tcp: false };
        if received.query[12..] == ROOT_NS || received.query[13..].starts_with(LOOP_PROBE) {
            drop(socket.send_to(&[&received.query[..2], &[0x80, 5], &[0; 8]].concat(), from).await);
            continue;
        }
        log.lock().expect("not poisoned").push(received.clone());
        let (socket, actions) = (Arc::clone(&socket), handler(&received));
        tasks.spawn(async move {
            for action in actions {
                match action {
                    Action::Wait(time) => sleep(time).await,
                    Action::Send(bytes) => drop(socket.send_to(&bytes, from).await),
                    Action::Spoof(bytes) => {
                        let other = UdpSocket::bind("127.0.0.1:0").await.expect("a UDP port");
                        drop(other.send_to(&bytes, from).await);
                    }
                }
            }
        });
    }
}

async fn serve_tcp(listener: TcpListener, handler: Handler, log: Arc<Mutex<Vec<ReceivedQuery>>>) {
    let mut tasks = JoinSet::new();
    while let Ok((stream, from)) = listener.accept().await {
        tasks.spawn(serve_stream(stream, from, Arc::clone(&handler), Arc::clone(&log)));
    }
}

async fn serve_stream(
    mut stream: TcpStream,
    from: SocketAddr,
    handler: Handler,
    log: Arc<Mutex<Vec<ReceivedQuery>>>,
) {
    while let Ok(len) = stream.read_u16().await {
        let mut query = vec![0; len.into()];
        if stream.read_exact(&mut query).await.is_err() {
            return;
        }
        let received = ReceivedQuery { query, from, tcp: true };
        log.lock().expect("not poisoned").push(received.clone());
        for action in handler(&received) {
            match action {
                Action::Wait(time) => sleep(time).await,
                Action::Send(bytes) | Action::Spoof(bytes) => {
                    let len = u16::try_from(bytes.len()).expect("a DNS message");
                    drop(stream.write_all(&[&len.to_be_bytes(), &bytes[..]].concat()).await);
                }
            }
        }
    }
}
