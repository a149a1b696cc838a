//! Queries over TCP (RFC 7766). A connection may have several at a time; each is answered as soon
//! as its answer is known, in any order.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::{Buf, BytesMut};
use futures_util::stream::{FuturesUnordered, StreamExt};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    time::{sleep, timeout, timeout_at},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    handler::{Handler, Request},
    listener::Endpoint,
    shutdown::{IDLE_CLOSE, LINGER_MAX},
};
use crate::{
    dns::{
        access::ResourceLimits,
        forward::{QueryContext, SocketPool},
        local::{Decision, ForwardInfo, servfail},
        wire::{ReplyBuffer, length_prefixed},
    },
    net::{ClientShare, ClientShares, Transport},
};

/// An idle connection is closed after this time (RFC 7766 section 6.2.3 asks for a few seconds).
const IDLE_TIMEOUT: Duration = Duration::from_secs(10);
/// Longest time for a client to accept a reply.
const SEND_TIMEOUT: Duration = Duration::from_secs(5);
/// The most queries of one connection that wait for upstreams; at the limit, reading stops.
const MAX_PIPELINED: usize = 64;
/// The most octets of them, but for the last one: queries of clients have a hundred or two.
const MAX_PIPELINED_OCTETS: usize = 16 << 10;
/// Pause after a failed accept(), such as for lack of file descriptors.
const ACCEPT_RETRY: Duration = Duration::from_millis(50);

/// The limit of connections that listeners share.
#[derive(Clone)]
pub(super) struct ConnectionLimit(Arc<ClientShares>);

impl ConnectionLimit {
    pub(super) fn new(limits: ResourceLimits) -> Self {
        Self(ClientShares::new(limits.connections))
    }

    /// All denied clients count as one, so that they cannot keep out the others.
    fn try_acquire(&self, client: IpAddr, is_denied: bool) -> Option<ClientShare> {
        let client = if is_denied { Ipv4Addr::UNSPECIFIED.into() } else { client };
        self.0.try_acquire(client).ok()
    }
}

/// What the listeners of a shim share.
pub(super) struct TcpServer {
    pub(super) limit: ConnectionLimit,
    pub(super) handler: Arc<Handler>,
    pub(super) connections: TaskTracker,
    pub(super) stop: CancellationToken,
}

impl TcpServer {
    /// Serves one listener until `stop` is cancelled and every connection made by then is accepted.
    /// A listener for intercepted DNS then lingers until no client connects any more.
    pub(super) async fn serve(self, listener: Endpoint<TcpListener>) -> anyhow::Result<()> {
        let Endpoint { socket, address, slot } = listener;
        loop {
            let accepted = tokio::select! {
                biased;
                () = self.stop.cancelled() => break,
                accepted = socket.accept() => accepted,
            };
            self.on_accepted(accepted, address, slot).await;
        }
        let end = Instant::now() + if slot.is_some() { LINGER_MAX } else { Duration::ZERO };
        loop {
            let close_at = end.min(Instant::now() + IDLE_CLOSE);
            match timeout_at(close_at.into(), socket.accept()).await {
                Ok(accepted) => self.on_accepted(accepted, address, slot).await,
                Err(_) => return Ok(()),
            }
        }
    }

    async fn on_accepted(
        &self,
        accepted: io::Result<(TcpStream, SocketAddr)>,
        address: SocketAddr,
        slot: Option<u32>,
    ) {
        let (stream, client) = match accepted {
            Ok((stream, client)) => (stream, client.ip()),
            Err(error) => {
                tracing::debug!(%address, %error, "failed to accept a DNS connection");
                return sleep(ACCEPT_RETRY).await;
            }
        };
        let is_denied = self.handler.is_denied(client, address.ip());
        let Some(permit) = self.limit.try_acquire(client, is_denied) else {
            self.handler.counters().connections_refused.increment();
            return;
        };
        let endpoint = Endpoint { socket: stream, address, slot };
        let connection = Connection::new(endpoint, client, &self.handler);
        let stop = self.stop.clone();
        self.connections.spawn(async move {
            let _permit = permit;
            if let Err(error) = connection.run(stop).await {
                tracing::debug!(%address, %error, "a DNS connection failed");
            }
        });
    }
}

