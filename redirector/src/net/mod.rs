//! The host's network: its nameservers, sockets that another process has opened, the process that
//! has a port, queries that wait, the TCP sockets, the cgroups that have connections, the source
//! ports in use, the shares of clients, the mark on our own sockets, and a socket for requests to
//! the kernel.

mod client_shares;
mod inherited_sockets;
pub mod nameservers;
mod port_owner;
mod query_journal;
pub(crate) mod route_socket;
mod search_list;
pub(crate) mod socket_mark;
mod source_ports;
mod tcp_owners;
mod tcp_sockets;
mod transport;

pub(crate) use client_shares::{ClientShare, ClientShares, NoShare, client_key};
pub use inherited_sockets::InheritedSockets;
pub(crate) use inherited_sockets::socket_name;
pub use nameservers::{Nameservers, RESOLV_CONF};
pub use port_owner::PortOwner;
pub(crate) use query_journal::{Noted, QueryJournal, Unanswered, unanswered};
pub use search_list::SearchList;
pub use source_ports::{SourcePorts, source_ports};
pub use tcp_owners::tcp_owners;
pub use tcp_sockets::{TcpSocket, tcp_sockets};
pub use transport::Transport;
