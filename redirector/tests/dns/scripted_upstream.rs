//! An upstream in this process that does what a test tells it: for failure injection only.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream, UdpSocket},
    task::JoinSet,
};

/// One thing that the upstream does about a query.
#[derive(Clone, Debug)]
pub(crate) enum Do {
    /// Sends these bytes.
    Send(Vec<u8>),
    /// Sends these bytes from another socket, over UDP.
    Spoof(Vec<u8>),
    /// Waits.
    Wait(Duration),
}

/// What was asked.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    pub(crate) query: Vec<u8>,
    pub(crate) from: SocketAddr,
    pub(crate) tcp: bool,
}

/// The upstream. It ends when dropped.
pub(crate) struct Mock {
    pub(crate) address: SocketAddr,
    log: Arc<Mutex<Vec<Asked>>>,
    _tasks: JoinSet<()>,
}

/// The question for the root's servers, by which a shim sees whether its upstream is there. It is
/// refused, which says so, and not told.
const FIRST_CONTACT: [u8; 5] = [0, 0, 2, 0, 1];

/// What the question begins with, by which a shim sees whether its upstream asks it in turn.
const LOOP_PROBE: &[u8] = b"redirector-loop-";

type Handler = Arc<dyn Fn(&Asked) -> Vec<Do> + Send + Sync>;

impl Mock {
    /// Listens on a free port of 127.0.0.1, over UDP and TCP.
    pub(crate) async fn start(handler: impl Fn(&Asked) -> Vec<Do> + Send + Sync + 'static) -> Self {
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

    /// Listens there.
    pub(crate) async fn at(
        address: SocketAddr,
        handler: impl Fn(&Asked) -> Vec<Do> + Send + Sync + 'static,
    ) -> Self {
        let (udp, tcp) = (
            UdpSocket::bind(address).await.expect("free"),
            TcpListener::bind(address).await.expect("free"),
        );
        Self::serve(udp, tcp, Arc::new(handler))
    }

    /// What was asked so far.
    pub(crate) fn asked(&self) -> Vec<Asked> {
        self.log.lock().expect("not poisoned").clone()
    }
}

async fn serve_udp(socket: Arc<UdpSocket>, handler: Handler, log: Arc<Mutex<Vec<Asked>>>) {
    let mut tasks = JoinSet::new();
    let mut buffer = vec![0; 65_535];
    while let Ok((len, from)) = socket.recv_from(&mut buffer).await {
        let asked = Asked { query: buffer[..len].to_vec(), from, tcp: false };
        if asked.query[12..] == FIRST_CONTACT || asked.query[13..].starts_with(LOOP_PROBE) {
            drop(socket.send_to(&[&asked.query[..2], &[0x80, 5], &[0; 8]].concat(), from).await);
            continue;
        }
        log.lock().expect("not poisoned").push(asked.clone());
        let (socket, actions) = (Arc::clone(&socket), handler(&asked));
        tasks.spawn(async move {
            for action in actions {
                match action {
                    Do::Wait(time) => tokio::time::sleep(time).await,
                    Do::Send(bytes) => drop(socket.send_to(&bytes, from).await),
                    Do::Spoof(bytes) => {
                        let other = UdpSocket::bind("127.0.0.1:0").await.expect("a UDP port");
                        drop(other.send_to(&bytes, from).await);
                    }
                }
            }
        });
    }
}

async fn serve_tcp(listener: TcpListener, handler: Handler, log: Arc<Mutex<Vec<Asked>>>) {
    let mut tasks = JoinSet::new();
    while let Ok((stream, from)) = listener.accept().await {
        tasks.spawn(serve_stream(stream, from, Arc::clone(&handler), Arc::clone(&log)));
    }
}

async fn serve_stream(
    mut stream: TcpStream,
    from: SocketAddr,
    handler: Handler,
    log: Arc<Mutex<Vec<Asked>>>,
) {
    while let Ok(len) = stream.read_u16().await {
        let mut query = vec![0; len.into()];
        if stream.read_exact(&mut query).await.is_err() {
            return;
        }
        let asked = Asked { query, from, tcp: true };
        log.lock().expect("not poisoned").push(asked.clone());
        for action in handler(&asked) {
            match action {
                Do::Wait(time) => tokio::time::sleep(time).await,
                Do::Send(bytes) | Do::Spoof(bytes) => {
                    let len = u16::try_from(bytes.len()).expect("a DNS message");
                    drop(stream.write_all(&[&len.to_be_bytes(), &bytes[..]].concat()).await);
                }
            }
        }
    }
}
