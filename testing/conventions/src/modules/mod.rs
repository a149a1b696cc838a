//! The rules for dependencies between the files of a crate:
//!
//! 1. The graph of files has no cycle. A file depends on another if it names an item that the other
//!    defines. A re-export is followed to the definition, so a `mod.rs` that only declares and
//!    re-exports depends on nothing and nothing depends on it. `self.method()` and `Self::method()`
//!    count where the method's `impl` block stands in another file of the crate.
//! 2. No file imports from a module above its own: neither an item that is defined there, nor a
//!    sibling's item that is only re-exported there. Import from the file that defines it.
//! 3. The graph of the crate's top-level modules has no cycle either.
//!
//! Modules under `#[cfg(test)]` are left out, so `use super::*` is fine there. Code that a
//! macro generates is not seen; paths in a macro's arguments are.

mod dependencies;
mod graph;
mod references;
mod resolve;
mod rules;
mod tokens;
mod tree;

#[cfg(test)]
mod tests;

pub use self::{
    rules::{Finding, check},
    tree::Source,
};
