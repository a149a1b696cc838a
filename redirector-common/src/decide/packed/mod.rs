//! Packed words: what one step of a decision passes to the next, and what global functions take
//! and return. Each type documents its layout and hides it behind constructors and accessors.
//!
//! They are packed since a value that lives across a call is spilled to the stack, and a kernel
//! that loads programs without CAP_PERFMON puts a speculation barrier behind the first store to
//! each stack slot. One word stays in one register. Global functions take and return integers
//! only: pointers need 5.12.
//!
//! Flags are set and tested by arithmetic where a branch would be one more state for the verifier.

mod block_read;
mod client_key;
mod denial;
mod draw;
mod port_lookup;
mod selection;
#[cfg(test)]
mod tests;

pub(super) use block_read::BlockRead;
pub use client_key::{ClientKey, Families};
pub use denial::Denial;
pub use draw::{Candidates, Draw, DrawInput};
pub use port_lookup::{PortLookup, PortPairs};
pub use selection::Selection;
