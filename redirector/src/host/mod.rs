//! What the agent changes on its host, in the network namespace that it runs in: the guard route
//! for the pool, and the shim's address on `lo`. Both are marked, so that only ours are removed.

mod address;
mod guard;
mod netlink;

pub use address::{AddedAddress, ensure_address, has_address, remove_address};
pub use guard::{Guard, conflicts, guard, remove_guard};
pub use netlink::HostError;
