//! The kernel's lists of TCP sockets (`sock_diag`, which names each socket's cgroup since 5.8).
//! Needs no privilege, and shows this network namespace only.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    time::{Duration, Instant},
};

use rtnetlink::{
    packet_core::{NLM_F_DUMP, NLM_F_REQUEST},
    sys::{self, Socket, protocols::NETLINK_SOCK_DIAG},
};

/// `SOCK_DIAG_BY_FAMILY`.
const BY_FAMILY: u16 = 20;
/// `NLMSG_ERROR` and `NLMSG_DONE`.
const ERROR: u16 = 2;
const DONE: u16 = 3;
/// `INET_DIAG_CGROUP_ID`.
const CGROUP_ID: u16 = 21;
/// `struct nlmsghdr`, `struct inet_diag_req_v2` and `struct inet_diag_msg`.
const HEADER: usize = 16;
const REQUEST: usize = 56;
const MESSAGE: usize = 72;
/// All but closed, new and half-open ones of a listener.
const STATES: u32 = 0b1111_1110_1110;
pub(super) const TIME_WAIT: u8 = 6;
pub(super) const LISTEN: u8 = 10;
/// A datagram of the kernel has at most 32 KiB.
const DATAGRAM: usize = 64 * 1024;
/// Of a list that is for a person, and must not hold anything up.
const LISTED: Limits = Limits { sockets: 16_384, time: Duration::from_secs(1) };

/// Where the reading of one family's sockets ends, if the kernel has more.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    pub(super) sockets: usize,
    pub(super) time: Duration,
}

/// A TCP socket of this network namespace. Mapped addresses are IPv4 ones here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TcpSocket {
    pub(super) state: u8,
    pub(super) local: SocketAddr,
    pub(super) peer: SocketAddr,
    /// None in TIME_WAIT, and before 5.8.
    pub(super) cgroup: Option<u64>,
}

/// Lists the sockets of this network namespace with IPv4 and IPv6 addresses, the first 16,384 of
/// each.
///
/// # Errors
///
/// When the kernel has no socket lists.
pub fn tcp_sockets() -> io::Result<Vec<TcpSocket>> {
    let mut sockets = Vec::new();
    for_each(LISTED, |socket| sockets.push(socket))?;
    Ok(sockets)
}

/// Reads the sockets of this network namespace, those with IPv4 addresses first.
pub(super) fn for_each(limits: Limits, mut take: impl FnMut(TcpSocket)) -> io::Result<()> {
    read_family(libc::AF_INET as u8, limits, &mut take)?;
    read_family(libc::AF_INET6 as u8, limits, &mut take)
}

fn read_family(family: u8, limits: Limits, take: &mut impl FnMut(TcpSocket)) -> io::Result<()> {
    let mut socket = Socket::new(NETLINK_SOCK_DIAG)?;
    socket.bind_auto()?;
    socket.connect(&sys::SocketAddr::new(0, 0))?;
    socket.send(&request(family), 0)?;
    let mut buffer = Vec::with_capacity(DATAGRAM);
    let (mut read, deadline) = (0, Instant::now() + limits.time);
    while read < limits.sockets && Instant::now() < deadline {
        buffer.clear();
        socket.recv(&mut buffer, 0)?;
        let is_last = parse_datagram(&buffer, |socket| {
            read += 1;
            take(socket);
        })?;
        if is_last {
            break;
        }
    }
    Ok(())
}

fn request(family: u8) -> Vec<u8> {
    let length = (HEADER + REQUEST) as u32;
    let mut bytes = Vec::with_capacity(HEADER + REQUEST);
    bytes.extend(length.to_ne_bytes());
    bytes.extend(BY_FAMILY.to_ne_bytes());
    bytes.extend((NLM_F_REQUEST | NLM_F_DUMP).to_ne_bytes());
    bytes.extend([0; 8]);
    bytes.extend([family, libc::IPPROTO_TCP as u8, 0, 0]);
    bytes.extend(STATES.to_ne_bytes());
    bytes.resize(HEADER + REQUEST, 0);
    bytes
}

