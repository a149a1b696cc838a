//! Answering over UDP: one task reads and answers what is ours; what is not goes on in a task per query.

use std::{io, net::SocketAddr, sync::Arc, time::Instant};

use tokio::net::UdpSocket;
use tokio_util::sync::CancellationToken;

use super::{
    counters::Counters,
    exchange::Transport,
    respond::{self, Outcome, Question},
    shim::{Asker, Core},
    wire::Reply,
};

/// Queries that are taken from the socket before others get the thread.
const BATCH: usize = 64;
/// The longest UDP payload there is.
const LONGEST: usize = 65_535;

/// Serves one socket until `stop` is cancelled.
pub(super) async fn serve(socket: UdpSocket, address: SocketAddr, core: Arc<Core>, stop: CancellationToken) -> anyhow::Result<()> {
    let socket = Arc::new(socket);
    let mut buffer = vec![0; LONGEST];
    let mut reply = Reply::new();
    loop {
        tokio::select! {
            biased;
            () = stop.cancelled() => return Ok(()),
            ready = socket.readable() => ready?,
        }
        let now = Instant::now();
        for _ in 0..BATCH {
            match socket.try_recv_from(&mut buffer) {
                Ok((len, client)) => {
                    let asker = Asker { client: client.ip(), own: address.ip(), now };
                    receive(&socket, &core, &buffer[..len], client, asker, &mut reply);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                // An ICMP error for an earlier reply of ours, say. The socket itself is fine.
                Err(error) => tracing::debug!(%address, %error, "failed to receive a DNS query"),
            }
        }
    }
}

fn receive(socket: &Arc<UdpSocket>, core: &Arc<Core>, query: &[u8], client: SocketAddr, asker: Asker, reply: &mut Reply) {
    match core.decide(query, asker, reply) {
        Outcome::Drop => {}
        // When the socket's send buffer is full the client asks again, as after any lost packet.
        Outcome::Reply(_) => {
            let _ = socket.try_send_to(reply.as_bytes(), client);
        }
        Outcome::Forward(question) => {
            let task = forward(Arc::clone(socket), Arc::clone(core), query.to_vec(), question, client);
            core.tasks.spawn(task);
        }
    }
}

async fn forward(socket: Arc<UdpSocket>, core: Arc<Core>, query: Vec<u8>, question: Question, client: SocketAddr) {
    let sent = match core.forwarder.forward(&query, &question, Transport::Udp, client.ip()).await {
        Ok(reply) => socket.send_to(&reply, client).await,
        Err(_) => {
            let mut reply = Reply::new();
            respond::servfail(&query, &mut reply);
            socket.send_to(reply.as_bytes(), client).await
        }
    };
    if let Err(error) = sent {
        Counters::count(&core.counters.unsent);
        tracing::debug!(%client, %error, "failed to send a DNS reply");
    }
}
