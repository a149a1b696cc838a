//! Many UDP packets with one system call (recvmmsg, sendmmsg): half the cost of a query is entering the kernel.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    os::fd::{AsRawFd, BorrowedFd},
    ptr,
};

use super::wire::Reply;

/// Packets in one call.
const MOST: usize = 32;
/// The longest query that is read whole, in bytes. What is longer is cut and thereby malformed.
const LONGEST: usize = 4096;
/// A `sockaddr_in6`, which is the larger one.
const NAME: usize = 28;

/// A socket address as the kernel writes it.
#[derive(Clone, Copy)]
#[repr(C, align(8))]
struct Name([u8; NAME]);

/// Room for a batch of queries and the replies to them. Every pointer in `headers` leads into a boxed slice of the same value, none of
/// which is ever moved or grown.
pub(super) struct Batch {
    queries: Box<[[u8; LONGEST]]>,
    replies: Box<[Reply]>,
    names: Box<[Name]>,
    parts: Box<[libc::iovec]>,
    headers: Box<[libc::mmsghdr]>,
    /// Which replies go out, as places in the batch.
    sending: Vec<usize>,
}

// SAFETY: the pointers lead into what the value owns, and are used only by its methods, which borrow it mutably.
unsafe impl Send for Batch {}

impl Batch {
    pub(super) fn new() -> Self {
        let part = libc::iovec { iov_base: ptr::null_mut(), iov_len: 0 };
        // SAFETY: all bits zero is a header without name, parts and control data.
        let header: libc::mmsghdr = unsafe { std::mem::zeroed() };
        Self {
            queries: vec![[0; LONGEST]; MOST].into(),
            replies: (0..MOST).map(|_| Reply::new()).collect(),
            names: vec![Name([0; NAME]); MOST].into(),
            parts: vec![part; MOST].into(),
            headers: vec![header; MOST].into(),
            sending: Vec::with_capacity(MOST),
        }
    }

    /// Takes what is in the socket, at most [`MOST`] packets, and returns how many. The socket is non-blocking.
    pub(super) fn receive(&mut self, socket: BorrowedFd<'_>) -> io::Result<usize> {
        for at in 0..MOST {
            self.parts[at] = libc::iovec { iov_base: self.queries[at].as_mut_ptr().cast(), iov_len: LONGEST };
            self.address(at, at);
        }
        // SAFETY: each of the MOST headers has a name of NAME bytes and one part of LONGEST bytes, which this value owns and nobody else uses.
        let received = unsafe {
            libc::recvmmsg(socket.as_raw_fd(), self.headers.as_mut_ptr(), MOST as libc::c_uint, libc::MSG_DONTWAIT, ptr::null_mut())
        };
        self.sending.clear();
        usize::try_from(received).map_err(|_| io::Error::last_os_error())
    }

    /// A query that was received, who sent it, and room for the reply.
    pub(super) fn query(&mut self, at: usize) -> (&[u8], Option<SocketAddr>, &mut Reply) {
        let length = (self.headers[at].msg_len as usize).min(LONGEST);
        (&self.queries[at][..length], client(&self.names[at]), &mut self.replies[at])
    }

    /// Sends the reply to this query with the next [`Batch::send`].
    pub(super) fn reply(&mut self, at: usize) {
        self.sending.push(at);
    }

    /// Sends the replies. One that can't be sent is lost, as on the way; when the socket is full so are the others. Returns how many.
    pub(super) fn send(&mut self, socket: BorrowedFd<'_>) -> usize {
        let sending = std::mem::take(&mut self.sending);
        let number = sending.len();
        for (place, &at) in sending.iter().enumerate() {
            let bytes = self.replies[at].as_bytes();
            self.parts[place] = libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
            self.address(place, at);
        }
        self.sending = sending;
        let (mut done, mut sent) = (0, 0);
        while done < number {
            let rest = &mut self.headers[done..number];
            // SAFETY: each of these headers has the name of a client and one part, the reply to it; the kernel only reads both.
            let result = unsafe { libc::sendmmsg(socket.as_raw_fd(), rest.as_mut_ptr(), rest.len() as libc::c_uint, libc::MSG_DONTWAIT) };
            match usize::try_from(result) {
                Ok(some) if some > 0 => {
                    done += some;
                    sent += some;
                }
                _ if io::Error::last_os_error().kind() == io::ErrorKind::WouldBlock => break,
                // The first of the rest is at fault.
                _ => done += 1,
            }
        }
        sent
    }

    /// Makes a header of the part at the same place and of a client's name.
    fn address(&mut self, place: usize, client: usize) {
        let name = &mut self.names[client];
        let length = match u16::from_ne_bytes([name.0[0], name.0[1]]).into() {
            libc::AF_INET => size_of::<libc::sockaddr_in>(),
            _ => NAME,
        };
        let header = &mut self.headers[place].msg_hdr;
        header.msg_name = name.0.as_mut_ptr().cast();
        header.msg_namelen = length as libc::socklen_t;
        header.msg_iov = &raw mut self.parts[place];
        header.msg_iovlen = 1;
    }
}

/// The client's address; nothing when the kernel wrote another kind, which it does not on our sockets.
fn client(Name(name): &Name) -> Option<SocketAddr> {
    let port = u16::from_be_bytes([name[2], name[3]]);
    match u16::from_ne_bytes([name[0], name[1]]).into() {
        libc::AF_INET => Some((IpAddr::V4(Ipv4Addr::from(*name[4..].first_chunk()?)), port).into()),
        libc::AF_INET6 => {
            let address = Ipv6Addr::from(*name[8..].first_chunk::<16>()?);
            let scope = u32::from_ne_bytes(*name[24..].first_chunk()?);
            Some(std::net::SocketAddrV6::new(address, port, 0, scope).into())
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::{net::UdpSocket, os::fd::AsFd};

    use super::*;

    fn echoes(listen: &str) {
        let server = UdpSocket::bind(listen).expect("bound");
        server.set_nonblocking(true).expect("set");
        let clients: Vec<_> = (0..5).map(|_| UdpSocket::bind(server.local_addr().expect("an address").ip().to_string() + ":0")).collect();
        let mut batch = Batch::new();
        assert_eq!(batch.receive(server.as_fd()).expect_err("nothing is there").kind(), io::ErrorKind::WouldBlock);
        for round in 0..3_u8 {
            for (n, client) in clients.iter().enumerate() {
                let client = client.as_ref().expect("bound");
                client.send_to(&vec![round; n * 1000 + 1], server.local_addr().expect("an address")).expect("sent");
            }
            assert_eq!(batch.receive(server.as_fd()).expect("packets"), 5);
            for (at, sender) in clients.iter().enumerate() {
                let (query, client, reply) = batch.query(at);
                assert_eq!(query, vec![round; (at * 1000 + 1).min(LONGEST)]);
                assert_eq!(client, Some(sender.as_ref().expect("bound").local_addr().expect("an address")));
                reply.clear();
                reply.push(&[round, at as u8]);
                if at != 2 {
                    batch.reply(at);
                }
            }
            assert_eq!(batch.send(server.as_fd()), 4);
            for (n, client) in clients.iter().enumerate().filter(|(n, _)| *n != 2) {
                let mut bytes = [0; 9];
                assert_eq!(client.as_ref().expect("bound").recv(&mut bytes).expect("a reply"), 2);
                assert_eq!(bytes[..2], [round, n as u8]);
            }
        }
    }

    #[test]
    fn each_reply_goes_to_the_client_that_asked() {
        echoes("127.0.0.1:0");
        echoes("[::1]:0");
    }
}
