//! Answering over TCP (RFC 7766): several queries on one connection, each answered as soon as its
//! answer is there.

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
    sync::Semaphore,
    time::{sleep, timeout, timeout_at},
};
use tokio_util::sync::CancellationToken;

use super::server::{Asker, Core, LINGER, QUIET};
use crate::dns::{
    access::{Limits, Shares},
    forward::{Sockets, Transport, Way, framed},
    local::{self, Outcome, Question},
    stats::Counters,
    wire::Reply,
};

/// A connection on which nothing happens for this long is closed (RFC 7766 section 6.2.3 asks for a
/// few seconds).
const IDLE: Duration = Duration::from_secs(10);
/// A client that does not take its replies for this long is cut off.
const SEND: Duration = Duration::from_secs(5);
/// Queries of one connection that may wait for upstreams; reading stops meanwhile.
const PIPELINED: usize = 64;
/// After accept() failed for want of descriptors, say.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Room for connections, which listeners may share.
#[derive(Clone)]
pub(crate) struct Room {
    slots: Arc<Semaphore>,
    shares: Arc<Shares>,
}

impl Room {
    pub(crate) fn new(limits: Limits) -> Self {
        Self {
            slots: Arc::new(Semaphore::new(limits.connections)),
            shares: Shares::new(limits.connections_share),
        }
    }
}

/// A listener, its address, and its slot when it has intercepted DNS.
pub(crate) type Door = (TcpListener, SocketAddr, Option<u32>);

/// Serves one listener until `stop` is cancelled and who has connected by then is accepted; one of
/// intercepted DNS, until nobody connects any more.
pub(crate) async fn serve(
    (listener, address, slot): Door,
    room: Room,
    core: Arc<Core>,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let Room { slots, shares } = room;
    let mut end = None;
    loop {
        let accepted = match end {
            None => tokio::select! {
                biased;
                () = stop.cancelled() => {
                    end = Some(Instant::now() + if slot.is_some() { LINGER } else { Duration::ZERO });
                    continue;
                }
                accepted = listener.accept() => accepted,
            },
            Some(end) => {
                match timeout_at(end.min(Instant::now() + QUIET).into(), listener.accept()).await {
                    Ok(accepted) => accepted,
                    Err(_) => return Ok(()),
                }
            }
        };
        let (stream, client) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::debug!(%address, %error, "failed to accept a DNS connection");
                sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let asker = (client.ip(), address.ip());
        // All strangers are one client: what they hold must not keep those out that are served.
        let share = shares.take(if core.is_stranger(asker) {
            Ipv4Addr::UNSPECIFIED.into()
        } else {
            client.ip()
        });
        let (Some(share), Ok(place)) = (share, Arc::clone(&slots).try_acquire_owned()) else {
            Counters::count(&core.counters.connections_refused);
            continue;
        };
        let (connection, stop) =
            (Connection::new(stream, asker, slot, Arc::clone(&core)), stop.clone());
        core.tasks.spawn(async move {
            let _held = (place, share);
            if let Err(error) = connection.run(stop).await {
                tracing::debug!(%address, %error, "a DNS connection failed");
            }
        });
    }
}

/// One client.
struct Connection {
    stream: TcpStream,
    /// The client's address and ours.
    asker: (IpAddr, IpAddr),
    slot: Option<u32>,
    core: Arc<Core>,
    unread: BytesMut,
}

impl Connection {
    fn new(stream: TcpStream, asker: (IpAddr, IpAddr), slot: Option<u32>, core: Arc<Core>) -> Self {
        Self { stream, asker, slot, core, unread: BytesMut::new() }
    }

    /// Until the client has closed and has its replies, or nothing happens for a while, which is a
    /// short one once `stop` is cancelled.
    async fn run(mut self, stop: CancellationToken) -> io::Result<()> {
        self.stream.set_nodelay(true)?;
        let core = Arc::clone(&self.core);
        let mut reply = Reply::new();
        let mut waiting = FuturesUnordered::new();
        let (mut open, mut idle) = (true, IDLE);
        while open || !waiting.is_empty() {
            while waiting.len() < PIPELINED
                && let Some(query) = self.next_query()
            {
                let (client, own) = self.asker;
                let now = Instant::now();
                match core.decide(&query, Asker { client, own, now }, &mut reply) {
                    Outcome::Drop => return Ok(()),
                    Outcome::Reply(_) => {
                        self.send(reply.as_bytes()).await?;
                        core.counters.tally.local.add(now.elapsed(), 1);
                    }
                    Outcome::Forward(question) => {
                        waiting.push(forward(&core, query, question, (client, self.slot)))
                    }
                }
            }
            tokio::select! {
                biased;
                Some(reply) = waiting.next() => self.send(&reply).await?,
                read = self.stream.read_buf(&mut self.unread), if open && waiting.len() < PIPELINED => open = read? > 0,
                () = stop.cancelled(), if idle == IDLE => idle = QUIET,
                () = sleep(idle), if waiting.is_empty() => return Ok(()),
            }
        }
        Ok(())
    }

    /// The next whole message among what was read.
    fn next_query(&mut self) -> Option<Vec<u8>> {
        let len = usize::from(u16::from_be_bytes(*self.unread.first_chunk()?));
        let query = self.unread.get(2..2 + len)?.to_vec();
        self.unread.advance(2 + len);
        Some(query)
    }

    async fn send(&mut self, reply: &[u8]) -> io::Result<()> {
        let sent = timeout(SEND, self.stream.write_all(&framed(reply)?)).await;
        sent.unwrap_or_else(|_| {
            Err(io::Error::new(io::ErrorKind::TimedOut, "the client does not take its replies"))
        })
    }
}

/// The upstream's reply, or SERVFAIL.
async fn forward(
    core: &Core,
    query: Vec<u8>,
    question: Question,
    (client, slot): (IpAddr, Option<u32>),
) -> Vec<u8> {
    let sockets = Sockets::default();
    let way = Way { transport: Transport::Tcp, sockets: &sockets, slot };
    let forwarded = async {
        core.forwarder.forward(&query, &question, way, core.forwarder.admit(client)?).await
    };
    match forwarded.await {
        Ok(reply) => reply,
        Err(_) => {
            let mut reply = Reply::new();
            local::servfail(&query, &mut reply);
            reply.as_bytes().to_vec()
        }
    }
}
