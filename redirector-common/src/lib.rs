//! What the programs in the kernel and the agent share.
//!
//! Layouts are integers and byte arrays, `#[repr(C)]`, with explicit zeroed padding; sizes are
//! asserted at compile time. Byte order lives in the type. Every decision that both sides must
//! agree on is a pure function in [`decide`], tested on the host.
#![no_std]

pub mod abi;
pub mod addr;
pub mod agent;
pub mod backend;
pub mod decide;
pub mod dns;
pub mod event;
pub mod names;
pub mod origin;
pub mod route;
pub mod sampling;
pub mod stats;
mod table_type;
