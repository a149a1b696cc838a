//! Many UDP packets with one system call (recvmmsg, sendmmsg), and replies to one socket as one
//! packet that the kernel cuts up (UDP_SEGMENT, Linux 4.18): most of what a query costs is entering
//! the kernel and its walk through the network stack.
//!
//! A resolver asks for A and AAAA at once from one socket, and a forwarder in front of us asks
//! everything from a few: their replies share the walk.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    os::fd::{AsRawFd, BorrowedFd},
    ptr,
};

use crate::dns::wire::Reply;

/// Packets in one call; not above 64, what every kernel takes in the segments of one packet
/// (UDP_MAX_SEGMENTS).
pub(crate) const MOST: usize = 64;
/// The longest query that is read whole, in bytes. What is longer is cut and thereby malformed.
const LONGEST: usize = 4096;
/// A `sockaddr_in6`, which is the larger one.
const NAME: usize = 28;

/// A socket address as the kernel writes it.
#[derive(Clone, Copy)]
#[repr(C, align(8))]
struct Name([u8; NAME]);

/// Ancillary data that says how long the segments of a packet are.
#[derive(Clone, Copy)]
#[repr(C, align(8))]
struct Segment([u8; SEGMENT]);

/// The option of `SOL_UDP` (linux/udp.h), which the libc crate has for some systems only.
const UDP_SEGMENT: libc::c_int = 103;
/// `CMSG_SPACE(size_of::<u16>())`: a header of 16 bytes, the length, padding.
const SEGMENT: usize = 24;

/// Replies that leave as one packet: so many of `sending`, from this place on.
#[derive(Clone, Copy)]
struct Group {
    start: usize,
    number: usize,
}

/// Room for a batch of queries and the replies to them. Every pointer in `headers` leads into a
/// boxed slice of the same value, none of which is ever moved or grown.
pub(crate) struct Batch {
    queries: Box<[[u8; LONGEST]]>,
    replies: Box<[Reply]>,
    names: Box<[Name]>,
    parts: Box<[libc::iovec]>,
    headers: Box<[libc::mmsghdr]>,
    segments: Box<[Segment]>,
    /// Which replies go out, as places in the batch.
    sending: Vec<usize>,
    groups: Vec<Group>,
    /// Whether the kernel cuts packets up; not where a device lacks checksums, say.
    segmenting: bool,
}

// SAFETY: the pointers lead into what the value owns, and are used only by its methods, which
// borrow it mutably.
unsafe impl Send for Batch {}

impl Batch {
    pub(crate) fn new() -> Self {
        let part = libc::iovec { iov_base: ptr::null_mut(), iov_len: 0 };
        // SAFETY: all bits zero is a header without name, parts and control data.
        let header: libc::mmsghdr = unsafe { std::mem::zeroed() };
        Self {
            queries: vec![[0; LONGEST]; MOST].into(),
            replies: (0..MOST).map(|_| Reply::new()).collect(),
            names: vec![Name([0; NAME]); MOST].into(),
            parts: vec![part; MOST].into(),
            headers: vec![header; MOST].into(),
            segments: vec![Segment([0; SEGMENT]); MOST].into(),
            sending: Vec::with_capacity(MOST),
            groups: Vec::with_capacity(MOST),
            segmenting: true,
        }
    }

    /// Takes what is in the socket, at most [`MOST`] packets, and returns how many. The socket is
    /// non-blocking.
    pub(crate) fn receive(&mut self, socket: BorrowedFd<'_>) -> io::Result<usize> {
        for at in 0..MOST {
            self.parts[at] =
                libc::iovec { iov_base: self.queries[at].as_mut_ptr().cast(), iov_len: LONGEST };
            self.address(at, at, at);
        }
        // SAFETY: each of the MOST headers has a name of NAME bytes and one part of LONGEST bytes,
        // which this value owns and nobody else uses.
        let received = unsafe {
            libc::recvmmsg(
                socket.as_raw_fd(),
                self.headers.as_mut_ptr(),
                MOST as libc::c_uint,
                libc::MSG_DONTWAIT,
                ptr::null_mut(),
            )
        };
        self.sending.clear();
        usize::try_from(received).map_err(|_| io::Error::last_os_error())
    }

    /// A query that was received, who sent it, and room for the reply.
    pub(crate) fn query(&mut self, at: usize) -> (&[u8], Option<SocketAddr>, &mut Reply) {
        let length = (self.headers[at].msg_len as usize).min(LONGEST);
        (&self.queries[at][..length], client(&self.names[at]), &mut self.replies[at])
    }

