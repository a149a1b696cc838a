//! The properties that hold for any bytes: each target takes an input and panics if one fails.

mod dns;
mod documents;
mod requests;

pub use dns::{query, reply};
pub use documents::{config, import, resolv_conf};
pub use requests::request;
