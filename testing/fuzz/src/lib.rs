//! The properties that hold for any bytes: each target takes an input and panics if one fails.

mod dns;
mod documents;
mod http;
mod lookup;
mod requests;

pub use dns::{query, reply};
pub use documents::{config, hosts, import, resolv_conf};
pub use http::http;
pub use lookup::answer;
pub use requests::request;
