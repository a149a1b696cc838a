//! One query to one upstream: the client's bytes under an ID and a source port of our own, and the
//! reply that fits.

use std::{io, net::SocketAddr};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
};

use super::socket_pool::Sockets;
use crate::{
    dns::{
        local::Question,
        stats::Counters,
        wire::{self, HEADER, Header, flag, rcode},
    },
    net::socket_mark,
};

/// How a query travels to the upstream: as it came from the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Transport {
    Udp,
    Tcp,
}

/// A UDP reply larger than the client asked for is read nonetheless up to this size, in bytes.
const UDP_REPLY: usize = 4096;

/// A query that is being forwarded.
pub(crate) struct Exchange<'a> {
    pub(crate) query: &'a [u8],
    pub(crate) question: &'a Question,
    pub(crate) counters: &'a Counters,
    /// Those of the runtime that this runs on.
    pub(crate) sockets: &'a Sockets,
}

impl Exchange<'_> {
    /// Asks `upstream` and waits, without a limit of time, for the reply that fits. It has the
    /// client's ID again.
    pub(crate) async fn run(
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
        // One byte more than we take, so that a cut reply shows.
        let limit = usize::from(self.question.payload).max(UDP_REPLY);
        let fits = |reply: &[u8]| {
            let fits = reply.len() <= limit && fits(packet, self.question, reply);
            if !fits {
                Counters::count(&self.counters.mismatched);
            }
            fits
        };
        let reply = self.sockets.receive(&socket, limit + 1, fits).await?;
        self.sockets.give_back(socket);
        Ok(reply)
    }

    async fn over_tcp(&self, upstream: SocketAddr, packet: &[u8]) -> io::Result<Vec<u8>> {
        let mut stream = connect(upstream).await?;
        stream.set_nodelay(true)?;
        stream.write_all(&framed(packet)?).await?;
        loop {
            let len = stream.read_u16().await?;
            let mut reply = vec![0; len.into()];
            stream.read_exact(&mut reply).await?;
            if fits(packet, self.question, &reply) {
                return Ok(reply);
            }
            Counters::count(&self.counters.mismatched);
        }
    }
}

/// A connection of ours, whose first packet is not intercepted.
async fn connect(upstream: SocketAddr) -> io::Result<TcpStream> {
    let socket = if upstream.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    // Without the privilege nothing is intercepted.
    let _ = socket_mark::mark(&socket);
    socket.connect(upstream).await
}

/// Whether an upstream's `reply` answers `query`, which is as it was sent and has its question at
/// `question`: the ID, the opcode, the question, and a form that can be walked over.
pub fn fits(query: &[u8], question: &Question, reply: &[u8]) -> bool {
    let Some(header) = Header::read(reply) else { return false };
    if !header.is_response() || header.opcode() != 0 || reply[..2] != query[..2] {
        return false;
    }
    if header.counts == [0; 4] && reply.len() == HEADER {
        // What a server says that could not even read the question, or would not.
        return matches!(
            header.rcode(),
            rcode::FORMERR | rcode::SERVFAIL | rcode::NOTIMP | rcode::REFUSED
        );
    }
    let end = question.end;
    header.counts[0] == 1
        && reply.get(HEADER..end).is_some_and(|asked| same_question(asked, &query[HEADER..end]))
        && (header.flags & flag::TC != 0 || wire::is_well_formed(reply, end, &header))
}

/// Whether two questions are the same, the case of the name aside: some servers lower it, and a
/// client that cares checks it itself.
fn same_question(one: &[u8], other: &[u8]) -> bool {
    let tail = one.len().saturating_sub(4);
    one.len() == other.len()
        && one[..tail].eq_ignore_ascii_case(&other[..tail])
        && one[tail..] == other[tail..]
}

/// A message with its length in front, as TCP has it (RFC 1035 section 4.2.2).
pub(crate) fn framed(message: &[u8]) -> io::Result<Vec<u8>> {
    let len = u16::try_from(message.len()).map_err(|_| {
        io::Error::new(io::ErrorKind::InvalidData, "a DNS message has at most 65535 bytes")
    })?;
    Ok([&len.to_be_bytes(), message].concat())
}
