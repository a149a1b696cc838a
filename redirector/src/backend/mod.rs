//! The addresses behind each destination, followed as its name changes, and whether a backend
//! accepts connections.
//!
//! Names are looked up as they are (no search domains, no hosts file), A and AAAA both, through
//! CNAMEs. An answer is valid for its TTL, within 1 s and 5 min; a failure keeps the last
//! addresses; only an authoritative "no such address", three times in a row, empties a route.
//! Selecting an address is the datapath's task.

mod address_cache;
mod follow_state;
mod follow_task;
mod follower;
mod lookup;
mod marked_runtime;
mod probe;
mod resolution;
mod target;

pub use address_cache::BackendError;
pub use follow_task::ResolvedTargets;
pub use follower::{Follower, FollowerSettings};
pub use probe::probe;
pub use target::{Freshness, Resolved, Target};
