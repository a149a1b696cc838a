//! Virtual addresses: the pool that they come from and which source has which.
//!
//! A VIP is an index into the pool, so the kernel finds a route by an array element and nothing has
//! to be looked up by address.

mod leases;
mod pool;

pub(crate) use leases::leased;
pub use leases::{LeaseChange, LeaseError, LeaseWarning, Leases};
pub use pool::{Pool, PoolError};
