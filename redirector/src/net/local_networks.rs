//! This host's own addresses and the networks that it reaches without a gateway, such as its pods'.
//! Read from the kernel's tables when a client's address is in no well-known private range.
//!
//! `procfs` has no reader for these tables in the thread's own network namespace.

use std::{
    fs,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    time::{Duration, Instant},
};

use arc_swap::ArcSwapOption;
use ipnet::{IpNet, Ipv4Net, Ipv6Net};

/// Longest time that the tables are cached. A new pod waits this long at most, and a flood cannot
/// make us read them more often.
const MAX_AGE: Duration = Duration::from_secs(2);
/// A route without a gateway is a local network only if its prefix is longer than this (IPv4,
/// IPv6). With a shorter one it is in effect a default route, such as a tunnel's `0.0.0.0/1`.
const MIN_PREFIX: (u8, u8) = (8, 16);
/// Most networks that are kept; a node has a few hundred.
const MAX_NETWORKS: usize = 4096;

/// The tables, cached for [`MAX_AGE`].
#[derive(Debug, Default)]
pub(crate) struct LocalNetworks {
    cached: ArcSwapOption<(Instant, Vec<IpNet>)>,
}

impl LocalNetworks {
    /// Whether the address is the host's own or in a network that it is connected to.
    pub(crate) fn contains(&self, address: IpAddr) -> bool {
        let cached = self.cached.load();
        match cached.as_deref() {
            Some((at, networks)) if at.elapsed() < MAX_AGE => {
                networks.iter().any(|network| network.contains(&address))
            }
            _ => {
                let networks = read_tables();
                let found = networks.iter().any(|network| network.contains(&address));
                self.cached.store(Some((Instant::now(), networks).into()));
                found
            }
        }
    }
}

#[cfg(test)]
impl LocalNetworks {
    /// These networks, for [`MAX_AGE`].
    pub(crate) fn fixed(networks: Vec<IpNet>) -> Self {
        Self { cached: ArcSwapOption::from_pointee((Instant::now(), networks)) }
    }
}

/// The networks in the main tables of this thread's network namespace. A table that cannot be read
/// counts as empty.
fn read_tables() -> Vec<IpNet> {
    let table = |name: &str| {
        fs::read_to_string(format!("/proc/thread-self/net/{name}")).unwrap_or_default()
    };
    let own = own_v4(&table("fib_trie"));
    let routes = connected_v4(&table("route"), &own);
    let own = own.into_iter().map(|address| IpNet::from(IpAddr::V4(address)));
    own.chain(routes).chain(connected_v6(&table("ipv6_route"))).take(MAX_NETWORKS).collect()
}

/// The addresses of this host: in the trie, a line `|-- ADDRESS` followed by `/32 host LOCAL`.
fn own_v4(trie: &str) -> Vec<Ipv4Addr> {
    let mut own = Vec::new();
    let mut last: Option<Ipv4Addr> = None;
    for line in trie.lines().map(str::trim) {
        if let Some(address) = line.strip_prefix("|-- ") {
            last = address.parse().ok();
        } else if line == "/32 host LOCAL" {
            own.extend(last);
        }
    }
    own.sort_unstable();
    own.dedup();
    own
}

const UP: u32 = 0x1;
const GATEWAY: u32 = 0x2;
const REJECT: u32 = 0x200;

/// The networks in /proc/net/route that need no gateway. Columns: interface, destination, gateway,
/// flags, three others, mask. Addresses are native words in hexadecimal. A gateway that is the
/// host's own address (as with Cilium) does not count.
fn connected_v4(table: &str, own: &[Ipv4Addr]) -> Vec<IpNet> {
    let word = |text: &str| u32::from_str_radix(text, 16).ok();
    let address = |text: &str| word(text).map(|word| Ipv4Addr::from(word.to_ne_bytes()));
    let route = |line: &str| {
        let columns: Vec<_> = line.split_ascii_whitespace().collect();
        let [_, to, gateway, flags, _, _, _, mask, ..] = columns[..] else { return None };
        let (to, gateway, flags, mask) =
            (address(to)?, address(gateway)?, word(flags)?, address(mask)?);
        let is_local = flags & GATEWAY == 0 || own.binary_search(&gateway).is_ok();
        let network = Ipv4Net::with_netmask(to, mask).ok()?;
        (is_local && flags & (UP | REJECT) == UP && network.prefix_len() > MIN_PREFIX.0)
            .then_some(IpNet::V4(network))
    };
    table.lines().skip(1).filter_map(route).collect()
}