    /// Sends the reply to this query with the next [`Batch::send`].
    pub(crate) fn reply(&mut self, at: usize) {
        self.sending.push(at);
    }

    /// Sends the replies. One that can't be sent is lost, as on the way; when the socket is full so
    /// are the others. Returns how many.
    pub(crate) fn send(&mut self, socket: BorrowedFd<'_>) -> usize {
        let mut sent = 0;
        let mut done = 0;
        self.group();
        while done < self.groups.len() {
            self.prepare(done);
            let rest = &mut self.headers[done..self.groups.len()];
            // SAFETY: each of these headers has the name of a client, the replies to it as parts,
            // and, when they are several, ancillary data of SEGMENT bytes; the kernel only reads
            // them.
            let result = unsafe {
                libc::sendmmsg(
                    socket.as_raw_fd(),
                    rest.as_mut_ptr(),
                    rest.len() as libc::c_uint,
                    libc::MSG_DONTWAIT,
                )
            };
            let error = io::Error::last_os_error();
            match usize::try_from(result) {
                Ok(some) if some > 0 => {
                    sent += self.groups[done..done + some]
                        .iter()
                        .map(|group| group.number)
                        .sum::<usize>();
                    done += some;
                }
                _ if error.kind() == io::ErrorKind::WouldBlock => break,
                // The first of the rest is at fault: each of its replies by itself, then, and no
                // more packets to be cut up.
                _ if self.groups[done].number > 1 => {
                    tracing::debug!(%error, "DNS replies leave one by one: the kernel does not \
                        take several as one packet");
                    self.segmenting = false;
                    self.split(done);
                }
                _ => done += 1,
            }
        }
        sent
    }

    /// Puts replies to the same client next to each other, the longest first, and makes groups of
    /// those that may share a packet: all as long as the first, but for the last one, which may be
    /// shorter.
    fn group(&mut self) {
        let (names, replies) = (&self.names, &self.replies);
        self.groups.clear();
        if self.segmenting && self.sending.len() > 1 {
            self.sending.sort_unstable_by_key(|&at| {
                (names[at].0, std::cmp::Reverse(replies[at].as_bytes().len()))
            });
        }
        let length = |place: usize| replies[self.sending[place]].as_bytes().len();
        for place in 0..self.sending.len() {
            let joins = |group: &Group| {
                let same_client =
                    names[self.sending[group.start]].0 == names[self.sending[place]].0;
                same_client && length(group.start + group.number - 1) == length(group.start)
            };
            match self.groups.last_mut() {
                Some(group) if self.segmenting && joins(group) => group.number += 1,
                _ => self.groups.push(Group { start: place, number: 1 }),
            }
        }
    }

    /// Makes groups of one of this group and of all after it.
    fn split(&mut self, from: usize) {
        let start = self.groups[from].start;
        self.groups.truncate(from);
        self.groups.extend((start..self.sending.len()).map(|start| Group { start, number: 1 }));
    }

    /// Writes the headers of the groups from this one on.
    fn prepare(&mut self, from: usize) {
        for at in from..self.groups.len() {
            let Group { start, number } = self.groups[at];
            for place in start..start + number {
                let bytes = self.replies[self.sending[place]].as_bytes();
                self.parts[place] = libc::iovec {
                    iov_base: bytes.as_ptr().cast_mut().cast(),
                    iov_len: bytes.len(),
                };
            }
            self.address(at, start, self.sending[start]);
            let header = &mut self.headers[at].msg_hdr;
            header.msg_iovlen = number as _;
            if number > 1 {
                let segment = &mut self.segments[at];
                *segment = Segment::of(self.replies[self.sending[start]].as_bytes().len());
                header.msg_control = segment.0.as_mut_ptr().cast();
                header.msg_controllen = SEGMENT as _;
            }
        }
    }

    /// Makes a header of this part and of a client's name.
    fn address(&mut self, place: usize, part: usize, client: usize) {
        let name = &mut self.names[client];
        let length = match u16::from_ne_bytes([name.0[0], name.0[1]]).into() {
            libc::AF_INET => size_of::<libc::sockaddr_in>(),
            _ => NAME,
        };
        let header = &mut self.headers[place].msg_hdr;
        header.msg_name = name.0.as_mut_ptr().cast();
        header.msg_namelen = length as libc::socklen_t;
        header.msg_iov = &raw mut self.parts[part];
        header.msg_iovlen = 1;
        header.msg_control = ptr::null_mut();
        header.msg_controllen = 0;
    }
}

