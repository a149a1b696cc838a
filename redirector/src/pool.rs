//! The range of virtual addresses.
//!
//! A VIP is an index into the pool, so the kernel finds a route by an array element and needs no
//! lookup by address.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

/// Where VIPs come from. Index `n` is the address `n` after the first one, in both families.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pool {
    /// The IPv4 range.
    pub ipv4: Ipv4Net,
    /// The IPv6 range, with as many addresses as the IPv4 one.
    pub ipv6: Option<Ipv6Net>,
    /// Whether the host gets an unreachable route for the pool.
    pub guard: bool,
}

/// Why a range is no pool.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PoolError {
    /// Too few addresses.
    #[error("`{0}` is too small: the first and the last address stay free, so write a prefix \
        length of /{least} or less", least = Pool::NARROWEST)]
    TooSmall(Ipv4Net),
    /// Too many addresses.
    #[error("`{0}` is too wide: a pool has at most 65536 addresses, so write a prefix length of \
        /{most} or more", most = Pool::WIDEST)]
    TooWide(Ipv4Net),
    /// A range that other things need.
    #[error(
        "`{network}` overlaps `{reserved}`, which is {what}: write a private range that nothing \
            here uses, such as `198.18.0.0/16`"
    )]
    Reserved {
        /// The range.
        network: IpNet,
        /// The range that it overlaps.
        reserved: IpNet,
        /// What that is for.
        what: &'static str,
    },
    /// The two ranges differ in size.
    #[error(
        "`{ipv6}` has not as many addresses as `{ipv4}`: write a prefix length of /{want}",
        want = 96 + ipv4.prefix_len()
    )]
    Ipv6Size {
        /// The IPv6 range.
        ipv6: Ipv6Net,
        /// The IPv4 range.
        ipv4: Ipv4Net,
    },
}

/// Ranges that a connect means something else by.
const RESERVED: [(&str, &str); 8] = [
    ("0.0.0.0/8", "\"this network\""),
    ("127.0.0.0/8", "loopback"),
    ("224.0.0.0/4", "multicast"),
    ("255.255.255.255/32", "broadcast"),
    ("::/127", "unspecified and loopback"),
    ("::ffff:0:0/96", "IPv4 in IPv6 notation"),
    ("fe80::/10", "link-local"),
    ("ff00::/8", "multicast"),
];

impl Pool {
    /// The longest IPv4 prefix, which leaves two addresses to lease.
    pub const NARROWEST: u8 = 30;
    /// The shortest IPv4 prefix: 65,536 addresses.
    pub const WIDEST: u8 = 16;

    /// A pool, or which of its keys (`ipv4`, `ipv6`) is wrong and why.
    pub fn new(
        ipv4: Ipv4Net,
        ipv6: Option<Ipv6Net>,
        guard: bool,
    ) -> Result<Self, (&'static str, PoolError)> {
        if ipv4.prefix_len() > Self::NARROWEST {
            return Err(("ipv4", PoolError::TooSmall(ipv4)));
        }
        if ipv4.prefix_len() < Self::WIDEST {
            return Err(("ipv4", PoolError::TooWide(ipv4)));
        }
        not_reserved(ipv4.into()).map_err(|error| ("ipv4", error))?;
        if let Some(ipv6) = ipv6 {
            not_reserved(ipv6.into()).map_err(|error| ("ipv6", error))?;
            if ipv6.prefix_len() != 96 + ipv4.prefix_len() {
                return Err(("ipv6", PoolError::Ipv6Size { ipv6, ipv4 }));
            }
        }
        Ok(Self { ipv4, ipv6, guard })
    }

    /// The ranges, one for each family.
    pub fn nets(&self) -> Vec<IpNet> {
        let ranges = [IpNet::from(self.ipv4)].into_iter().chain(self.ipv6.map(IpNet::from));
        ranges.map(|net| net.trunc()).collect()
    }

    /// How many addresses the pool has, in each family.
    pub fn size(&self) -> u32 {
        1 << (32 - self.ipv4.prefix_len())
    }

    /// The indices that may be leased: all but the first (network) and the last (broadcast)
    /// address.
    pub fn usable(&self) -> std::ops::Range<u32> {
        1..self.size() - 1
    }

