//! Many UDP packets with one system call (recvmmsg, sendmmsg), and several replies to one client as
//! one packet that the kernel splits (UDP_SEGMENT, Linux 4.18). Most of a query's cost is entering
//! the kernel and crossing its network stack.
//!
//! A resolver queries A and AAAA at once from one socket, and a forwarder in front of the shim uses
//! few sockets for all its queries, so that many replies share this cost.

use std::{
    cmp::Reverse,
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6},
    os::fd::{AsRawFd, BorrowedFd},
    ptr,
};

use crate::dns::wire::ReplyBuffer;

/// Packets in one call. At most 64, the number of segments in one packet that every kernel accepts
/// (UDP_MAX_SEGMENTS).
pub(super) const BATCH_SIZE: usize = 64;
/// Longest query, in bytes. Longer ones are truncated and thereby malformed.
const MAX_QUERY_LEN: usize = 4096;
/// Length of a `sockaddr_in6`, the larger kind of address, in bytes.
const SOCKADDR_LEN: usize = 28;

/// A socket address as the kernel writes it.
#[derive(Clone, Copy)]
#[repr(C, align(8))]
struct SockAddr([u8; SOCKADDR_LEN]);

/// The ancillary data with the segment length of a packet.
#[derive(Clone, Copy)]
#[repr(C, align(8))]
struct SegmentSize([u8; CMSG_SPACE]);

/// An option of `SOL_UDP` (linux/udp.h). The libc crate does not define it for every target.
const UDP_SEGMENT: libc::c_int = 103;
/// `CMSG_SPACE(size_of::<u16>())`: a header of 16 bytes, the length, padding.
const CMSG_SPACE: usize = 24;

/// Replies that are sent as one packet: a range of `queued`.
#[derive(Clone, Copy)]
struct Group {
    start: usize,
    count: usize,
}

/// Buffers for a batch of queries and their replies. Every pointer in `headers` points into a boxed
/// slice of the same value, none of which is ever moved or grown.
pub(super) struct Batch {
    queries: Box<[[u8; MAX_QUERY_LEN]]>,
    replies: Box<[ReplyBuffer]>,
    clients: Box<[SockAddr]>,
    parts: Box<[libc::iovec]>,
    headers: Box<[libc::mmsghdr]>,
    segment_sizes: Box<[SegmentSize]>,
    /// Indices of the replies to send.
    queued: Vec<usize>,
    groups: Vec<Group>,
    /// Whether the kernel splits packets. It does not if the device has no checksum offload, for
    /// example.
    segmenting: bool,
}

// SAFETY: the pointers point into memory that the value owns, and only its methods use them, which
// borrow it mutably.
unsafe impl Send for Batch {}

impl Batch {
    pub(super) fn new() -> Self {
        let part = libc::iovec { iov_base: ptr::null_mut(), iov_len: 0 };
        // SAFETY: a zeroed header has no name, parts or control data.
        let header: libc::mmsghdr = unsafe { std::mem::zeroed() };
        Self {
            queries: vec![[0; MAX_QUERY_LEN]; BATCH_SIZE].into(),
            replies: (0..BATCH_SIZE).map(|_| ReplyBuffer::new()).collect(),
            clients: vec![SockAddr([0; SOCKADDR_LEN]); BATCH_SIZE].into(),
            parts: vec![part; BATCH_SIZE].into(),
            headers: vec![header; BATCH_SIZE].into(),
            segment_sizes: vec![SegmentSize([0; CMSG_SPACE]); BATCH_SIZE].into(),
            queued: Vec::with_capacity(BATCH_SIZE),
            groups: Vec::with_capacity(BATCH_SIZE),
            segmenting: true,
        }
    }

    /// Reads up to [`BATCH_SIZE`] packets from the socket without blocking, and returns how many.
    pub(super) fn receive(&mut self, socket: BorrowedFd<'_>) -> io::Result<usize> {
        for index in 0..BATCH_SIZE {
            let buffer = self.queries[index].as_mut_ptr().cast();
            self.parts[index] = libc::iovec { iov_base: buffer, iov_len: MAX_QUERY_LEN };
            self.set_header(index, index, index);
        }
        // SAFETY: each of the BATCH_SIZE headers has a name of SOCKADDR_LEN bytes and one part of
        // MAX_QUERY_LEN bytes, which this value owns and nothing else uses.
        let received = unsafe {
            libc::recvmmsg(
                socket.as_raw_fd(),
                self.headers.as_mut_ptr(),
                BATCH_SIZE as libc::c_uint,
                libc::MSG_DONTWAIT,
                ptr::null_mut(),
            )
        };
        self.queued.clear();
        usize::try_from(received).map_err(|_| io::Error::last_os_error())
    }

    /// A received query, its client, and the buffer for the reply.
    pub(super) fn query(&mut self, index: usize) -> (&[u8], Option<SocketAddr>, &mut ReplyBuffer) {
        let length = (self.headers[index].msg_len as usize).min(MAX_QUERY_LEN);
        let client = parse_sockaddr(&self.clients[index]);
        (&self.queries[index][..length], client, &mut self.replies[index])
    }

