//! The side of the shim that faces clients.

mod intercept_ports;
mod listener;
mod server;
mod tcp;
mod udp;
mod udp_batch;

pub(crate) use intercept_ports::Asked;
pub use intercept_ports::{ResolverOfSlot, SlotPorts};
pub use listener::BindError;
pub use server::{BoundShim, Publisher, ShimSettings, bind};
