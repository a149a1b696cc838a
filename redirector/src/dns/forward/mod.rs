//! Forwarding to upstreams.

mod exchange;
mod forwarder;
mod listed_resolvers;
mod loop_detector;
mod looping_zones;
mod race;
mod repeats;
mod socket_pool;
mod upstream;
mod upstreams;

pub use exchange::reply_matches;
pub(crate) use forwarder::{Forwarder, Permit, QueryContext};
pub(crate) use listed_resolvers::ListedResolvers;
pub(crate) use loop_detector::LoopDetector;
pub(crate) use socket_pool::SocketPool;
pub use upstream::UpstreamHealth;
pub(crate) use upstreams::Upstreams;
