//! Verifies a route for real, from an executor's location.

use std::{
    net::{IpAddr, SocketAddr},
    path::Path,
};

use anyhow::Context as _;

use super::{
    candidates::{candidates, meant},
    causes::{guest_kernel, no_route, not_attached},
    diagnose::{Facts, diagnose},
    follow::{Lead, MAX_FOLLOWED, lead},
    job::{VerifyOptions, acceptance, backend, expected_sources, job, protocol},
    lookups::covering,
    probe::{HttpResult, Protocol, Reference, TlsResult, source_towards},
    probe_cgroup::{self, ProbeCgroup},
    probe_process,
    process::Process,
    report::{Followed, SourceAddresses, Vantage, Verified},
    target::route_for,
};
use crate::{
    control::api::{Status, VERSION},
    datapath,
};

/// Connects as an executor does, and where the answers send it. `read` reads the status again.
///
/// # Errors
/// When the executor's location can't be entered, or the authorities can't be read.
pub(crate) fn verify(
    wanted: &VerifyOptions,
    status: &Status,
    read: impl Fn() -> Option<Status>,
) -> anyhow::Result<Verified> {
    let (mut verified, references) = verify_one(wanted, status, &read)?;
    let target = wanted.target.clone();
    let mut open: Vec<_> = references.into_iter().map(|one| (target.clone(), one)).rev().collect();
    let mut seen = vec![target];
    while let Some((from, reference)) = open.pop() {
        let target = match lead(&from, &reference, &status.routes) {
            Lead::Unmapped(finding) => {
                verified.findings.push(finding);
                continue;
            }
            Lead::Route(target) => target,
        };
        if seen.contains(&target) || seen.len() > MAX_FOLLOWED {
            continue;
        }
        seen.push(target.clone());
        let plain = wanted.plain && target.scheme.is_none();
        let hop = VerifyOptions { target: target.clone(), plain, ..wanted.clone() };
        let (one, references) = verify_one(&hop, status, &read)?;
        let (by, url) = (reference.by, target.url());
        verified.followed.push(Followed { by, url, route: one.route, steps: one.steps });
        let known = verified.findings.clone();
        verified.findings.extend(one.findings.into_iter().filter(|one| !known.contains(one)));
        verified.ok &= one.ok;
        open.extend(references.into_iter().map(|one| (target.clone(), one)).rev());
    }
    Ok(verified)
}

/// As [`verify`], one target. Returns where the answer sends the client, too.
fn verify_one(
    wanted: &VerifyOptions,
    status: &Status,
    read: &impl Fn() -> Option<Status>,
) -> anyhow::Result<(Verified, Vec<Reference>)> {
    let name = wanted.target.name.clone();
    let mut verified = Verified {
        version: VERSION,
        ok: false,
        name: name.clone(),
        port: wanted.target.port,
        route: None,
        answered_as: None,
        vantage: None,
        steps: vec![],
        followed: vec![],
        findings: vec![],
        certificate: None,
        source: SourceAddresses::default(),
        command: None,
    };
    let candidates = candidates(&wanted.target, wanted.process.as_ref(), &status.routes);
    let Some((served, route)) = meant(&wanted.target, &candidates, &status.routes) else {
        verified.findings.push(no_route(&name, &status.routes));
        return Ok((verified, Vec::new()));
    };
    verified.route.clone_from(&route.source);
    let is_ssh = protocol(wanted, route) == Protocol::Ssh;
    verified.command = acceptance(&wanted.target, is_ssh, route);
    if let Some(guest) = wanted.process.as_ref().and_then(guest_kernel) {
        verified.findings.push(guest);
        return Ok((verified, Vec::new()));
    }
    let Some(room) = room(wanted, status)? else {
        verified.findings.push(not_attached());
        return Ok((verified, Vec::new()));
    };
    let backend = backend(route, wanted.target.port);
    let job = job(wanted, (&candidates, served, route), room.to_join(), backend)?;
    let vantage = Vantage {
        cgroup: room.path().to_owned(),
        process: wanted.process.clone(),
        guest: wanted.guest.clone(),
        nameservers: job.nameservers.iter().map(SocketAddr::ip).collect(),
    };
    let seen = probe_process::run(&job)?;
    drop(room);

    let after = read();
    verified.source = SourceAddresses {
        expected: expected_sources(route),
        executor: seen.source,
        node: backend.and_then(source_towards),
    };
    verified.certificate = match &seen.tls {
        Some(TlsResult::Done { certificate, .. } | TlsResult::Failed { certificate, .. }) => {
            certificate.clone()
        }
        None => None,
    };
    let attachments = status
        .datapath
        .as_ref()
        .map(|datapath| datapath.attachments.as_slice())
        .unwrap_or_default();
    let pool = status
        .datapath
        .as_ref()
        .and_then(|datapath| datapath.pool_ipv4.parse::<ipnet::Ipv4Net>().ok());
    let facts = Facts {
        name: &name,
        wanted: served,
        asked: candidates.iter().find(|asked| Some(&asked.name) == seen.answered_as.as_ref()),
        port: wanted.target.port,
        before: route,
        after: after.as_ref().and_then(|status| route_for(served, &status.routes)),
        agent: status.agent.is_some(),
        listen: &wanted.shim,
        in_pool: &|address| match address {
            IpAddr::V4(address) => pool.is_some_and(|pool| pool.contains(&address)),
            IpAddr::V6(_) => false,
        },
        attached: wanted.guest.is_some() || attachments.iter().any(|at| at.live),
        // A guest's connects are redirected by packet.
        covered: wanted.guest.is_some() || covering(attachments, &vantage.cgroup).is_some(),
        cgroup: asked_cgroup(&vantage.cgroup),
        process: wanted.process.as_ref(),
        source: &verified.source,
    };
    (verified.steps, verified.findings) = diagnose(&seen, &facts);
    verified.answered_as.clone_from(&seen.answered_as);
    verified.ok = !verified.findings.iter().any(|finding| finding.prevents);
    verified.vantage = Some(vantage);
    let references = match seen.http {
        Some(HttpResult::Status { references, .. }) => references,
        _ => Vec::new(),
    };
    Ok((verified, references))
}