    /// Sends the reply to this query with the next [`Batch::send`].
    pub(super) fn queue_reply(&mut self, index: usize) {
        self.queued.push(index);
    }

    /// Sends the queued replies and returns how many were sent. A reply that cannot be sent is
    /// lost; if the send buffer is full, so are all after it.
    pub(super) fn send(&mut self, socket: BorrowedFd<'_>) -> usize {
        let mut sent = 0;
        let mut done = 0;
        self.group_replies();
        while done < self.groups.len() {
            self.fill_headers(done);
            let rest = &mut self.headers[done..self.groups.len()];
            // SAFETY: each of these headers has the address of a client, the replies to it as
            // parts, and for several replies ancillary data of CMSG_SPACE bytes. The kernel only
            // reads them.
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
                    let groups = &self.groups[done..done + some];
                    sent += groups.iter().map(|group| group.count).sum::<usize>();
                    done += some;
                }
                _ if error.kind() == io::ErrorKind::WouldBlock => break,
                // The first remaining group failed: send its replies one by one, and stop
                // segmenting.
                _ if self.groups[done].count > 1 => {
                    tracing::debug!(%error, "UDP segmentation failed: sending DNS replies singly");
                    self.segmenting = false;
                    self.split_groups(done);
                }
                _ => done += 1,
            }
        }
        sent
    }

    /// Sorts replies by client, the longest first, and groups those that may share a packet: all as
    /// long as the first, except that the last one may be shorter.
    fn group_replies(&mut self) {
        let (clients, replies) = (&self.clients, &self.replies);
        self.groups.clear();
        if self.segmenting && self.queued.len() > 1 {
            self.queued.sort_unstable_by_key(|&index| {
                (clients[index].0, Reverse(replies[index].as_bytes().len()))
            });
        }
        let client = |place: usize| clients[self.queued[place]].0;
        let length = |place: usize| replies[self.queued[place]].as_bytes().len();
        for place in 0..self.queued.len() {
            let joins = |group: &Group| {
                client(group.start) == client(place)
                    && length(group.start + group.count - 1) == length(group.start)
            };
            match self.groups.last_mut() {
                Some(group) if self.segmenting && joins(group) => group.count += 1,
                _ => self.groups.push(Group { start: place, count: 1 }),
            }
        }
    }

    /// Splits this group and all after it into groups of one reply.
    fn split_groups(&mut self, from: usize) {
        let start = self.groups[from].start;
        self.groups.truncate(from);
        self.groups.extend((start..self.queued.len()).map(|start| Group { start, count: 1 }));
    }

    /// Writes the headers of this group and of all after it.
    fn fill_headers(&mut self, from: usize) {
        for index in from..self.groups.len() {
            let Group { start, count } = self.groups[index];
            for place in start..start + count {
                let bytes = self.replies[self.queued[place]].as_bytes();
                self.parts[place] = libc::iovec {
                    iov_base: bytes.as_ptr().cast_mut().cast(),
                    iov_len: bytes.len(),
                };
            }
            self.set_header(index, start, self.queued[start]);
            let header = &mut self.headers[index].msg_hdr;
            header.msg_iovlen = count as _;
            if count > 1 {
                let size = &mut self.segment_sizes[index];
                *size = SegmentSize::new(self.replies[self.queued[start]].as_bytes().len());
                header.msg_control = size.0.as_mut_ptr().cast();
                header.msg_controllen = CMSG_SPACE as _;
            }
        }
    }

    /// Points a header at one part and at the address of a client.
    fn set_header(&mut self, index: usize, part: usize, client: usize) {
        let address = &mut self.clients[client];
        let header = &mut self.headers[index].msg_hdr;
        header.msg_name = address.0.as_mut_ptr().cast();
        // The kernel accepts a shorter address in it.
        header.msg_namelen = SOCKADDR_LEN as libc::socklen_t;
        header.msg_iov = &raw mut self.parts[part];
        header.msg_iovlen = 1;
        header.msg_control = ptr::null_mut();
        header.msg_controllen = 0;
    }
}

impl SegmentSize {
    /// For segments of this length, in bytes, which fits 16 bits.
    fn new(length: usize) -> Self {
        let mut bytes = [0; CMSG_SPACE];
        // A `cmsghdr`: the length including the data, level, type; then the data.
        let fixed = size_of::<libc::cmsghdr>();
        bytes[..size_of::<usize>()].copy_from_slice(&(fixed + size_of::<u16>()).to_ne_bytes());
        bytes[fixed - 8..fixed - 4].copy_from_slice(&libc::SOL_UDP.to_ne_bytes());
        bytes[fixed - 4..fixed].copy_from_slice(&UDP_SEGMENT.to_ne_bytes());
        bytes[fixed..fixed + 2].copy_from_slice(&(length as u16).to_ne_bytes());
        Self(bytes)
    }
}

