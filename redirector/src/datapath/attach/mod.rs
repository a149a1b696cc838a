//! Which cgroups the programs are attached to, and the links that attach them.

pub(crate) mod cgroups;
pub(crate) mod links;
