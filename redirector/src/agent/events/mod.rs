//! Events of single connects.

pub(crate) mod feed;
mod process_names;
pub(crate) mod pump;
mod sampling;
