//! Attaching to cgroups.

pub(crate) mod cgroups;
mod foreign_programs;
mod hierarchy;
mod interfaces;
mod pods;
mod removed;
mod scope;
