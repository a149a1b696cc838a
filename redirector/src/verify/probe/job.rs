//! What the probe is asked to do, and what it reports: JSON over its standard streams.

use std::{
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

use serde::{Deserialize, Serialize};

use super::{
    connect::ConnectResult, dns::DnsResult, http::HttpResult, ssh::SshResult, tls::TlsResult,
};

/// What the child does.
#[derive(Debug, Serialize, Deserialize)]
pub(in crate::verify) struct Job {
    /// The name to ask for and to present.
    pub(in crate::verify) name: String,
    pub(in crate::verify) port: u16,
    /// The names to look up, in this order, until one has an address.
    pub(in crate::verify) candidates: Vec<String>,
    /// The one whose route is verified.
    pub(in crate::verify) wanted: String,
    /// The cgroup to join.
    pub(in crate::verify) cgroup: Option<PathBuf>,
    /// The process whose network namespace to join.
    pub(in crate::verify) pid: Option<u32>,
    /// The network namespace of a guest to join, instead of a process's.
    #[serde(default)]
    pub(in crate::verify) netns: Option<PathBuf>,
    /// What /etc/hosts says; DNS is not asked then.
    pub(in crate::verify) hosts: Option<IpAddr>,
    pub(in crate::verify) nameservers: Vec<SocketAddr>,
    /// The virtual addresses of the route: anything else is not connected to.
    pub(in crate::verify) expected: Vec<IpAddr>,
    /// Trusted authorities, PEM.
    pub(in crate::verify) roots: String,
    /// Where to stop.
    pub(in crate::verify) until: Until,
    /// What is spoken.
    pub(in crate::verify) protocol: Protocol,
    /// Whether an SSH server is as good as TLS.
    pub(in crate::verify) may_be_ssh: bool,
    /// The path to ask for.
    pub(in crate::verify) path: String,
    /// For each step.
    pub(in crate::verify) timeout: Duration,
    /// An address of the load balancer, to learn which source address the kernel takes towards it.
    pub(in crate::verify) backend: Option<SocketAddr>,
}

/// What is spoken on the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(in crate::verify) enum Protocol {
    /// HTTP over TLS.
    Tls,
    /// HTTP.
    Plain,
    /// SSH.
    Ssh,
}

/// The last step that is done.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Serialize,
    Deserialize,
    clap::ValueEnum,
)]
#[serde(rename_all = "snake_case")]
pub enum Until {
    /// The name is resolved
    Dns,
    /// A connection is made; for servers that use neither TLS nor HTTP
    Connect,
    /// The certificate is checked, or an SSH banner read
    Tls,
    /// An HTTP status is received
    #[default]
    Http,
}

/// What the child saw. A step that was not reached is absent.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(in crate::verify) struct ProbeResult {
    /// Why the location could not be entered.
    pub(in crate::verify) entry_failure: Option<EntryFailure>,
    pub(in crate::verify) dns: Option<DnsResult>,
    /// The candidate that `dns` is about.
    pub(in crate::verify) answered_as: Option<String>,
    pub(in crate::verify) connect: Option<ConnectResult>,
    pub(in crate::verify) tls: Option<TlsResult>,
    pub(in crate::verify) http: Option<HttpResult>,
    pub(in crate::verify) ssh: Option<SshResult>,
    /// The source address that the executor's kernel takes towards the load balancer.
    pub(in crate::verify) source: Option<IpAddr>,
}

/// Why a location could not be entered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::verify) struct EntryFailure {
    pub(in crate::verify) why: String,
    /// Whether it is for want of privileges.
    pub(in crate::verify) not_permitted: bool,
}