/// The networks in /proc/net/ipv6_route that need no gateway. Columns: destination, its length,
/// source, its length, next hop, metric, references, uses, flags, interface. The table also lists
/// the host's own addresses.
fn connected_v6(table: &str) -> Vec<IpNet> {
    let address = |text: &str| u128::from_str_radix(text, 16).ok().map(Ipv6Addr::from);
    let route = |line: &str| {
        let columns: Vec<_> = line.split_ascii_whitespace().collect();
        let [to, length, _, _, gateway, _, _, _, flags, ..] = columns[..] else { return None };
        let (to, gateway, flags) =
            (address(to)?, address(gateway)?, u32::from_str_radix(flags, 16).ok()?);
        let network = Ipv6Net::new(to, u8::from_str_radix(length, 16).ok()?).ok()?;
        let is_local = gateway.is_unspecified() && flags & (UP | GATEWAY | REJECT) == UP;
        (is_local && network.prefix_len() > MIN_PREFIX.1).then_some(IpNet::V6(network))
    };
    table.lines().filter_map(route).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_route_is_local_without_a_gateway_unless_default() {
        let table = "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\t\
            Window\tIRTT\n\
            eth0\t00000000\t0100000A\t0003\t0\t0\t0\t00000000\t0\t0\t0\n\
            eth0\t0000CB0A\t00000000\t0001\t0\t0\t0\t0000FFFF\t0\t0\t0\n\
            cali1\t097100CB\t00000000\t0005\t0\t0\t0\tFFFFFFFF\t0\t0\t0\n\
            cilium_host\t007100CB\t0700000A\t0003\t0\t0\t0\tC0FFFFFF\t0\t0\t0\n\
            tun0\t00000080\t00000000\t0001\t0\t0\t0\t00000080\t0\t0\t0\n\
            eth0\t00006009\t0100000A\t0003\t0\t0\t0\t0000FFFF\t0\t0\t0\n\
            *\t0000C612\t00000000\t0200\t0\t0\t0\t0000FFFF\t0\t0\t0\n";
        let own: Vec<Ipv4Addr> = vec![[10, 0, 0, 7].into()];
        let connected: Vec<_> = connected_v4(table, &own).iter().map(ToString::to_string).collect();
        if cfg!(target_endian = "little") {
            assert_eq!(connected, ["10.203.0.0/16", "203.0.113.9/32", "203.0.113.0/26"]);
        }
        const NONE: &str = "00000000000000000000000000000000";
        let v6 = format!(
            "20010db8000000000000000000000000 40 {NONE} 00 {NONE} \
             00000100 00000001 00000000 00000001 eth0\n\
             {NONE} 00 {NONE} 00 fe800000000000000000000000000001 \
             00000400 00000001 00000000 00000003 eth0\n\
             20010db8000000000000000000000007 80 {NONE} 00 {NONE} \
             00000000 00000002 00000000 80200001 eth0\n"
        );
        let connected: Vec<_> = connected_v6(&v6).iter().map(ToString::to_string).collect();
        assert_eq!(connected, ["2001:db8::/64", "2001:db8::7/128"]);
    }

    #[test]
    fn own_addresses_are_read_from_the_kernel() {
        let trie = "Main:\n  +-- 0.0.0.0/0 3 0 5\n     |-- 10.0.0.0\n        /24 link \
            UNICAST\nLocal:\n     |-- 203.0.113.5\n        /32 host LOCAL\n     |-- \
            203.0.113.255\n        /32 link BROADCAST\n";
        assert_eq!(own_v4(trie), [Ipv4Addr::new(203, 0, 113, 5)]);
        let networks = LocalNetworks::default();
        assert!(networks.contains([127, 0, 0, 1].into()), "the real tables");
        assert!(!networks.contains("2001:db8:ffff::1".parse().expect("an address")));
    }
}
