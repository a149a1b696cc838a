//! The domain: a route, from an internal name to a load balancer.

mod source;

pub use source::{SourceName, SourceNameError};
