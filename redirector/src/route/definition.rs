//! A route: an internal name, and the load balancer that connections to it go to.

use std::{net::IpAddr, net::SocketAddr, time::Duration};

use super::{
    destination::Destination, on_no_backend::OnNoBackend, ports::PortMap, source::SourceName,
};

/// A source, and where connections to it go instead.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// The internal name.
    pub source: SourceName,
    /// The load balancer.
    pub destination: Destination,
    /// Which ports are redirected, and to which.
    pub ports: PortMap,
    /// The DNS server that resolves the destination's name; `None`: the configured upstreams.
    pub resolver: Option<SocketAddr>,
    /// Addresses of this host to connect from; empty: the kernel's choice.
    pub source_ips: Vec<IpAddr>,
    /// What a connect gets when no backend is known.
    pub on_no_backend: OnNoBackend,
    /// After how much silence the load balancer drops a connection, in whole milliseconds;
    /// keepalive is set below it.
    pub idle_timeout: Option<Duration>,
}
