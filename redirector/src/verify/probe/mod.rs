//! The probe: what it is asked, what it does, and what it reports.

mod child;
mod connect;
mod dns;
mod http;
mod io_failure;
mod job;
mod tls;

pub(crate) use self::child::child;
pub(super) use self::{
    connect::{ConnectResult, source_towards},
    dns::DnsResult,
    http::HttpResult,
    io_failure::IoFailure,
    job::{Job, ProbeResult},
    tls::{TlsFailure, TlsResult},
};
pub use self::{job::Until, tls::CertificateInfo};
