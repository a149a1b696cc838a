//! A blocking rtnetlink socket for requests that the kernel answers at once: no task and no
//! channel, a few microseconds each.

use std::io;

use rtnetlink::{
    packet_core::{
        NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload,
    },
    packet_route::RouteNetlinkMessage,
    sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE},
};

/// A datagram of the kernel: a part of a list has at most 32 KiB.
const DATAGRAM: usize = 64 * 1024;

/// A socket in the network namespace of the thread that opened it.
pub(crate) struct RouteSocket {
    socket: Socket,
    sequence: u32,
    buffer: Vec<u8>,
}

impl RouteSocket {
    pub(crate) fn open() -> io::Result<Self> {
        let mut socket = Socket::new(NETLINK_ROUTE)?;
        socket.bind_auto()?;
        socket.connect(&SocketAddr::new(0, 0))?;
        // So that a list is filtered by the interface in its request (since 4.20).
        socket.set_netlink_get_strict_chk(true)?;
        Ok(Self { socket, sequence: 0, buffer: Vec::with_capacity(DATAGRAM) })
    }

    /// Makes a change and returns when the kernel has made it. `flags` are added to the request's.
    pub(crate) fn change(&mut self, message: RouteNetlinkMessage, flags: u16) -> io::Result<()> {
        self.request(message, NLM_F_REQUEST | NLM_F_ACK | flags).map(drop)
    }

    /// The object that `message` identifies.
    pub(crate) fn get(
        &mut self,
        message: RouteNetlinkMessage,
    ) -> io::Result<Option<RouteNetlinkMessage>> {
        self.request(message, NLM_F_REQUEST | NLM_F_ACK).map(|mut replies| replies.pop())
    }

    /// All objects of a kind, as far as `message` filters them.
    pub(crate) fn list(
        &mut self,
        message: RouteNetlinkMessage,
    ) -> io::Result<Vec<RouteNetlinkMessage>> {
        self.request(message, NLM_F_REQUEST | NLM_F_DUMP)
    }

    fn request(
        &mut self,
        message: RouteNetlinkMessage,
        flags: u16,
    ) -> io::Result<Vec<RouteNetlinkMessage>> {
        self.sequence += 1;
        let mut header = NetlinkHeader::default();
        header.flags = flags;
        header.sequence_number = self.sequence;
        let mut request = NetlinkMessage::new(header, NetlinkPayload::InnerMessage(message));
        request.finalize();
        let mut bytes = vec![0; request.buffer_len()];
        request.serialize(&mut bytes);
        self.socket.send(&bytes, 0)?;
        let mut replies = Vec::new();
        while !self.receive(&mut replies)? {}
        Ok(replies)
    }

    /// Reads one datagram; true if it was the last one of the reply.
    fn receive(&mut self, replies: &mut Vec<RouteNetlinkMessage>) -> io::Result<bool> {
        self.buffer.clear();
        self.socket.recv(&mut self.buffer, 0)?;
        let mut ended = false;
        for message in messages(&self.buffer) {
            let message = message?;
            if message.header.sequence_number != self.sequence {
                continue;
            }
            match message.payload {
                NetlinkPayload::InnerMessage(inner) => replies.push(inner),
                NetlinkPayload::Error(error) if error.code.is_some() => return Err(error.to_io()),
                NetlinkPayload::Done(done) if done.code < 0 => {
                    return Err(io::Error::from_raw_os_error(-done.code));
                }
                NetlinkPayload::Error(_) | NetlinkPayload::Done(_) => ended = true,
                _ => {}
            }
        }
        Ok(ended)
    }
}

/// The messages in a datagram. One of a type that the library can't parse is skipped: an attribute
/// that is new to it must not hide the others.
pub(crate) fn messages(
    mut datagram: &[u8],
) -> impl Iterator<Item = io::Result<NetlinkMessage<RouteNetlinkMessage>>> {
    const HEADER: usize = 16;
    std::iter::from_fn(move || {
        loop {
            if datagram.len() < HEADER {
                return None;
            }
            let length = u32::from_ne_bytes(datagram[..4].try_into().expect("4 bytes")) as usize;
            if !(HEADER..=datagram.len()).contains(&length) {
                datagram = &[];
                return Some(Err(io::Error::other("a truncated netlink message")));
            }
            let message = &datagram[..length];
            datagram = &datagram[length.next_multiple_of(4).min(datagram.len())..];
            match NetlinkMessage::deserialize(message) {
                Ok(message) => return Some(Ok(message)),
                Err(error) => tracing::debug!(%error, "a netlink message that can't be parsed"),
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use rtnetlink::packet_route::link::{LinkAttribute, LinkMessage};

    use super::*;

    fn name(message: &RouteNetlinkMessage) -> Option<&str> {
        let RouteNetlinkMessage::NewLink(link) = message else { return None };
        link.attributes.iter().find_map(|attribute| match attribute {
            LinkAttribute::IfName(name) => Some(name.as_str()),
            _ => None,
        })
    }

    #[test]
    fn links_are_listed_and_got_and_errors_have_their_errno() {
        let mut socket = RouteSocket::open().unwrap();
        let all = socket.list(RouteNetlinkMessage::GetLink(LinkMessage::default())).unwrap();
        assert!(all.iter().any(|link| name(link) == Some("lo")), "{all:?}");
        let mut lo = LinkMessage::default();
        lo.header.index = 1;
        let got = socket.get(RouteNetlinkMessage::GetLink(lo.clone())).unwrap().unwrap();
        assert_eq!(name(&got), Some("lo"));
        lo.header.index = i32::MAX as u32;
        let error = socket.get(RouteNetlinkMessage::GetLink(lo)).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::ENODEV));
    }

    #[test]
    fn a_truncated_datagram_is_an_error_and_ends() {
        let bytes = [[99_u32, 0, 0, 0].map(u32::to_ne_bytes).concat(), vec![0; 4]].concat();
        let parsed: Vec<_> = messages(&bytes).collect();
        assert_eq!(parsed.len(), 1);
        assert!(parsed[0].is_err() && messages(&[1, 2, 3]).next().is_none());
    }
}
