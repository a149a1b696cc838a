//! Queries over UDP. One thread for each address reads in batches and answers the names that are
//! ours; each other query is forwarded in a task. The ports of intercepted DNS share one thread for
//! each address.
//!
//! The thread has a runtime of its own, so that a forwarded query never changes threads and nothing
//! that the agent does delays DNS.

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
    handler::{Handler, Request},
    listener::Endpoint,
    shutdown::{DRAIN_TIMEOUT, IDLE_CLOSE, LINGER_MAX},
    udp_batch::{BATCH_SIZE, Batch},
};
use crate::{
    dns::{
        forward::{Permit, QueryContext, SocketPool},
        local::{Decision, ForwardInfo, servfail},
        wire::ReplyBuffer,
    },
    net::{Noted, Transport, Unanswered},
};

/// Batches that are read before the thread handles the replies of upstreams.
const BATCHES_PER_TURN: usize = 4;
/// Batches that are read from a socket before it is closed: more than its buffer holds.
const FINAL_BATCHES: usize = 64;

/// Serves sockets until `stop` is cancelled, then lets forwarded queries end. Blocks the current
/// thread.
pub(super) fn run(
    listeners: Vec<Endpoint<std::net::UdpSocket>>,
    handler: &Arc<Handler>,
    stop: &CancellationToken,
) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("failed to start a runtime for DNS")?;
    runtime.block_on(async {
        let (tasks, sockets) = (TaskTracker::new(), Arc::<SocketPool>::default());
        sockets.reserve();
        let batch = RefCell::new(Batch::new());
        let serving = listeners.into_iter().map(|Endpoint { socket, address, slot }| {
            let (tasks, sockets, handler) =
                (tasks.clone(), Arc::clone(&sockets), Arc::clone(handler));
            let batch = &batch;
            async move {
                let socket =
                    UdpSocket::from_std(socket).context("failed to register a DNS socket")?;
                let socket = Arc::new(socket);
                let server = UdpServer { socket, address, slot, handler, tasks, sockets };
                server.serve(batch, stop).await
            }
        });
        try_join_all(serving).await?;
        tasks.close();
        // No query waits longer than the drain time; the runtime must end in any case.
        let _ = timeout(2 * DRAIN_TIMEOUT, tasks.wait()).await;
        Ok(())
    })
}

/// One socket.
struct UdpServer {
    socket: Arc<UdpSocket>,
    address: SocketAddr,
    slot: Option<u32>,
    handler: Arc<Handler>,
    /// Queries that wait for upstreams.
    tasks: TaskTracker,
    sockets: Arc<SocketPool>,
}

impl UdpServer {
    /// All sockets of the thread share the batch, which is in use only between two await points.
    async fn serve(&self, batch: &RefCell<Batch>, stop: &CancellationToken) -> anyhow::Result<()> {
        for left in self.handler.take_unanswered(self.address) {
            self.answer_left(left).await;
        }
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
        self.answer_rest(&mut batch.borrow_mut());
        Ok(())
    }

    /// Keeps answering until no more queries arrive.
    async fn linger(&self, batch: &RefCell<Batch>) -> io::Result<()> {
        let end = Instant::now() + LINGER_MAX;
        while let Ok(ready) =
            timeout_at(end.min(Instant::now() + IDLE_CLOSE).into(), self.socket.readable()).await
        {
            ready?;
            self.answer_batches(&mut batch.borrow_mut());
            tokio::task::yield_now().await;
        }
        Ok(())
    }

    /// Answers what is left in the socket, whose clients would otherwise wait for a time-out.
    fn answer_rest(&self, batch: &mut Batch) {
        for _ in 0..FINAL_BATCHES {
            let Ok(count) = batch.receive(self.socket.as_fd()) else { break };
            self.answer(batch, count);
        }
    }

