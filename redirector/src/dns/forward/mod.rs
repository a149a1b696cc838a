//! The side of the shim that faces upstreams.

mod exchange;
mod forwarder;
mod loop_detector;
mod socket_pool;
mod upstreams;

pub use exchange::fits;
pub(crate) use exchange::{Transport, framed};
pub(crate) use forwarder::{Forwarder, Place, Way};
pub(crate) use loop_detector::Loops;
pub(crate) use socket_pool::Sockets;
pub use upstreams::UpstreamHealth;
pub(crate) use upstreams::{Candidates, Upstream, Upstreams};
