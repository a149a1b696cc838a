//! The probe: what it is asked, what it does, and what it reports.

mod child;
mod connect;
mod dns;
mod http;
mod io_failure;
mod job;
mod ssh;
mod timed_stream;
mod tls;

pub(crate) use self::child::child;
pub(super) use self::{
    connect::{ConnectResult, source_towards},
    dns::DnsResult,
    http::{HttpResult, Reference},
    io_failure::IoFailure,
    job::{Job, ProbeResult, Protocol, longest_time},
    ssh::SshResult,
    tls::{TlsFailure, TlsResult},
};
pub use self::{
    http::{Referrer, read_references},
    job::Until,
    ssh::read_banner,
    tls::CertificateInfo,
};