    /// Answers up to [`BATCHES_PER_TURN`] batches, and returns whether the socket is empty. It is
    /// after a batch that is not full: epoll is edge-triggered, so later packets make the socket
    /// readable again. This saves the system call that would return EAGAIN.
    fn answer_batches(&self, batch: &mut Batch) -> bool {
        for _ in 0..BATCHES_PER_TURN {
            match self.socket.try_io(Interest::READABLE, || batch.receive(self.socket.as_fd())) {
                Ok(count) => {
                    self.answer(batch, count);
                    if count < BATCH_SIZE {
                        let _ = self.socket.try_io(Interest::READABLE, || {
                            Err::<(), _>(io::ErrorKind::WouldBlock.into())
                        });
                        return true;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return true,
                // An ICMP error for an earlier reply, for example. The socket stays usable.
                Err(error) => {
                    let address = self.address;
                    tracing::debug!(%address, %error, "failed to receive DNS queries")
                }
            }
        }
        false
    }

    fn answer(&self, batch: &mut Batch, count: usize) {
        let now = Instant::now();
        for index in 0..count {
            let (query, Some(client), reply) = batch.query(index) else { continue };
            let request = Request { client: client.ip(), own: self.address.ip(), received_at: now };
            match self.handler.decide(query, request, reply) {
                Decision::Drop => {}
                Decision::Reply(_) => batch.queue_reply(index),
                Decision::Forward(info) => {
                    match self.handler.forwarder().admit(client.ip(), self.slot) {
                        Ok(permit) => {
                            let forwarding = self.forwarding(self.note(query, client));
                            let run = forwarding.run(query.to_vec(), info, (client, permit));
                            self.tasks.spawn(run);
                        }
                        Err(_) => {
                            servfail(query, reply);
                            batch.queue_reply(index);
                        }
                    }
                }
            }
        }
        // If the send buffer is full, clients retry as after any lost packet.
        let sent = batch.send(self.socket.as_fd());
        self.handler.counters().stats.local_latency.record(now.elapsed(), sent as u64);
    }

    /// Keeps a query for the next agent, in case this one is killed.
    fn note(&self, query: &[u8], client: SocketAddr) -> Option<Noted> {
        self.handler.journal()?.note(query, client, self.address)
    }

    /// Answers a query that the last agent did not live to answer. It is not kept once more: one
    /// that ends each agent would end the next ones, too.
    async fn answer_left(&self, left: Unanswered) {
        let Unanswered { query, client, .. } = left;
        let (received_at, mut reply) = (Instant::now(), ReplyBuffer::new());
        let request = Request { client: client.ip(), own: self.address.ip(), received_at };
        match self.handler.decide(&query, request, &mut reply) {
            Decision::Drop => {}
            Decision::Reply(_) => drop(self.socket.send_to(reply.as_bytes(), client).await),
            Decision::Forward(info) => {
                if let Ok(permit) = self.handler.forwarder().admit(client.ip(), self.slot) {
                    self.tasks.spawn(self.forwarding(None).run(query, info, (client, permit)));
                }
            }
        }
    }

    fn forwarding(&self, noted: Option<Noted>) -> Forwarding {
        Forwarding {
            _noted: noted,
            socket: Arc::clone(&self.socket),
            slot: self.slot,
            handler: Arc::clone(&self.handler),
            sockets: Arc::clone(&self.sockets),
        }
    }
}

/// One query that waits for an upstream.
struct Forwarding {
    /// In the journal until this is answered.
    _noted: Option<Noted>,
    socket: Arc<UdpSocket>,
    slot: Option<u32>,
    handler: Arc<Handler>,
    sockets: Arc<SocketPool>,
}

impl Forwarding {
    async fn run(self, query: Vec<u8>, info: ForwardInfo, (client, permit): (SocketAddr, Permit)) {
        let context =
            QueryContext { transport: Transport::Udp, sockets: &self.sockets, slot: self.slot };
        let sent = match self.handler.forwarder().forward(&query, &info, context, permit).await {
            Ok(reply) => self.socket.send_to(&reply, client).await,
            Err(_) => {
                let mut reply = ReplyBuffer::new();
                servfail(&query, &mut reply);
                self.socket.send_to(reply.as_bytes(), client).await
            }
        };
        if let Err(error) = sent {
            self.handler.counters().unsent.increment();
            tracing::debug!(%client, %error, "failed to send a DNS reply");
        }
    }
}
