//! Answering over UDP: one thread for each address reads and answers in batches what is ours; what
//! is not goes on in a task per query. The ports of an address that have intercepted DNS share one
//! thread more.
//!
//! The thread has a runtime of its own, so that a query that is forwarded never changes threads,
//! and nothing that the agent does holds DNS up.

use std::{cell::RefCell, io, net::SocketAddr, os::fd::AsFd, sync::Arc, time::Instant};

use anyhow::Context as _;
use futures_util::future::try_join_all;
use tokio::{
    io::Interest,
    net::UdpSocket,
    time::{timeout, timeout_at},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    server::{Asker, Core, DRAIN, LINGER, QUIET},
    udp_batch::{Batch, MOST},
};
use crate::dns::{
    forward::{Place, Sockets, Transport, Way},
    local::{self, Outcome, Question},
    stats::Counters,
    wire::Reply,
};

/// Batches that are taken from the socket before replies of upstreams get the thread.
const BATCHES: usize = 4;
/// Batches that are taken from the socket when it is about to be closed: as many as it has room
/// for.
const LAST_BATCHES: usize = 64;

/// A socket, its address, and its slot when it has intercepted DNS.
pub(crate) type Door = (std::net::UdpSocket, SocketAddr, Option<u32>);

/// Serves sockets until `stop` is cancelled, then lets queries under way end. Takes the thread it
/// is called on.
pub(crate) fn run(
    doors: Vec<Door>,
    core: &Arc<Core>,
    stop: &CancellationToken,
) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("failed to start a runtime for DNS")?;
    runtime.block_on(async {
        let (tasks, sockets, batch) =
            (TaskTracker::new(), Arc::<Sockets>::default(), RefCell::new(Batch::new()));
        let serving = doors.into_iter().map(|(socket, address, slot)| {
            let (tasks, sockets, core, batch) =
                (tasks.clone(), Arc::clone(&sockets), Arc::clone(core), &batch);
            async move {
                let socket = Arc::new(
                    UdpSocket::from_std(socket).context("failed to register a DNS socket")?,
                );
                Server { socket, address, slot, core, tasks, sockets }.serve(batch, stop).await
            }
        });
        try_join_all(serving).await?;
        tasks.close();
        // None waits for longer; this is for the runtime's sake, which must end.
        let _ = timeout(2 * DRAIN, tasks.wait()).await;
        Ok(())
    })
}

struct Server {
    socket: Arc<UdpSocket>,
    address: SocketAddr,
    slot: Option<u32>,
    core: Arc<Core>,
    /// Queries that wait for upstreams, and what they ask with.
    tasks: TaskTracker,
    sockets: Arc<Sockets>,
}

impl Server {
    /// The batch is every socket's of the thread: it is full only between two points where others
    /// run.
    async fn serve(&self, batch: &RefCell<Batch>, stop: &CancellationToken) -> anyhow::Result<()> {
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                ready = self.socket.readable() => ready?,
            }
            if !self.answer_batches(&mut batch.borrow_mut()) {
                tokio::task::yield_now().await;
            }
        }
        if self.slot.is_some() {
            self.linger(batch).await?;
        }
        self.answer_the_last(&mut batch.borrow_mut());
        Ok(())
    }

    /// Goes on until nobody asks any more.
    async fn linger(&self, batch: &RefCell<Batch>) -> io::Result<()> {
        let end = Instant::now() + LINGER;
        while let Ok(ready) =
            timeout_at(end.min(Instant::now() + QUIET).into(), self.socket.readable()).await
        {
            ready?;
            self.answer_batches(&mut batch.borrow_mut());
            tokio::task::yield_now().await;
        }
        Ok(())
    }

    /// Who has asked before the end would wait for a time-out.
    fn answer_the_last(&self, batch: &mut Batch) {
        for _ in 0..LAST_BATCHES {
            let Ok(number) = batch.receive(self.socket.as_fd()) else { break };
            self.answer(batch, number);
        }
    }

    /// Whether the socket is empty now. One that gave less than it was asked for is: what comes
    /// later makes it readable anew, as epoll tells edges. Asking it once more, or the runtime for
    /// others' turn, would be a system call each.
    fn answer_batches(&self, batch: &mut Batch) -> bool {
        for _ in 0..BATCHES {
            match self.socket.try_io(Interest::READABLE, || batch.receive(self.socket.as_fd())) {
                Ok(number) => {
                    self.answer(batch, number);
                    if number < MOST {
                        let _ = self.socket.try_io(Interest::READABLE, || {
                            Err::<(), _>(io::ErrorKind::WouldBlock.into())
                        });
                        return true;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return true,
                // An ICMP error for an earlier reply of ours, say. The socket itself is fine.
                Err(error) => {
                    tracing::debug!(address = %self.address, %error, "failed to receive DNS \
                        queries")
                }
            }
        }
        false
    }

    fn answer(&self, batch: &mut Batch, number: usize) {
        let now = Instant::now();
        for at in 0..number {
            let (query, Some(client), reply) = batch.query(at) else { continue };
            match self.core.decide(
                query,
                Asker { client: client.ip(), own: self.address.ip(), now },
                reply,
            ) {
                Outcome::Drop => {}
                Outcome::Reply(_) => batch.reply(at),
                Outcome::Forward(question) => match self.core.forwarder.admit(client.ip()) {
                    Ok(place) => self.forward(query.to_vec(), question, (client, place)),
                    Err(_) => {
                        local::servfail(query, reply);
                        batch.reply(at);
                    }
                },
            }
        }
        // When the socket's send buffer is full the clients ask again, as after any lost packet.
        let sent = batch.send(self.socket.as_fd());
        self.core.counters.tally.local.add(now.elapsed(), sent as u64);
    }

    fn forward(&self, query: Vec<u8>, question: Question, from: (SocketAddr, Place)) {
        let (socket, core, sockets) =
            (Arc::clone(&self.socket), Arc::clone(&self.core), Arc::clone(&self.sockets));
        let forwarding = Forwarding { socket, slot: self.slot, core, sockets };
        self.tasks.spawn(forwarding.run(query, question, from));
    }
}

/// One query on its way.
struct Forwarding {
    socket: Arc<UdpSocket>,
    slot: Option<u32>,
    core: Arc<Core>,
    sockets: Arc<Sockets>,
}

impl Forwarding {
    async fn run(self, query: Vec<u8>, question: Question, (client, place): (SocketAddr, Place)) {
        let way = Way { transport: Transport::Udp, sockets: &self.sockets, slot: self.slot };
        let forwarded = self.core.forwarder.forward(&query, &question, way, place);
        let sent = match forwarded.await {
            Ok(reply) => self.socket.send_to(&reply, client).await,
            Err(_) => {
                let mut reply = Reply::new();
                local::servfail(&query, &mut reply);
                self.socket.send_to(reply.as_bytes(), client).await
            }
        };
        if let Err(error) = sent {
            Counters::count(&self.core.counters.unsent);
            tracing::debug!(%client, %error, "failed to send a DNS reply");
        }
    }
}
