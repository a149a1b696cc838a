//! The domain: a route, from an internal name to a load balancer.

mod destination;
mod source;

pub use destination::Destination;
pub use source::{SourceName, SourceNameError};
