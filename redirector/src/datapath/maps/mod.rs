//! The maps: what is written to them and read from them.

mod allocator;
pub(crate) mod arrays;
pub(crate) mod counters;
pub(crate) mod resolver_slots;
pub(crate) mod route_layout;
pub(crate) mod routes;
pub(crate) mod tables;
mod writer;
