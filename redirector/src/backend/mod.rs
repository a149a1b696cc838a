//! The addresses behind each destination, followed as its name changes, and whether a backend
//! accepts connections.
//!
//! Names are looked up without search domains and hosts file, for A and AAAA, and through CNAMEs.
//! An answer is valid for its TTL, limited to 1 s to 5 min. A failure keeps the last addresses;
//! only three consecutive authoritative answers without an address of a family remove that
//! family's. The datapath selects an address for each connect.

mod address_cache;
mod address_policy;
mod family_addresses;
mod follow_state;
mod follow_task;
mod follower;
mod lookup;
mod once;
mod probe;
mod resolution;
mod target;

pub use address_cache::BackendError;
pub use address_policy::{RejectReason, RejectedAddress};
pub use follower::{Follower, FollowerSettings};
pub use lookup::replay;
pub use once::look_up;
pub use probe::probe;
pub use target::{Freshness, Resolved, Target};