/// The address; `None` for another family, which our sockets never have.
fn parse_sockaddr(SockAddr(name): &SockAddr) -> Option<SocketAddr> {
    let port = u16::from_be_bytes([name[2], name[3]]);
    match u16::from_ne_bytes([name[0], name[1]]).into() {
        libc::AF_INET => Some((IpAddr::V4(Ipv4Addr::from(*name[4..].first_chunk()?)), port).into()),
        libc::AF_INET6 => {
            let address = Ipv6Addr::from(*name[8..].first_chunk::<16>()?);
            let scope = u32::from_ne_bytes(*name[24..].first_chunk()?);
            Some(SocketAddrV6::new(address, port, 0, scope).into())
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
            batch.receive(server.as_fd()).expect_err("the socket is empty").kind(),
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
                assert_eq!(query, vec![round; (at * 1000 + 1).min(MAX_QUERY_LEN)]);
                assert_eq!(
                    client,
                    Some(sender.as_ref().expect("bound").local_addr().expect("an address"))
                );
                reply.clear();
                reply.push(&[round, at as u8]);
                if at != 2 {
                    batch.queue_reply(at);
                }
            }
            assert_eq!(batch.send(server.as_fd()), 4);
            let segments = |header: &libc::mmsghdr| header.msg_hdr.msg_controllen;
            assert!(batch.headers.iter().all(|header| segments(header) == 0), "none has several");
            for (n, client) in clients.iter().enumerate().filter(|(n, _)| *n != 2) {
                let mut bytes = [0; 9];
                assert_eq!(client.as_ref().expect("bound").recv(&mut bytes).expect("a reply"), 2);
                assert_eq!(bytes[..2], [round, n as u8]);
            }
        }
    }

    /// Replies that are sent as one packet arrive one by one, for any lengths and clients.
    fn shares_a_packet(listen: &str, segmenting: bool) {
        let server = UdpSocket::bind(listen).expect("bound");
        server.set_nonblocking(true).expect("set");
        let address = server.local_addr().expect("an address");
        let clients =
            [(); 3].map(|()| UdpSocket::bind(address.ip().to_string() + ":0").expect("bound"));
        let mut batch = Batch { segmenting, ..Batch::new() };
        let number = BATCH_SIZE;
        for n in 0..number {
            clients[n % 3].send_to(&[n as u8], address).expect("sent");
        }
        assert_eq!(batch.receive(server.as_fd()).expect("packets"), number);
        for at in 0..number {
            let (query, _, reply) = batch.query(at);
            let n = query[0];
            reply.clear();
            reply.push(&vec![n; 40 + usize::from(n / 3 % 5)]);
            batch.queue_reply(at);
        }
        assert_eq!(batch.send(server.as_fd()), number);
        assert_eq!(batch.segmenting, segmenting, "loopback accepts segmented packets");
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

    /// The replies to a client of port 0, which nothing can be sent to, are lost alone.
    fn loses_only(listen: &str, lost: &[usize], segmenting: bool) {
        let server = UdpSocket::bind(listen).expect("bound");
        server.set_nonblocking(true).expect("set");
        let address = server.local_addr().expect("an address");
        let clients = [(); 3].map(|()| UdpSocket::bind((address.ip(), 0)).expect("bound"));
        let mut batch = Batch::new();
        for n in 0..9_u8 {
            clients[usize::from(n % 3)].send_to(&[n], address).expect("sent");
        }
        assert_eq!(batch.receive(server.as_fd()).expect("packets"), 9);
        for at in 0..9 {
            let (query, _, reply) = batch.query(at);
            let query = query[0];
            reply.clear();
            reply.push(&[query]);
            batch.queue_reply(at);
            if lost.contains(&at) {
                batch.clients[at].0[2..4].fill(0);
            }
        }
        assert_eq!(batch.send(server.as_fd()), 9 - lost.len());
        assert_eq!(batch.segmenting, segmenting);
        for (place, client) in clients.iter().enumerate() {
            client.set_read_timeout(Some(std::time::Duration::from_secs(5))).expect("set");
            for _ in (place..9).step_by(3).filter(|at| !lost.contains(at)) {
                let mut bytes = [0; 9];
                assert_eq!(client.recv(&mut bytes).expect("a reply"), 1);
                assert!(!lost.contains(&bytes[0].into()));
            }
        }
    }

    #[test]
    fn a_reply_that_cannot_be_sent_is_lost_alone() {
        for listen in ["127.0.0.1:0", "[::1]:0"] {
            loses_only(listen, &[4], true);
            // Sent as one packet, which fails as if the kernel could not split it.
            loses_only(listen, &[1, 4, 7], false);
        }
    }

    #[test]
    fn replies_that_share_a_packet_arrive_one_by_one() {
        for segmenting in [true, false] {
            shares_a_packet("127.0.0.1:0", segmenting);
            shares_a_packet("[::1]:0", segmenting);
        }
    }

    #[test]
    fn each_reply_goes_to_its_client() {
        echoes("127.0.0.1:0");
        echoes("[::1]:0");
    }
}
