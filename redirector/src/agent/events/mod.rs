//! Events of single connects.

pub(crate) mod process_names;
pub(crate) mod pump;
