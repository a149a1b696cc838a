//! The types, names and decisions that the programs in the kernel and the agent share.
//!
//! Table types are integers and byte arrays, `#[repr(C)]`, with explicit zeroed padding; their
//! sizes are asserted at compile time. Types state the byte order. Every decision on which both
//! sides must agree is a pure function in [`decide`], tested on the host.
#![no_std]

#[cfg(any(test, feature = "user"))]
extern crate std;

pub mod abi;
pub mod addr;
pub mod agent;
pub mod backend;
mod bits;
pub mod decide;
pub mod dns;
pub mod event;
pub mod event_budget;
pub mod names;
pub mod origin;
pub mod packet;
pub mod route;
pub mod sampling;
pub mod stats;
mod table_type;
mod unroll;
