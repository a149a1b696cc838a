//! The packages and tools that the tasks need, and their installation.

mod apt;
pub(crate) mod cargo_tools;
mod debian_root;
pub(crate) mod needs;
mod plan;
pub(crate) mod private_apt;
mod python;
mod run;
pub(crate) mod toolchain;
mod unpacked;

pub(crate) use run::{Args, ensure, run};
