//! What is known before anything is explained.

use std::net::SocketAddr;

use crate::{control::api::Status, datapath::ForeignProgram, verify::process::Process};

/// What is known.
pub(crate) struct ExplainFacts<'a> {
    pub(crate) status: &'a Status,
    pub(crate) process: Option<&'a Process>,
    /// The interface whose guest connects.
    pub(crate) interface: Option<&'a str>,
    /// Who connects, as ejections name it.
    pub(crate) client: Option<String>,
    /// Where the shim listens.
    pub(crate) shim: &'a [SocketAddr],
    /// Programs of others on the hooks above the process, or above what is attached.
    pub(crate) others: &'a [ForeignProgram],
}
