//! From what the probe saw to the probable cause and the next step. Pure.

mod connect;
mod dns;
mod facts;
mod http;
mod session;
mod ssh;
mod steps;
mod tls;

pub(super) use self::{facts::Facts, steps::diagnose};
