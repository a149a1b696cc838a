//! The domain: a route, from an internal name to a load balancer, and where routes come from.
//!
//! A [`Route`] is always whole and valid; [`RawRoute`] is how a person or a program writes one.
//! [`RouteSet`] is what serves: the configuration file's routes, overlaid by those that the command
//! line and imports put into the [`Store`].

mod destination;
mod diff;
mod edit;
pub mod export;
pub mod import;
mod patch;
mod ports;
mod raw;
mod set;
mod source;
mod store;

use std::{fmt, net::IpAddr, net::SocketAddr, str::FromStr, time::Duration};

/// What the tables in the kernel hold for one route.
pub use redirector_common::abi::{MAX_BACKENDS, MAX_PORTS, MAX_SOURCES};

pub use destination::{Destination, DestinationError};
pub use diff::{RouteChange, RouteDiff};
pub use edit::Edit;
pub use patch::{Field, RoutePatch};
pub use ports::{PortError, PortMap, PortPair};
pub use raw::{RawDestination, RawRoute, RouteProblems};
pub use set::{EffectiveRoute, RouteSet, RouteSetError};
pub use source::{SourceName, SourceNameError};
pub(crate) use store::RouteOnDisk;
pub use store::{Opened, Store, StoreError, StoredRoute};

/// A source, and where connections to it go instead.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// The internal name.
    pub source: SourceName,
    /// The load balancer.
    pub destination: Destination,
    /// Which ports are redirected, and to which.
    pub ports: PortMap,
    /// Who resolves the destination's name; `None`: the configured upstreams.
    pub resolver: Option<SocketAddr>,
    /// Addresses of this host to connect from; empty: the kernel's choice.
    pub source_ips: Vec<IpAddr>,
    /// What becomes of a connect when no backend is known.
    pub on_no_backend: OnNoBackend,
    /// After how much silence the load balancer drops a connection, in whole milliseconds;
    /// keepalive is set below it.
    pub idle_timeout: Option<Duration>,
}

/// What becomes of a connect to a route without backends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnNoBackend {
    /// It is refused at once.
    #[default]
    Refuse,
    /// It is left alone.
    Pass,
}

/// A text that is no [`OnNoBackend`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is not known: write `refuse` (the connect fails at once) or `pass` (it is left alone)"
)]
pub struct OnNoBackendError(String);

impl FromStr for OnNoBackend {
    type Err = OnNoBackendError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "refuse" => Ok(Self::Refuse),
            "pass" => Ok(Self::Pass),
            other => Err(OnNoBackendError(other.into())),
        }
    }
}

impl fmt::Display for OnNoBackend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Refuse => "refuse",
            Self::Pass => "pass",
        })
    }
}

/// Where a route comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RouteOrigin {
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
            Self::File => "file",
            Self::CommandLine => "command line",
            Self::Import => "import",
        })
    }
}