/// The cgroup that was asked for, without the one that was made below it.
fn asked_cgroup(cgroup: &Path) -> String {
    let made = cgroup
        .file_name()
        .is_some_and(|name| name.to_string_lossy().starts_with("redirector-verify-"));
    cgroup.parent().filter(|_| made).unwrap_or(cgroup).display().to_string()
}

/// A cgroup that our programs do not see, as they do not see a guest's connects.
fn guests_room(status: &Status) -> anyhow::Result<ProbeCgroup> {
    let mount = datapath::cgroup2_mount()?;
    let attachments = status.datapath.iter().flat_map(|datapath| &datapath.attachments);
    let at_root =
        attachments.filter(|at| at.live).any(|at| at.cgroup.as_deref() == Some(mount.as_path()));
    anyhow::ensure!(
        !at_root,
        "the programs are attached to the root of the cgroups, so they would redirect the probe's \
            connect before its packets leave: run the acceptance test in the guest"
    );
    ProbeCgroup::below(&mount)
}

/// The cgroup to run in; none when nothing is attached and none was given.
fn room(wanted: &VerifyOptions, status: &Status) -> anyhow::Result<Option<ProbeCgroup>> {
    if wanted.guest.is_some() {
        return guests_room(status).map(Some);
    }
    if let Some(cgroup) = &wanted.cgroup {
        return ProbeCgroup::below(&probe_cgroup::named(cgroup)?).map(Some);
    }
    if let Some(process) = &wanted.process {
        let cgroup = process.cgroup.as_deref().with_context(|| {
            format!("failed to find the cgroup of process {}: name it by --cgroup", process.pid)
        })?;
        return Ok(Some(ProbeCgroup::of_process(cgroup)));
    }
    let attachments = status.datapath.iter().flat_map(|datapath| &datapath.attachments);
    let live: Vec<&Path> =
        attachments.filter(|at| at.live).filter_map(|at| at.cgroup.as_deref()).collect();
    let Some(first) = live.first() else { return Ok(None) };
    let below = ProbeCgroup::below(first);
    let denied = below.as_ref().is_err_and(|error| {
        let io = error.downcast_ref::<std::io::Error>();
        io.is_some_and(|error| error.kind() == std::io::ErrorKind::PermissionDenied)
    });
    // The agent's pod sees the node's cgroups read-only, but is in an attached one itself.
    let own = || Process::read(std::process::id()).ok()?.cgroup;
    match own().filter(|own| denied && live.iter().any(|at| own.starts_with(at))) {
        Some(own) => Ok(Some(ProbeCgroup::ours(own))),
        None => below.map(Some),
    }
}
