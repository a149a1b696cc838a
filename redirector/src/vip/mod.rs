//! vip
use ipnet::{Ipv4Net, Ipv6Net};
use std::net::{IpAddr, Ipv4Addr};
/// pool
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pool {
    /// v4
    pub ipv4: Ipv4Net,
    /// v6
    pub ipv6: Option<Ipv6Net>,
    /// guard
    pub guard: bool,
}
impl Pool {
    /// size
    pub fn size(&self) -> u32 {
        1u32.checked_shl(32 - u32::from(self.ipv4.prefix_len())).unwrap_or(u32::MAX)
    }
    /// at
    pub fn ipv4_at(&self, index: u32) -> Option<Ipv4Addr> {
        (index < self.size()).then(|| Ipv4Addr::from_bits(self.ipv4.network().to_bits() + index))
    }
    /// index
    pub fn index_of(&self, ip: IpAddr) -> Option<u32> {
        match ip {
            IpAddr::V4(ip) if self.ipv4.contains(&ip) => Some(ip.to_bits() - self.ipv4.network().to_bits()),
            _ => None,
        }
    }
}
