//! The host's network as the agent needs it: its nameservers, its own addresses, the owners of
//! ports, and the mark on our own sockets.

mod local_networks;
pub mod nameservers;
mod port_owner;
pub(crate) mod socket_mark;

pub(crate) use local_networks::HostNetworks;
pub use nameservers::{Nameservers, RESOLV_CONF};
pub use port_owner::Holder;