impl Segment {
    /// For segments of this length, in bytes. Lengths of ours fit 16 bits.
    fn of(length: usize) -> Self {
        let mut bytes = [0; SEGMENT];
        // A `cmsghdr`: its length with the data as a native word, level, type; then the data.
        let fixed = size_of::<libc::cmsghdr>();
        bytes[..size_of::<usize>()].copy_from_slice(&(fixed + size_of::<u16>()).to_ne_bytes());
        bytes[fixed - 8..fixed - 4].copy_from_slice(&libc::SOL_UDP.to_ne_bytes());
        bytes[fixed - 4..fixed].copy_from_slice(&UDP_SEGMENT.to_ne_bytes());
        bytes[fixed..fixed + 2].copy_from_slice(&(length as u16).to_ne_bytes());
        Self(bytes)
    }
}

/// The client's address; nothing when the kernel wrote another kind, which it does not on our
/// sockets.
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
        let clients: Vec<_> = (0..5)
            .map(|_| {
                UdpSocket::bind(server.local_addr().expect("an address").ip().to_string() + ":0")
            })
            .collect();
        let mut batch = Batch::new();
        assert_eq!(
            batch.receive(server.as_fd()).expect_err("nothing is there").kind(),
            io::ErrorKind::WouldBlock
        );
        for round in 0..3_u8 {
            for (n, client) in clients.iter().enumerate() {
                let client = client.as_ref().expect("bound");
                client
                    .send_to(&vec![round; n * 1000 + 1], server.local_addr().expect("an address"))
                    .expect("sent");
            }
            assert_eq!(batch.receive(server.as_fd()).expect("packets"), 5);
            for (at, sender) in clients.iter().enumerate() {
                let (query, client, reply) = batch.query(at);
                assert_eq!(query, vec![round; (at * 1000 + 1).min(LONGEST)]);
                assert_eq!(
                    client,
                    Some(sender.as_ref().expect("bound").local_addr().expect("an address"))
                );
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

    /// Replies that leave as one packet arrive one by one, whatever their lengths are and whoever
    /// else gets some.
    fn shares_a_packet(listen: &str, segmenting: bool) {
        let server = UdpSocket::bind(listen).expect("bound");
        server.set_nonblocking(true).expect("set");
        let address = server.local_addr().expect("an address");
        let clients =
            [(); 3].map(|()| UdpSocket::bind(address.ip().to_string() + ":0").expect("bound"));
        let mut batch = Batch { segmenting, ..Batch::new() };
        let number = MOST;
        for n in 0..number {
            clients[n % 3].send_to(&[n as u8], address).expect("sent");
        }
        assert_eq!(batch.receive(server.as_fd()).expect("packets"), number);
        for at in 0..number {
            let (query, _, reply) = batch.query(at);
            let n = query[0];
            reply.clear();
            reply.push(&vec![n; 40 + usize::from(n / 3 % 5)]);
            batch.reply(at);
        }
        assert_eq!(batch.send(server.as_fd()), number);
        assert_eq!(batch.segmenting, segmenting, "loopback takes packets that are to be cut up");
        assert!(!segmenting || batch.groups.len() < number / 2, "{} packets", batch.groups.len());
        for (place, client) in clients.iter().enumerate() {
            client.set_read_timeout(Some(std::time::Duration::from_secs(5))).expect("set");
            let mut seen: Vec<_> = (place..number)
                .step_by(3)
                .map(|_| {
                    let mut bytes = [0; 512];
                    let length = client.recv(&mut bytes).expect("a reply");
                    assert_eq!(bytes[..length], vec![bytes[0]; 40 + usize::from(bytes[0] / 3 % 5)]);
                    usize::from(bytes[0])
                })
                .collect();
            seen.sort_unstable();
            assert_eq!(seen, (place..number).step_by(3).collect::<Vec<_>>());
        }
    }

    #[test]
    fn replies_to_one_client_share_a_packet_and_arrive_one_by_one() {
        for segmenting in [true, false] {
            shares_a_packet("127.0.0.1:0", segmenting);
            shares_a_packet("[::1]:0", segmenting);
        }
    }

    #[test]
    fn each_reply_goes_to_the_client_that_asked() {
        echoes("127.0.0.1:0");
        echoes("[::1]:0");
    }
}
