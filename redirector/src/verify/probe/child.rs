//! The child that acts from the executor's location. It is this program again, single-threaded and
//! blocking: it joins the cgroup and the network namespace, does what a client does, and reports
//! what it saw. It draws no conclusions.

use std::{
    fs::File,
    io::{Read, Write},
    net::SocketAddr,
    path::PathBuf,
};

use anyhow::Context as _;
use rustix::{
    fd::AsFd,
    thread::{LinkNameSpaceType, move_into_link_name_space},
};

use super::{
    connect,
    dns::{self, DnsResult},
    http,
    job::{EntryFailure, Job, ProbeResult, Protocol, Until},
    ssh::{self, SshResult},
    timed_stream::TimedStream,
    tls::{self, TlsFailure, TlsResult},
};
use crate::error::error_chain;

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
        Err(error) => ProbeResult {
            entry_failure: Some(EntryFailure {
                not_permitted: error.chain().any(is_permission),
                why: error_chain(error.as_ref()),
            }),
            ..ProbeResult::default()
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
    let of_process = || job.pid.map(|pid| PathBuf::from(format!("/proc/{pid}/ns/net")));
    let path = job.netns.clone().or_else(of_process);
    let open = |path: &PathBuf| {
        File::open(path)
            .with_context(|| format!("failed to open the network namespace {}", path.display()))
    };
    let net = path.as_ref().map(open).transpose()?;
    if let Some(cgroup) = &job.cgroup {
        std::fs::write(cgroup.join("cgroup.procs"), "0")
            .with_context(|| format!("failed to join the cgroup {}", cgroup.display()))?;
    }
    if let Some(net) = net {
        move_into_link_name_space(net.as_fd(), Some(LinkNameSpaceType::Network))
            .map_err(std::io::Error::from)
            .with_context(|| {
                let path = path.unwrap_or_default();
                format!("failed to join the network namespace {}", path.display())
            })?;
    }
    Ok(())
}

fn act(job: &Job) -> ProbeResult {
    let mut seen = ProbeResult {
        source: job.backend.and_then(connect::source_towards),
        ..ProbeResult::default()
    };
    let dns = match job.hosts {
        Some(address) => DnsResult::Hosts { address },
        None => {
            let (name, result) =
                dns::walk(&job.candidates, &job.wanted, &job.nameservers, job.timeout);
            seen.answered_as = Some(name);
            result
        }
    };
    let address = dns.address();
    seen.dns = Some(dns);
    let Some(address) =
        address.filter(|address| job.until >= Until::Connect && job.expected.contains(address))
    else {
        return seen;
    };
    let (stream, connect) = connect::connect(SocketAddr::new(address, job.port), job.timeout);
    seen.connect = Some(connect);
    let Some(mut stream) = stream.filter(|_| job.until >= Until::Tls) else { return seen };
    stream.begin_step(job.timeout);
    match job.protocol {
        Protocol::Plain if job.until >= Until::Http => {
            seen.http = Some(http::ask(&mut stream, &host(job), &job.path));
        }
        Protocol::Plain => {}
        Protocol::Ssh => seen.ssh = Some(ssh::listen(&mut stream)),
        Protocol::Tls => speak_tls(&mut stream, job, &mut seen),
    }
    seen
}

/// The name as a client puts it into `Host`.
fn host(job: &Job) -> String {
    let default = if job.protocol == Protocol::Plain { 80 } else { 443 };
    if job.port == default { job.name.clone() } else { format!("{}:{}", job.name, job.port) }
}

fn speak_tls(stream: &mut TimedStream, job: &Job, seen: &mut ProbeResult) {
    let (session, tls) = tls::handshake(stream, &job.name, &job.roots);
    match tls {
        TlsResult::Failed { why: TlsFailure::NotTls { begins }, .. }
            if job.may_be_ssh && begins.starts_with(ssh::BANNER) =>
        {
            seen.ssh = Some(SshResult::Banner { banner: begins });
        }
        other => seen.tls = Some(other),
    }
    if let Some(mut session) = session.filter(|_| job.until >= Until::Http) {
        stream.begin_step(job.timeout);
        seen.http =
            Some(http::ask(&mut rustls::Stream::new(&mut session, stream), &host(job), &job.path));
    }
}