    /// The IPv4 address at an index, or `None` when the index is not below [`Pool::size`].
    pub fn ipv4_at(&self, index: u32) -> Option<Ipv4Addr> {
        (index < self.size()).then(|| Ipv4Addr::from_bits(self.ipv4.network().to_bits() + index))
    }

    /// The IPv6 address at an index, or `None` when there is no IPv6 pool or the index is not below
    /// [`Pool::size`].
    pub fn ipv6_at(&self, index: u32) -> Option<Ipv6Addr> {
        let base = self.ipv6.filter(|_| index < self.size())?.network().to_bits();
        Some(Ipv6Addr::from_bits(base + u128::from(index)))
    }

    /// The index of an address, or `None` when the pool does not have it. An IPv4 address may be
    /// written as IPv6.
    pub fn index_of(&self, ip: IpAddr) -> Option<u32> {
        match ip.to_canonical() {
            IpAddr::V4(ip) => {
                self.ipv4.contains(&ip).then(|| ip.to_bits() - self.ipv4.network().to_bits())
            }
            IpAddr::V6(ip) => {
                let pool = self.ipv6.filter(|pool| pool.contains(&ip))?;
                u32::try_from(ip.to_bits() - pool.network().to_bits())
                    .ok()
                    .filter(|index| *index < self.size())
            }
        }
    }

    /// Whether the pool has an address.
    pub fn contains(&self, ip: IpAddr) -> bool {
        self.index_of(ip).is_some()
    }
}

impl Default for Pool {
    /// `198.18.0.0/16`, which RFC 2544 reserves for benchmarks, with the guard and without IPv6.
    fn default() -> Self {
        let ipv4 = Ipv4Net::new(Ipv4Addr::new(198, 18, 0, 0), 16).expect("16 is a prefix length");
        Self { ipv4, ipv6: None, guard: true }
    }
}

fn not_reserved(network: IpNet) -> Result<(), PoolError> {
    let overlaps = |reserved: &IpNet| reserved.contains(&network) || network.contains(reserved);
    for (reserved, what) in RESERVED {
        let reserved: IpNet = reserved.parse().expect("the table holds networks");
        if overlaps(&reserved) {
            return Err(PoolError::Reserved { network, reserved, what });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pool(ipv4: &str, ipv6: Option<&str>) -> Result<Pool, String> {
        let ipv6 = ipv6.map(|net| net.parse().expect("a network"));
        Pool::new(ipv4.parse().expect("a network"), ipv6, true)
            .map_err(|(key, error)| format!("{key}: {error}"))
    }

    #[test]
    fn an_index_maps_to_its_addresses_and_back() {
        let pool = pool("10.9.8.0/24", Some("fd00:1::/120")).expect("a pool");
        assert_eq!((pool.size(), pool.usable()), (256, 1..255));
        for index in 0..256 {
            let v4 = pool.ipv4_at(index).expect("below the size");
            let v6 = pool.ipv6_at(index).expect("below the size");
            assert_eq!(pool.index_of(v4.into()), Some(index));
            assert_eq!(pool.index_of(v6.into()), Some(index));
            assert_eq!(pool.index_of(v4.to_ipv6_mapped().into()), Some(index));
        }
        assert_eq!((pool.ipv4_at(256), pool.ipv6_at(256)), (None, None));
        assert_eq!(pool.index_of([10, 9, 9, 0].into()), None);
        assert_eq!(pool.index_of("fd00:1::100".parse().expect("an address")), None);
    }

    #[test]
    fn an_invalid_range_is_refused_with_the_reason() {
        let refused = |ipv4, ipv6| pool(ipv4, ipv6).expect_err("refused");
        assert!(refused("10.0.0.0/31", None).contains("ipv4: `10.0.0.0/31` is too small"));
        assert!(refused("10.0.0.0/15", None).contains("ipv4: `10.0.0.0/15` is too wide"));
        assert!(refused("127.1.0.0/16", None).contains("which is loopback"));
        assert!(refused("255.255.255.0/24", None).contains("which is broadcast"));
        assert_eq!(
            refused("10.0.0.0/16", Some("fd00::/64")),
            "ipv6: `fd00::/64` has not as many addresses as `10.0.0.0/16`: write a prefix length \
                of /112"
        );
        assert!(refused("10.0.0.0/16", Some("fe80::/112")).contains("which is link-local"));
    }
}
