//! The domain: a route, from an internal name to a load balancer.

mod source;

pub use source::{SourceName, SourceNameError};
/// pair
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PortPair {
    /// c
    pub client: u16,
    /// d
    pub destination: u16,
}
/// policy
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnNoBackend {
    /// refuse
    #[default]
    Refuse,
    /// pass
    Pass,
}
