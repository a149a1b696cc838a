//! The agent's changes to the network namespace that it runs in: the guard routes for the pool, and
//! the shim's addresses on `lo`. They are marked, so that only ours are removed.

mod address;
mod guard;
mod netlink;

pub use address::{AddedAddress, ensure_address, has_address, has_route, remove_address};
pub use guard::{Guard, add_guard, conflicting_routes, remove_guard};
pub use netlink::HostError;
