//! The pools of virtual addresses that an agent has recorded in its maps.

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use redirector_common::agent::AgentState;

use crate::datapath::address;

/// The pools of both families; empty if no agent has served.
pub(crate) fn pools_of(agent: &AgentState) -> Vec<IpNet> {
    if agent.abi == 0 {
        return Vec::new();
    }
    let ipv4 = IpNet::from(pool_of(agent).trunc());
    std::iter::once(ipv4).chain(pool6_of(agent).map(|net| net.trunc().into())).collect()
}

pub(crate) fn pool_of(agent: &AgentState) -> Ipv4Net {
    Ipv4Net::new_assert(agent.pool_base.octets().into(), agent.pool_prefix.min(32) as u8)
}

pub(crate) fn pool6_of(agent: &AgentState) -> Option<Ipv6Net> {
    let base = Some(agent.pool6_base).filter(|base| !base.is_unspecified())?;
    Some(Ipv6Net::new_assert(address::from_ip6(base), 96 + agent.pool_prefix.min(32) as u8))
}
