//! Answering over UDP: one thread for each address reads and answers in batches what is ours; what is not goes on in a task per query.
//!
//! The thread has a runtime of its own, so that a query that is forwarded never changes threads, and nothing that the agent does holds DNS up.

use std::{io, net::SocketAddr, os::fd::AsFd, sync::Arc, time::Instant};

use anyhow::Context as _;
use tokio::{io::Interest, net::UdpSocket};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    batch::Batch,
    counters::Counters,
    exchange::Transport,
    forward::Place,
    respond::{self, Outcome, Question},
    shim::{Asker, Core, DRAIN},
    sockets::Sockets,
    wire::Reply,
};

/// Batches that are taken from the socket before replies of upstreams get the thread.
const BATCHES: usize = 4;

/// Serves one socket until `stop` is cancelled, then lets queries under way end. Takes the thread it is called on.
pub(super) fn run(socket: std::net::UdpSocket, address: SocketAddr, core: &Arc<Core>, stop: &CancellationToken) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("failed to start a runtime for DNS")?;
    runtime.block_on(async {
        let socket = Arc::new(UdpSocket::from_std(socket).context("failed to register a DNS socket")?);
        let mut server = Server { socket, address, core: Arc::clone(core), tasks: TaskTracker::new(), sockets: Arc::default() };
        server.serve(stop).await?;
        server.tasks.close();
        if tokio::time::timeout(DRAIN, server.tasks.wait()).await.is_err() {
            tracing::debug!(%address, left = server.tasks.len(), "queries were still waiting for an upstream when the DNS shim stopped");
        }
        Ok(())
    })
}

struct Server {
    socket: Arc<UdpSocket>,
    address: SocketAddr,
    core: Arc<Core>,
    /// Queries that wait for upstreams, and what they ask with.
    tasks: TaskTracker,
    sockets: Arc<Sockets>,
}

impl Server {
    async fn serve(&mut self, stop: &CancellationToken) -> anyhow::Result<()> {
        let mut batch = Batch::new();
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => return Ok(()),
                ready = self.socket.readable() => ready?,
            }
            for _ in 0..BATCHES {
                match self.socket.try_io(Interest::READABLE, || batch.receive(self.socket.as_fd())) {
                    Ok(number) => self.answer(&mut batch, number),
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                    // An ICMP error for an earlier reply of ours, say. The socket itself is fine.
                    Err(error) => tracing::debug!(address = %self.address, %error, "failed to receive DNS queries"),
                }
            }
            tokio::task::yield_now().await;
        }
    }

    fn answer(&self, batch: &mut Batch, number: usize) {
        let now = Instant::now();
        for at in 0..number {
            let (query, Some(client), reply) = batch.query(at) else { continue };
            match self.core.decide(query, Asker { client: client.ip(), own: self.address.ip(), now }, reply) {
                Outcome::Drop => {}
                Outcome::Reply(_) => batch.reply(at),
                Outcome::Forward(question) => match self.core.forwarder.admit(client.ip()) {
                    Ok(place) => self.forward(query.to_vec(), question, (client, place)),
                    Err(_) => {
                        respond::servfail(query, reply);
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
        let forwarding = Forwarding { socket: Arc::clone(&self.socket), core: Arc::clone(&self.core), sockets: Arc::clone(&self.sockets) };
        self.tasks.spawn(forwarding.run(query, question, from));
    }
}

/// One query on its way.
struct Forwarding {
    socket: Arc<UdpSocket>,
    core: Arc<Core>,
    sockets: Arc<Sockets>,
}

impl Forwarding {
    async fn run(self, query: Vec<u8>, question: Question, (client, place): (SocketAddr, Place)) {
        let forwarded = self.core.forwarder.forward(&query, &question, (Transport::Udp, &self.sockets), place);
        let sent = match forwarded.await {
            Ok(reply) => self.socket.send_to(&reply, client).await,
            Err(_) => {
                let mut reply = Reply::new();
                respond::servfail(&query, &mut reply);
                self.socket.send_to(reply.as_bytes(), client).await
            }
        };
        if let Err(error) = sent {
            Counters::count(&self.core.counters.unsent);
            tracing::debug!(%client, %error, "failed to send a DNS reply");
        }
    }
}
