//! The host's network: its nameservers, its own addresses, the process that has a port, the mark on
//! our own sockets, and a socket for requests to the kernel.

mod local_networks;
pub mod nameservers;
mod port_owner;
pub(crate) mod route_socket;
pub(crate) mod socket_mark;
mod transport;

pub(crate) use local_networks::LocalNetworks;
pub use nameservers::{Nameservers, RESOLV_CONF};
pub use port_owner::PortOwner;
pub use transport::Transport;
