//! Where a route comes from.

use std::fmt;

/// Where a route comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RouteOrigin {
    /// A `RedirectRoute` of the cluster.
    Cluster,
    /// The configuration file.
    File,
    /// `redirector route add` or `set`, or the API.
    CommandLine,
    /// `redirector route import`.
    Import,
}

impl fmt::Display for RouteOrigin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Cluster => "cluster",
            Self::File => "file",
            Self::CommandLine => "command line",
            Self::Import => "import",
        })
    }
}
