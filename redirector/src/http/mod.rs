//! Serving HTTP to clients that may be hostile: a bounded number of connections, each with bounded
//! memory and time.

mod connections;
mod serve;

pub(crate) use connections::{Connection, Connections};
pub(crate) use serve::{Lifetime, ServeLimits, accept_failed, serve_connection};
