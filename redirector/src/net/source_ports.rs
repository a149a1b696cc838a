//! Source ports that are in use towards backends, in this network namespace: those of executors
//! with the host's network. Pods and other namespaces have ports of their own, which nobody sees
//! from here.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
};

use crate::net::tcp_sockets::{LISTEN, TcpSocket};

/// Pairs that are listed at most, those with the most ports.
const MAX_LISTED: usize = 64;

/// The ports that one source address uses towards one backend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourcePorts {
    /// The source address.
    pub source: IpAddr,
    /// The backend and its port.
    pub backend: SocketAddr,
    /// The ports, those that wait for late packets (TIME_WAIT) included.
    pub ports: u64,
}

/// The ports in use towards addresses that are backends, the most first.
pub fn source_ports(
    sockets: &[TcpSocket],
    is_backend: impl Fn(IpAddr) -> bool,
) -> Vec<SourcePorts> {
    let mut pairs: BTreeMap<(IpAddr, SocketAddr), u64> = BTreeMap::new();
    for at in sockets.iter().filter(|at| at.state != LISTEN && is_backend(at.peer.ip())) {
        *pairs.entry((at.local.ip(), at.peer)).or_default() += 1;
    }
    let listed = pairs.into_iter();
    let mut listed: Vec<_> =
        listed.map(|((source, backend), ports)| SourcePorts { source, backend, ports }).collect();
    listed.sort_by_key(|at| std::cmp::Reverse(at.ports));
    listed.truncate(MAX_LISTED);
    listed
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_counted_by_source_and_backend() {
        let socket = |state, local: &str, peer: &str| TcpSocket {
            state,
            local: local.parse().expect("an address"),
            peer: peer.parse().expect("an address"),
            cgroup: None,
        };
        let mut sockets = vec![
            socket(LISTEN, "192.0.2.9:40000", "203.0.113.7:443"),
            socket(1, "192.0.2.9:40000", "203.0.113.7:443"),
            socket(6, "192.0.2.9:40001", "203.0.113.7:443"),
            socket(2, "192.0.2.9:40001", "203.0.113.7:80"),
            socket(1, "192.0.2.8:40000", "203.0.113.7:443"),
            socket(1, "192.0.2.9:40002", "198.51.100.1:443"),
        ];
        let is_backend = |address: IpAddr| address == IpAddr::from([203, 0, 113, 7]);
        let seen: Vec<_> = source_ports(&sockets, is_backend)
            .iter()
            .map(|at| format!("{} {} {}", at.source, at.backend, at.ports))
            .collect();
        let expected = [
            "192.0.2.9 203.0.113.7:443 2",
            "192.0.2.8 203.0.113.7:443 1",
            "192.0.2.9 203.0.113.7:80 1",
        ];
        assert_eq!(seen, expected);
        let more =
            (0..200).map(|port| socket(1, "192.0.2.9:50000", &format!("203.0.113.7:{port}")));
        sockets.extend(more);
        let listed = source_ports(&sockets, is_backend);
        assert_eq!((listed.len(), listed[0].ports), (MAX_LISTED, 2));
    }
}
