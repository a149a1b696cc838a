//! The network namespace that the agent runs in: the guard routes for the pool and the shim's
//! addresses on `lo`, which are marked, so that only ours are removed; its interfaces, and
//! the executors behind them.

mod address;
mod executor_clients;
mod guard;
mod link_watch;
mod links;
mod netlink;
mod nft_message;
mod pod_interface;
mod reset;

pub use address::{AddedAddress, ensure_address, has_address, has_route, remove_address};
pub(crate) use executor_clients::ExecutorClients;
pub use executor_clients::executor_interfaces;
pub use guard::{Guard, add_guard, can_reset, conflicting_routes, remove_guard, restore_guard};
pub use link_watch::{LinkChange, LinkChanges, LinkWatch};
pub(crate) use links::link;
pub use links::{Link, links, uplinks};
pub use netlink::HostError;
pub use pod_interface::interface_towards;
