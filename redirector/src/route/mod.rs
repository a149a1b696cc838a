//! The domain: a route, from an internal name to a load balancer.

mod source;

pub use source::{SourceName, SourceNameError};

/// STUB until the config branch is merged.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RawRoute {
    /// stub
    pub source: String,
    /// stub
    pub destination: serde_json::Value,
    /// stub
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ports: Vec<String>,
}
