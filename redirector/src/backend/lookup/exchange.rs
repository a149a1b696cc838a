//! One query and its reply, over UDP or TCP. The sockets are marked as ours, so that their queries
//! are not redirected to the shim, which may have a virtual address for the name.

use std::{
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
};

use hickory_proto::{
    op::{Edns, Message, MessageType, OpCode, Query},
    rr::{Name, RecordType},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, UdpSocket},
};

use crate::net::socket_mark::mark_if_permitted;

/// UDP payload size that we announce with EDNS, in bytes: the DNS flag day 2020 value.
const EDNS_PAYLOAD: u16 = 1232;
/// Longest UDP reply that we read, in bytes: servers may ignore the announced size.
const MAX_UDP_REPLY: usize = 4096;

/// A query in wire form.
#[derive(Debug)]
pub(super) struct EncodedQuery {
    id: u16,
    query: Query,
    pub(super) has_edns: bool,
    bytes: Vec<u8>,
}

/// A reply with the ID of a query.
#[derive(Debug)]
pub(super) enum Reply {
    /// To this question, or an error without a question.
    Message(Box<Message>),
    /// Not readable.
    Malformed,
}

impl EncodedQuery {
    pub(super) fn new(name: &Name, kind: RecordType, has_edns: bool) -> io::Result<Self> {
        let query = Query::query(name.clone(), kind);
        let mut message = Message::new(rand::random(), MessageType::Query, OpCode::Query);
        message.metadata.recursion_desired = true;
        message.add_query(query.clone());
        if has_edns {
            let mut edns = Edns::new();
            edns.set_max_payload(EDNS_PAYLOAD);
            message.set_edns(edns);
        }
        let bytes = message.to_vec().map_err(io::Error::other)?;
        Ok(Self { id: message.metadata.id, query, has_edns, bytes })
    }

    /// The packet with this query's ID in the place of its own.
    pub(super) fn addressed(&self, packet: &[u8]) -> Vec<u8> {
        [&self.id.to_be_bytes(), packet.get(2..).unwrap_or_default()].concat()
    }

    /// The reply in `bytes`; `None` if it belongs to another query.
    pub(super) fn read(&self, bytes: &[u8]) -> Option<Reply> {
        if *bytes.first_chunk::<2>()? != self.id.to_be_bytes() {
            return None;
        }
        let Ok(message) = Message::from_vec(bytes) else { return Some(Reply::Malformed) };
        // Old servers copy no question into an error.
        let matches = match message.queries.as_slice() {
            [] => message.answers.is_empty() && message.authorities.is_empty(),
            [query] => *query == self.query,
            _ => false,
        };
        (message.metadata.message_type == MessageType::Response && matches)
            .then(|| Reply::Message(Box::new(message)))
    }
}

/// A UDP socket with a port of its own, connected to a server: the kernel drops packets from
/// elsewhere and reports ICMP errors.
pub(super) struct UdpExchange {
    socket: UdpSocket,
    buffer: Vec<u8>,
}

impl UdpExchange {
    pub(super) async fn open(server: SocketAddr) -> io::Result<Self> {
        let local: SocketAddr = match server {
            SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
            SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
        };
        let socket = UdpSocket::bind(local).await?;
        mark_if_permitted(&socket);
        socket.connect(server).await?;
        Ok(Self { socket, buffer: vec![0; MAX_UDP_REPLY] })
    }

    pub(super) async fn send(&self, query: &EncodedQuery) -> io::Result<()> {
        self.socket.send(&query.bytes).await.map(drop)
    }

    /// Waits for a reply to one of the queries sent. Returns it with the query's number.
    pub(super) async fn receive(&mut self, sent: &[EncodedQuery]) -> io::Result<(usize, Reply)> {
        loop {
            let length = self.socket.recv(&mut self.buffer).await?;
            let reply = &self.buffer[..length];
            let read = |(n, query): (usize, &EncodedQuery)| Some((n, query.read(reply)?));
            if let Some(found) = sent.iter().enumerate().find_map(read) {
                return Ok(found);
            }
        }
    }
}

/// Sends a query over TCP and waits, without a time-out, for its reply.
pub(super) async fn over_tcp(server: SocketAddr, query: &EncodedQuery) -> io::Result<Reply> {
    let socket = if server.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    mark_if_permitted(&socket);
    let mut stream = socket.connect(server).await?;
    stream.set_nodelay(true)?;
    let length = u16::try_from(query.bytes.len()).map_err(io::Error::other)?;
    stream.write_all(&[&length.to_be_bytes(), &query.bytes[..]].concat()).await?;
    loop {
        let mut reply = vec![0; stream.read_u16().await?.into()];
        stream.read_exact(&mut reply).await?;
        if let Some(found) = query.read(&reply) {
            return Ok(found);
        }
    }
}