/// Reads the messages of a datagram; true if the last one ended the list.
fn parse_datagram(mut datagram: &[u8], mut take: impl FnMut(TcpSocket)) -> io::Result<bool> {
    while datagram.len() >= HEADER {
        let length = u32::from_ne_bytes(array(datagram, 0)) as usize;
        if !(HEADER..=datagram.len()).contains(&length) {
            return Err(io::Error::other("a truncated netlink message"));
        }
        let (message, kind) = (&datagram[HEADER..length], u16::from_ne_bytes(array(datagram, 4)));
        match kind {
            DONE => return Ok(true),
            ERROR => return Err(error(message)),
            _ => parse(message).into_iter().for_each(&mut take),
        }
        datagram = &datagram[length.next_multiple_of(4).min(datagram.len())..];
    }
    Ok(false)
}

fn error(message: &[u8]) -> io::Error {
    match message.first_chunk() {
        Some(code) => io::Error::from_raw_os_error(i32::from_ne_bytes(*code).saturating_neg()),
        None => io::Error::other("a truncated netlink error"),
    }
}

/// A socket; none if the message is too short.
fn parse(message: &[u8]) -> Option<TcpSocket> {
    let (head, attributes) = message.split_at_checked(MESSAGE)?;
    let address = |at: usize| match i32::from(head[0]) {
        libc::AF_INET => IpAddr::from(array::<4>(head, at)),
        _ => IpAddr::from(array::<16>(head, at)).to_canonical(),
    };
    let port = |at| u16::from_be_bytes(array(head, at));
    Some(TcpSocket {
        state: head[1],
        local: SocketAddr::new(address(8), port(4)),
        peer: SocketAddr::new(address(24), port(6)),
        cgroup: cgroup(attributes),
    })
}

fn cgroup(mut attributes: &[u8]) -> Option<u64> {
    while attributes.len() >= 4 {
        let length = usize::from(u16::from_ne_bytes(array(attributes, 0)));
        let kind = u16::from_ne_bytes(array(attributes, 2));
        if !(4..=attributes.len()).contains(&length) {
            return None;
        }
        if kind == CGROUP_ID && length == 12 {
            return Some(u64::from_ne_bytes(array(attributes, 4)));
        }
        attributes = &attributes[length.next_multiple_of(4).min(attributes.len())..];
    }
    None
}

/// The bytes at `at`, which the caller has checked to exist.
fn array<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    bytes[at..at + N].try_into().expect("the caller has checked the length")
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::*;

    #[test]
    fn a_socket_is_listed_with_its_cgroup_and_peer() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("bound");
        let address = listener.local_addr().expect("an address");
        let client = TcpStream::connect(address).expect("connected");
        let local = client.local_addr().expect("an address");
        let sockets = tcp_sockets().expect("a list");
        let ours = sockets.iter().find(|at| at.local == local).expect("our socket");
        assert_eq!((ours.state, ours.peer), (1, address));
        let listening = sockets.iter().find(|at| at.state == LISTEN && at.local == address);
        assert_eq!(listening.expect("the listener").cgroup, ours.cgroup);
        let cgroup = ours.cgroup.expect("a cgroup");
        assert!(crate::datapath::cgroup_paths().contains_key(&cgroup));
        drop(client);
    }

    #[test]
    fn cut_messages_end_the_reading_without_a_panic() {
        let mut whole = request(2);
        whole.extend([0; 40]);
        let length = u32::try_from(whole.len()).expect("short");
        whole[..4].copy_from_slice(&length.to_ne_bytes());
        for end in 0..whole.len() {
            let mut sockets = 0;
            let _ = parse_datagram(&whole[..end], |_| sockets += 1);
            assert_eq!(parse(&whole[..end]).is_some(), end >= MESSAGE);
            assert_eq!(sockets, 0);
        }
    }
}
