//! What the agent changes on its host, all of it in the network namespace that it runs in: the
//! guard route for the pool, and the shim's address on `lo`. Both carry a mark, so that only our
//! own are ever removed.

mod address;
mod guard;
mod netlink;

pub use address::{AddedAddress, ensure_address, has_address, remove_address};
pub use guard::{Guard, conflicts, guard, remove_guard};
pub use netlink::HostError;
