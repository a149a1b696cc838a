//! Attaching the packet programs to interfaces.

pub(crate) mod attacher;
mod clsact;
mod elements;
mod hook;
pub(crate) mod neighbours;
pub(crate) mod pinned;
pub(crate) mod removal;
pub(crate) mod target;
mod tcx;
