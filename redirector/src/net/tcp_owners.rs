//! Which cgroups have TCP connections in this network namespace.

use std::collections::{BTreeMap, BTreeSet};

use crate::net::tcp_sockets::{LISTEN, TIME_WAIT, TcpSocket};

/// The number of connections that processes of each cgroup have opened, by the cgroup's ID. Those
/// within this host are left out, and those to a port that the host listens on.
pub fn tcp_owners(sockets: &[TcpSocket]) -> BTreeMap<u64, usize> {
    let listening: BTreeSet<u16> =
        sockets.iter().filter(|at| at.state == LISTEN).map(|at| at.local.port()).collect();
    let is_ours = |at: &&TcpSocket| {
        at.state != LISTEN
            && at.state != TIME_WAIT
            && !at.peer.ip().is_loopback()
            && !listening.contains(&at.local.port())
    };
    let mut owners = BTreeMap::new();
    let cgroups = sockets.iter().filter(is_ours).filter_map(|at| at.cgroup);
    cgroups.for_each(|cgroup| *owners.entry(cgroup).or_default() += 1);
    owners
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_connections_that_leave_the_host_are_counted() {
        let socket = |state, local_port: u16, peer: [u8; 4], cgroup| TcpSocket {
            state,
            local: ([192, 0, 2, 9], local_port).into(),
            peer: (peer, 443).into(),
            cgroup: Some(cgroup),
        };
        let (away, here) = ([192, 0, 2, 1], [127, 0, 0, 1]);
        let sockets = [
            socket(LISTEN, 22, [0; 4], 1),
            socket(1, 22, away, 1),
            socket(1, 40_000, away, 2),
            socket(2, 40_001, away, 2),
            socket(TIME_WAIT, 40_003, away, 2),
            socket(1, 40_002, here, 3),
        ];
        assert_eq!(tcp_owners(&sockets), BTreeMap::from([(2, 2)]));
    }
}
