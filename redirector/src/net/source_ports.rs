//! Source ports that are in use towards backends, in this network namespace: those of executors
//! with the host's network. Pods and other namespaces have ports of their own, which nobody sees
//! from here.

use std::{
    collections::{BTreeMap, HashSet},
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use crate::net::tcp_sockets::{LISTEN, Limits, TcpSocket, for_each};

/// Pairs that are listed at most, those with the most ports.
const MAX_LISTED: usize = 64;
/// More than the ports of sixteen source addresses towards one backend.
const LIMITS: Limits = Limits { sockets: 1 << 20, time: Duration::from_secs(2) };

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

/// The ports in use towards these addresses, the most first: none if the kernel has no socket
/// lists. Reading up to a million sockets takes time, which no caller's task spends.
pub async fn source_ports(backends: HashSet<IpAddr>) -> Vec<SourcePorts> {
    if backends.is_empty() {
        return Vec::new();
    }
    let counted = tokio::task::spawn_blocking(move || {
        let mut ports = Ports::new(backends);
        for_each(LIMITS, |socket| ports.count(&socket)).map(|()| ports.most())
    });
    counted.await.ok().and_then(Result::ok).unwrap_or_default()
}

/// The number of ports by source address, backend and its port.
#[derive(Debug)]
struct Ports {
    backends: HashSet<IpAddr>,
    pairs: BTreeMap<(IpAddr, SocketAddr), u64>,
}

impl Ports {
    fn new(backends: HashSet<IpAddr>) -> Self {
        Self { backends, pairs: BTreeMap::new() }
    }

    fn count(&mut self, socket: &TcpSocket) {
        if socket.state != LISTEN && self.backends.contains(&socket.peer.ip()) {
            *self.pairs.entry((socket.local.ip(), socket.peer)).or_default() += 1;
        }
    }

    fn most(self) -> Vec<SourcePorts> {
        let listed = self.pairs.into_iter();
        let mut listed: Vec<_> = listed
            .map(|((source, backend), ports)| SourcePorts { source, backend, ports })
            .collect();
        listed.sort_by_key(|at| std::cmp::Reverse(at.ports));
        listed.truncate(MAX_LISTED);
        listed
    }
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
        let most = |sockets: &[TcpSocket]| {
            let mut ports = Ports::new([IpAddr::from([203, 0, 113, 7])].into());
            sockets.iter().for_each(|socket| ports.count(socket));
            ports.most()
        };
        let seen: Vec<_> = most(&sockets)
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
        let listed = most(&sockets);
        assert_eq!((listed.len(), listed[0].ports), (MAX_LISTED, 2));
    }
}
