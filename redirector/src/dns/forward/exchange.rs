//! One query to one upstream: sends the client's bytes with an ID and a source port of our own, and
//! receives the reply that matches.

use std::{io, net::SocketAddr};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
};

use super::socket_pool::SocketPool;
use crate::{
    dns::{
        local::ForwardInfo,
        stats::Counters,
        wire::{HEADER_LEN, Header, length_prefixed},
    },
    net::{Transport, socket_mark},
};

/// UDP replies up to this size are read even if the client accepts less, in bytes.
const MIN_UDP_LIMIT: usize = 4096;

/// A query that is being forwarded.
pub(super) struct Exchange<'a> {
    pub(super) query: &'a [u8],
    pub(super) info: &'a ForwardInfo,
    pub(super) counters: &'a Counters,
    /// The sockets of the current runtime.
    pub(super) sockets: &'a SocketPool,
}

impl Exchange<'_> {
    /// Sends the query to `upstream` and waits, without a time-out, for the reply that matches.
    /// Returns it with the client's ID.
    pub(super) async fn run(
        &self,
        upstream: SocketAddr,
        transport: Transport,
    ) -> io::Result<Vec<u8>> {
        let mut packet = self.query.to_vec();
        let id: [u8; 2] = rand::random();
        packet[..2].copy_from_slice(&id);
        let mut reply = match transport {
            Transport::Udp => self.over_udp(upstream, &packet).await?,
            Transport::Tcp => self.over_tcp(upstream, &packet).await?,
        };
        reply[..2].copy_from_slice(&self.query[..2]);
        Ok(reply)
    }

    async fn over_udp(&self, upstream: SocketAddr, packet: &[u8]) -> io::Result<Vec<u8>> {
        let socket = self.sockets.connect(upstream)?;
        socket.send(packet)?;
        let limit = usize::from(self.info.udp_payload).max(MIN_UDP_LIMIT);
        let matches = |reply: &[u8]| {
            let matches = reply.len() <= limit && reply_matches(packet, self.info, reply);
            if !matches {
                self.counters.mismatched.increment();
            }
            matches
        };
        // One byte more than the limit, so that a truncated reply is detected.
        let reply = self.sockets.receive(&socket, limit + 1, matches).await?;
        self.sockets.release(socket);
        Ok(reply)
    }

    async fn over_tcp(&self, upstream: SocketAddr, packet: &[u8]) -> io::Result<Vec<u8>> {
        let mut stream = connect_tcp(upstream).await?;
        stream.set_nodelay(true)?;
        stream.write_all(&length_prefixed(packet)?).await?;
        loop {
            let len = stream.read_u16().await?;
            let mut reply = vec![0; len.into()];
            stream.read_exact(&mut reply).await?;
            if reply_matches(packet, self.info, &reply) {
                return Ok(reply);
            }
            self.counters.mismatched.increment();
        }
    }
}

async fn connect_tcp(upstream: SocketAddr) -> io::Result<TcpStream> {
    let socket = if upstream.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    socket_mark::mark_if_permitted(&socket);
    socket.connect(upstream).await
}

/// Whether an upstream's `reply` answers `query` as it was sent: the same ID and opcode, and the
/// same question if it has one. Its records are the client's concern: many clients accept counts
/// that are too high, for instance.
pub fn reply_matches(query: &[u8], info: &ForwardInfo, reply: &[u8]) -> bool {
    let Some(header) = Header::parse(reply) else { return false };
    if !header.is_response() || header.opcode() != 0 || reply[..2] != query[..2] {
        return false;
    }
    let question = HEADER_LEN..info.question_end;
    match header.counts[0] {
        // Some servers that refuse or cannot parse a query leave it out.
        0 => true,
        1 => {
            let other = reply.get(question.clone());
            other.is_some_and(|other| same_question(other, &query[question]))
        }
        _ => false,
    }
}

/// Whether two questions are the same, ignoring the case of the name: some servers reply in lower
/// case, and a client that depends on the case checks it itself.
fn same_question(one: &[u8], other: &[u8]) -> bool {
    let name_end = one.len().saturating_sub(4);
    one.len() == other.len()
        && one[..name_end].eq_ignore_ascii_case(&other[..name_end])
        && one[name_end..] == other[name_end..]
}
