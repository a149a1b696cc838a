//! The child that acts from the executor's place. It is this program once more, single-threaded and
//! blocking: it joins the cgroup and the network namespace first, then does what a client does, and
//! tells what it saw. It judges nothing.

mod connect;
mod dns;
mod http;
mod tls;

use std::{
    fs::File,
    io::{Read, Write},
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

use anyhow::Context as _;
use rustix::{
    fd::AsFd,
    thread::{LinkNameSpaceType, move_into_link_name_space},
};
use serde::{Deserialize, Serialize};

pub use self::tls::CertificateSeen;
pub(super) use self::{
    connect::{ConnectSeen, Io, source_towards},
    dns::DnsSeen,
    http::HttpSeen,
    tls::{TlsFailure, TlsSeen},
};

/// What the child is to do.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Job {
    /// The name to ask for and to present.
    pub(super) name: String,
    pub(super) port: u16,
    /// The cgroup to join.
    pub(super) cgroup: Option<PathBuf>,
    /// The process whose network namespace to join.
    pub(super) pid: Option<u32>,
    /// What /etc/hosts says; DNS is not asked then.
    pub(super) hosts: Option<IpAddr>,
    pub(super) nameservers: Vec<SocketAddr>,
    /// The virtual addresses of the route: anything else is not connected to.
    pub(super) expected: Vec<IpAddr>,
    /// Trusted authorities, PEM.
    pub(super) roots: String,
    /// Where to stop.
    pub(super) until: Until,
    /// Whether TLS is spoken.
    pub(super) tls: bool,
    /// For each step.
    pub(super) patience: Duration,
    /// An address of the load balancer, to learn which source address the kernel takes towards it.
    pub(super) backend: Option<SocketAddr>,
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
    /// A connection is made: for what speaks neither TLS nor HTTP
    Connect,
    /// The certificate is checked
    Tls,
    /// An HTTP status has come
    #[default]
    Http,
}

/// What the child saw. A step that was not reached is absent.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Seen {
    /// Why the place could not be entered.
    pub(super) no_entry: Option<NoEntry>,
    pub(super) dns: Option<DnsSeen>,
    pub(super) connect: Option<ConnectSeen>,
    pub(super) tls: Option<TlsSeen>,
    pub(super) http: Option<HttpSeen>,
    /// The source address that the executor's kernel takes towards the load balancer.
    pub(super) source: Option<IpAddr>,
}

/// Why a place could not be entered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct NoEntry {
    pub(super) why: String,
    /// Whether it is for want of privileges.
    pub(super) not_permitted: bool,
}

/// The child's whole life: a job on `input`, what was seen on `output`.
///
/// # Errors
/// When the job can't be read or the answer can't be written; whatever goes wrong between is part
/// of the answer.
pub(crate) fn child(input: &mut dyn Read, output: &mut dyn Write) -> anyhow::Result<()> {
    let job: Job = serde_json::from_reader(input)
        .context("failed to read the job: this command is for `redirector verify` itself")?;
    let seen = match enter(&job) {
        Ok(()) => act(&job),
        Err(error) => Seen {
            no_entry: Some(NoEntry {
                not_permitted: error.chain().any(is_permission),
                why: crate::error::error_chain(error.as_ref()),
            }),
            ..Seen::default()
        },
    };
    serde_json::to_writer(&mut *output, &seen).context("failed to write what was seen")?;
    output.flush().context("failed to write what was seen")
}

fn is_permission(cause: &(dyn std::error::Error + 'static)) -> bool {
    cause
        .downcast_ref::<std::io::Error>()
        .is_some_and(|error| error.kind() == std::io::ErrorKind::PermissionDenied)
}

/// The cgroup first: the namespace may not show it.
fn enter(job: &Job) -> anyhow::Result<()> {
    let net = |pid: u32| {
        File::open(format!("/proc/{pid}/ns/net"))
            .with_context(|| format!("failed to open the network of process {pid}"))
    };
    let net = job.pid.map(net).transpose()?;
    if let Some(cgroup) = &job.cgroup {
        std::fs::write(cgroup.join("cgroup.procs"), "0")
            .with_context(|| format!("failed to join the cgroup {}", cgroup.display()))?;
    }
    if let Some(net) = net {
        move_into_link_name_space(net.as_fd(), Some(LinkNameSpaceType::Network))
            .map_err(std::io::Error::from)
            .with_context(|| {
                format!(
                    "failed to join the network namespace of process {}",
                    job.pid.unwrap_or_default()
                )
            })?;
    }
    Ok(())
}

fn act(job: &Job) -> Seen {
    let mut seen =
        Seen { source: job.backend.and_then(connect::source_towards), ..Seen::default() };
    let dns = match job.hosts {
        Some(address) => DnsSeen::Hosts { address },
        None => dns::ask(&job.name, &job.nameservers, job.patience),
    };
    let address = dns.address();
    seen.dns = Some(dns);
    let Some(address) =
        address.filter(|address| job.until >= Until::Connect && job.expected.contains(address))
    else {
        return seen;
    };
    let (stream, connect) = connect::connect(SocketAddr::new(address, job.port), job.patience);
    seen.connect = Some(connect);
    let Some(stream) = stream.filter(|_| job.until >= Until::Tls) else { return seen };
    if !job.tls {
        seen.http =
            (job.until >= Until::Http).then(|| http::ask(&mut &stream, &job.name, job.port, false));
        return seen;
    }
    let (session, tls) = tls::shake(&stream, &job.name, &job.roots);
    seen.tls = Some(tls);
    if let Some(mut session) = session.filter(|_| job.until >= Until::Http) {
        seen.http = Some(http::ask(
            &mut rustls::Stream::new(&mut session, &mut &stream),
            &job.name,
            job.port,
            true,
        ));
    }
    seen
}
