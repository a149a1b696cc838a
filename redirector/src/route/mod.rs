//! The domain: a route, from an internal name to a load balancer, and where routes come from.
//!
//! A [`Route`] is always whole and valid; [`RawRoute`] is how a person or a program writes one.
//! [`RouteSet`] is the set in effect: the configuration file's routes, overlaid by those that the
//! command line and imports put into the [`Store`].

mod definition;
mod destination;
mod diff;
mod edit;
pub mod export;
mod foreign_formats;
pub mod import;
mod on_no_backend;
mod origin;
mod patch;
mod pool_check;
mod ports;
mod problems;
mod raw;
mod set;
mod source;
mod store;

pub use definition::Route;
pub use destination::{Destination, DestinationError};
pub use diff::{RouteChange, RouteDiff};
pub use edit::Edit;
pub use on_no_backend::{OnNoBackend, OnNoBackendError};
pub use origin::RouteOrigin;
pub use patch::{Field, RoutePatch};
pub use pool_check::check_outside_pool;
pub use ports::{PortError, PortMap, PortPair};
pub use problems::RouteProblems;
pub use raw::{RawDestination, RawRoute};
pub use set::{EffectiveRoute, RouteSet, RouteSetError};
pub use source::{SourceName, SourceNameError, Wildcard};
pub(crate) use store::RouteOnDisk;
pub use store::{OpenedStore, Store, StoreError, StoredRoute, StoredRoutes};

/// What the kernel's tables hold for one route.
pub use redirector_common::abi::{MAX_BACKENDS, MAX_PORTS, MAX_SOURCES};
