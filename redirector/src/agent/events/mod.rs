//! Events of single connects.

pub(crate) mod feed;
pub(crate) mod pod_names;
mod process_names;
pub(crate) mod pump;
mod sampling;
