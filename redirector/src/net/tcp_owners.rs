//! Which cgroups have TCP connections in this network namespace, from the kernel's socket lists
//! (`sock_diag`, which names each socket's cgroup since 5.8). Needs no privilege.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use rtnetlink::{
    packet_core::{NLM_F_DUMP, NLM_F_REQUEST},
    sys::{Socket, SocketAddr, protocols::NETLINK_SOCK_DIAG},
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
/// Established, SYN sent, both FIN waits, close wait, listening: sockets that belong to a process.
const STATES: u32 = 1 << 1 | 1 << 2 | 1 << 4 | 1 << 5 | 1 << 8 | 1 << LISTEN;
const LISTEN: u8 = 10;
/// A datagram of the kernel has at most 32 KiB.
const DATAGRAM: usize = 64 * 1024;
/// Sockets that are read at most: the answer is for a person, and must not hold anything up.
const MAX_SOCKETS: usize = 16_384;

/// A TCP socket.
#[derive(Clone, Debug, PartialEq, Eq)]
struct TcpSocket {
    state: u8,
    local_port: u16,
    peer: IpAddr,
    cgroup: u64,
}

/// The number of connections that processes of each cgroup have opened, by the cgroup's ID. Those
/// within this host are left out, and those to a port that the host listens on.
///
/// # Errors
///
/// When the kernel has no socket lists.
pub fn tcp_owners() -> io::Result<BTreeMap<u64, usize>> {
    let mut sockets = Vec::new();
    for family in [libc::AF_INET, libc::AF_INET6] {
        list(family as u8, &mut sockets)?;
    }
    Ok(count(&sockets))
}

fn count(sockets: &[TcpSocket]) -> BTreeMap<u64, usize> {
    let listening: BTreeSet<u16> =
        sockets.iter().filter(|at| at.state == LISTEN).map(|at| at.local_port).collect();
    let is_ours = |at: &&TcpSocket| {
        at.state != LISTEN
            && !at.peer.to_canonical().is_loopback()
            && !listening.contains(&at.local_port)
    };
    let mut owners = BTreeMap::new();
    sockets.iter().filter(is_ours).for_each(|at| *owners.entry(at.cgroup).or_default() += 1);
    owners
}

fn list(family: u8, sockets: &mut Vec<TcpSocket>) -> io::Result<()> {
    let mut socket = Socket::new(NETLINK_SOCK_DIAG)?;
    socket.bind_auto()?;
    socket.connect(&SocketAddr::new(0, 0))?;
    socket.send(&request(family), 0)?;
    let mut buffer = Vec::with_capacity(DATAGRAM);
    while sockets.len() < MAX_SOCKETS {
        buffer.clear();
        socket.recv(&mut buffer, 0)?;
        if read(&buffer, sockets)? {
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
fn read(mut datagram: &[u8], sockets: &mut Vec<TcpSocket>) -> io::Result<bool> {
    while datagram.len() >= HEADER {
        let length = u32::from_ne_bytes(array(datagram, 0)) as usize;
        if !(HEADER..=datagram.len()).contains(&length) {
            return Err(io::Error::other("a truncated netlink message"));
        }
        let (message, kind) = (&datagram[HEADER..length], u16::from_ne_bytes(array(datagram, 4)));
        match kind {
            DONE => return Ok(true),
            ERROR => return Err(error(message)),
            _ => sockets.extend(parse(message)),
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

/// A socket; none if the message is too short, or the kernel does not name the cgroup.
fn parse(message: &[u8]) -> Option<TcpSocket> {
    let (head, mut attributes) = message.split_at_checked(MESSAGE)?;
    let peer = match i32::from(head[0]) {
        libc::AF_INET => Ipv4Addr::from(array::<4>(head, 24)).into(),
        _ => Ipv6Addr::from(array::<16>(head, 24)).into(),
    };
    while attributes.len() >= 4 {
        let length = usize::from(u16::from_ne_bytes(array(attributes, 0)));
        let kind = u16::from_ne_bytes(array(attributes, 2));
        if !(4..=attributes.len()).contains(&length) {
            return None;
        }
        if kind == CGROUP_ID && length == 12 {
            let cgroup = u64::from_ne_bytes(array(attributes, 4));
            let local_port = u16::from_be_bytes(array(head, 4));
            return Some(TcpSocket { state: head[1], local_port, peer, cgroup });
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
        let port = client.local_addr().expect("an address").port();
        let mut sockets = Vec::new();
        list(libc::AF_INET as u8, &mut sockets).expect("a list");
        let ours = sockets.iter().find(|at| at.local_port == port).expect("our socket");
        assert_eq!((ours.state, ours.peer), (1, address.ip()));
        let listening =
            sockets.iter().find(|at| at.state == LISTEN && at.local_port == address.port());
        assert_eq!(listening.expect("the listener").cgroup, ours.cgroup);
        assert!(crate::datapath::cgroup_paths().contains_key(&ours.cgroup));
        drop(client);
    }

    #[test]
    fn only_connections_that_leave_the_host_are_counted() {
        let socket = |state, local_port, peer: [u8; 4], cgroup| TcpSocket {
            state,
            local_port,
            peer: peer.into(),
            cgroup,
        };
        let (away, here) = ([192, 0, 2, 1], [127, 0, 0, 1]);
        let sockets = [
            socket(LISTEN, 22, [0; 4], 1),
            socket(1, 22, away, 1),
            socket(1, 40_000, away, 2),
            socket(2, 40_001, away, 2),
            socket(1, 40_002, here, 3),
        ];
        assert_eq!(count(&sockets), BTreeMap::from([(2, 2)]));
    }

    #[test]
    fn cut_messages_end_the_reading_without_a_panic() {
        let mut whole = request(2);
        whole.extend([0; 40]);
        let length = u32::try_from(whole.len()).expect("short");
        whole[..4].copy_from_slice(&length.to_ne_bytes());
        for end in 0..whole.len() {
            let mut sockets = Vec::new();
            let _ = read(&whole[..end], &mut sockets);
            assert_eq!(parse(&whole[..end]), None);
            assert!(sockets.is_empty());
        }
    }
}
