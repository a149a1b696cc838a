//! Where the programs are attached: to cgroups and to interfaces.

pub(crate) mod cgroups;
pub(crate) mod globs;
pub(crate) mod held;
pub(crate) mod hierarchy;
mod intact;
pub(crate) mod interfaces;
pub(crate) mod links;
pub(crate) mod pods;
mod presets;
