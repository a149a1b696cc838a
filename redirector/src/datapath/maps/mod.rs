//! The maps: what is written to them and read from them.

pub(crate) mod agent_maps;
mod allocator;
pub(crate) mod arrays;
pub(crate) mod counters;
mod exact_names;
pub(crate) mod flow_counts;
pub(crate) mod flow_expiry;
mod flow_maps;
pub(crate) mod health_words;
pub(crate) mod name_cgroups;
mod name_filter;
pub(crate) mod name_maps;
pub(crate) mod published_names;
pub(crate) mod resolvers;
pub(crate) mod route_layout;
pub(crate) mod route_maps;
mod writer;