/// A connection with one client.
struct Connection {
    stream: TcpStream,
    client: IpAddr,
    own: IpAddr,
    slot: Option<u32>,
    handler: Arc<Handler>,
    unread: BytesMut,
}

impl Connection {
    fn new(endpoint: Endpoint<TcpStream>, client: IpAddr, handler: &Arc<Handler>) -> Self {
        let Endpoint { socket: stream, address, slot } = endpoint;
        let (handler, unread) = (Arc::clone(handler), BytesMut::new());
        Self { stream, client, own: address.ip(), slot, handler, unread }
    }

    /// Runs until the client has closed the connection and has its replies, or until the connection
    /// is idle. After `stop` is cancelled, the idle time is [`IDLE_CLOSE`].
    async fn run(mut self, stop: CancellationToken) -> io::Result<()> {
        self.stream.set_nodelay(true)?;
        let handler = Arc::clone(&self.handler);
        let mut reply = ReplyBuffer::new();
        let mut waiting = FuturesUnordered::new();
        let (mut open, mut idle, mut octets) = (true, IDLE_TIMEOUT, 0);
        while open || !waiting.is_empty() {
            while waiting.len() < MAX_PIPELINED
                && octets < MAX_PIPELINED_OCTETS
                && let Some(query) = self.next_query()
            {
                let received_at = Instant::now();
                let request = Request { client: self.client, own: self.own, received_at };
                match handler.decide(&query, request, &mut reply) {
                    Decision::Drop => return Ok(()),
                    Decision::Reply(_) => {
                        self.send(reply.as_bytes()).await?;
                        handler.counters().stats.local_latency.record(received_at.elapsed(), 1);
                    }
                    Decision::Forward(info) => {
                        octets += query.len();
                        waiting.push(forward(&handler, query, info, (self.client, self.slot)));
                    }
                }
            }
            let may_read = open && waiting.len() < MAX_PIPELINED && octets < MAX_PIPELINED_OCTETS;
            tokio::select! {
                biased;
                Some((reply, length)) = waiting.next() => {
                    octets -= length;
                    self.send(&reply).await?;
                }
                read = self.stream.read_buf(&mut self.unread), if may_read => open = read? > 0,
                () = stop.cancelled(), if idle == IDLE_TIMEOUT => idle = IDLE_CLOSE,
                () = sleep(idle), if waiting.is_empty() => return Ok(()),
            }
        }
        Ok(())
    }

    /// The next complete message that was read.
    fn next_query(&mut self) -> Option<Vec<u8>> {
        let len = usize::from(u16::from_be_bytes(*self.unread.first_chunk()?));
        let query = self.unread.get(2..2 + len)?.to_vec();
        self.unread.advance(2 + len);
        Some(query)
    }

    async fn send(&mut self, reply: &[u8]) -> io::Result<()> {
        let message = length_prefixed(reply)?;
        timeout(SEND_TIMEOUT, self.stream.write_all(&message)).await.unwrap_or_else(|_| {
            Err(io::Error::new(io::ErrorKind::TimedOut, "the client does not accept its replies"))
        })
    }
}

/// The upstream's reply, or SERVFAIL; and the length of the query.
async fn forward(
    handler: &Handler,
    query: Vec<u8>,
    info: ForwardInfo,
    (client, slot): (IpAddr, Option<u32>),
) -> (Vec<u8>, usize) {
    let sockets = SocketPool::default();
    let context = QueryContext { transport: Transport::Tcp, sockets: &sockets, slot };
    let forwarder = handler.forwarder();
    let result =
        async { forwarder.forward(&query, &info, context, forwarder.admit(client, slot)?).await };
    let reply = result.await.unwrap_or_else(|_| {
        let mut reply = ReplyBuffer::new();
        servfail(&query, &mut reply);
        reply.as_bytes().to_vec()
    });
    (reply, query.len())
}
