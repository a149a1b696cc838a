//! `redirector verify` and `redirector explain`: does a connect work, and why not.
//!
//! | file | is |
//! |---|---|
//! | `probe` | the child that acts from the executor's place and tells what it saw |
//! | `probe_cgroup`, `process` | that place: a cgroup; a process's cgroup, network, resolver, environment |
//! | `diagnose` | from what was seen to the cause and the next step; pure |
//! | `explain` | what a connect would do, from what is known; pure |
//! | `report` | the shapes of both |

mod diagnose;
mod explain;
mod probe;
mod probe_cgroup;
mod process;
mod report;
mod target;

use std::{
    io::Write,
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use anyhow::Context as _;

use self::{
    diagnose::{Facts, diagnose},
    probe::{Job, Seen, TlsSeen},
    probe_cgroup::Room,
};
pub(crate) use self::{
    explain::{Asked, Known, explain},
    probe::child,
};
pub use self::{
    probe::{CertificateSeen, Until},
    process::Process,
    report::{
        Explained, Finding, PlaceInfo, SourceAddresses, Step, StepOutcome, Verified, Waypoint,
    },
    target::{Target, route_for},
};
use crate::control::api::{RouteView, Status, VERSION};

/// How long the child may take beyond what its steps may.
const GRACE: Duration = Duration::from_secs(5);
/// Where systems keep the certificate authorities that they trust, below the root.
const BUNDLES: [&str; 4] = [
    "etc/ssl/certs/ca-certificates.crt",
    "etc/pki/tls/certs/ca-bundle.crt",
    "etc/ssl/ca-bundle.pem",
    "etc/ssl/cert.pem",
];

/// What to verify, and from where.
#[derive(Debug)]
pub(crate) struct Wanted {
    pub(crate) target: Target,
    /// The cgroup to act from; none: the process's, or the first that is attached.
    pub(crate) cgroup: Option<PathBuf>,
    /// The process to stand in for.
    pub(crate) process: Option<Process>,
    /// The authorities to trust instead of the place's own.
    pub(crate) ca: Option<PathBuf>,
    pub(crate) until: Until,
    pub(crate) plain: bool,
    pub(crate) patience: Duration,
    /// Who answers DNS where no process says it.
    pub(crate) shim: Vec<SocketAddr>,
}

/// Does it for real. `read` reads the status again.
///
/// # Errors
/// When the executor's place can't be entered, or the authorities can't be read.
pub(crate) fn verify(
    wanted: &Wanted,
    status: &Status,
    read: impl Fn() -> Option<Status>,
) -> anyhow::Result<Verified> {
    let name = wanted.target.name.clone();
    let mut verified = Verified {
        version: VERSION,
        ok: false,
        name: name.clone(),
        port: wanted.target.port,
        route: None,
        place: None,
        steps: vec![],
        findings: vec![],
        certificate: None,
        source: SourceAddresses::default(),
        command: None,
    };
    let Some(route) = route_for(&name, &status.routes) else {
        verified.findings.push(explain::no_route(&name, &status.routes));
        return Ok(verified);
    };
    verified.route.clone_from(&route.source);
    verified.command = acceptance(&wanted.target, route);
    if let Some(guest) = wanted.process.as_ref().and_then(explain::guest_kernel) {
        verified.findings.push(guest);
        return Ok(verified);
    }
    let Some(room) = room(wanted, status)? else {
        verified.findings.push(diagnose::not_attached());
        return Ok(verified);
    };
    let backend = backend(route, wanted.target.port);
    let job = job(wanted, route, room.path(), backend)?;
    let place = PlaceInfo {
        cgroup: room.path().to_owned(),
        process: wanted.process.clone(),
        nameservers: job.nameservers.iter().map(SocketAddr::ip).collect(),
    };
    let seen = run(&job)?;
    drop(room);

    let after = read();
    verified.source = SourceAddresses {
        expected: expected_sources(route),
        executor: seen.source,
        node: backend.and_then(probe::source_towards),
    };
    verified.certificate = match &seen.tls {
        Some(TlsSeen::Done { certificate, .. } | TlsSeen::Failed { certificate, .. }) => {
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
        port: wanted.target.port,
        before: route,
        after: after.as_ref().and_then(|status| route_for(&name, &status.routes)),
        agent: status.agent.is_some(),
        listen: &wanted.shim,
        in_pool: &|address| matches!(address, IpAddr::V4(address) if pool.is_some_and(|pool| pool.contains(&address))),
        attached: attachments.iter().any(|at| at.live),
        covered: explain::covering(attachments, &place.cgroup).is_some(),
        cgroup: asked_cgroup(&place.cgroup),
        process: wanted.process.as_ref(),
        source: &verified.source,
    };
    (verified.steps, verified.findings) = diagnose(&seen, &facts);
    verified.ok = !verified.findings.iter().any(|finding| finding.prevents);
    verified.place = Some(place);
    Ok(verified)
}

/// The cgroup that was asked for, without the room that was made below it.
fn asked_cgroup(cgroup: &Path) -> String {
    let made = cgroup
        .file_name()
        .is_some_and(|name| name.to_string_lossy().starts_with("redirector-verify-"));
    cgroup.parent().filter(|_| made).unwrap_or(cgroup).display().to_string()
}

/// Where to act from; none when nothing is attached and nothing was asked for.
fn room(wanted: &Wanted, status: &Status) -> anyhow::Result<Option<Room>> {
    if let Some(cgroup) = &wanted.cgroup {
        return Room::below(&probe_cgroup::named(cgroup)?).map(Some);
    }
    if let Some(process) = &wanted.process {
        let cgroup = process.cgroup.as_deref().with_context(|| {
            format!("failed to find the cgroup of process {}: name it by --cgroup", process.pid)
        })?;
        return Ok(Some(Room::of_process(cgroup)));
    }
    let attachments = status.datapath.iter().flat_map(|datapath| &datapath.attachments);
    attachments
        .filter(|at| at.live)
        .find_map(|at| at.cgroup.as_deref())
        .map(Room::below)
        .transpose()
}

fn job(
    wanted: &Wanted,
    route: &RouteView,
    cgroup: &Path,
    backend: Option<SocketAddr>,
) -> anyhow::Result<Job> {
    let process = wanted.process.as_ref();
    let vips = [route.vip.ipv4.map(IpAddr::V4), route.vip.ipv6.map(IpAddr::V6)];
    Ok(Job {
        name: wanted.target.name.clone(),
        port: wanted.target.port,
        cgroup: Some(cgroup.to_owned()),
        pid: process.map(|process| process.pid),
        hosts: process.and_then(|process| process.hosts_entry(&wanted.target.name)),
        nameservers: match process {
            Some(process) => {
                process.nameservers.iter().map(|&server| SocketAddr::new(server, 53)).collect()
            }
            None => wanted.shim.clone(),
        },
        expected: vips.into_iter().flatten().collect(),
        roots: roots(wanted.ca.as_deref(), process)?,
        until: wanted.until,
        tls: !wanted.plain && wanted.target.port != 80,
        patience: wanted.patience,
        backend,
    })
}

/// The authorities that the executor trusts: `--ca`, or the bundle of its own image, or this
/// node's.
fn roots(ca: Option<&Path>, process: Option<&Process>) -> anyhow::Result<String> {
    if let Some(path) = ca {
        return std::fs::read_to_string(path)
            .with_context(|| format!("failed to read {}", path.display()));
    }
    let inside = |path: &&str| process::read_in(process?.pid, path).ok();
    let outside = |path: &&str| std::fs::read(Path::new("/").join(path)).ok();
    let bundle = BUNDLES.iter().find_map(inside).or_else(|| BUNDLES.iter().find_map(outside));
    Ok(bundle.map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default())
}

/// An address of the load balancer, with the port that a connect would go to.
fn backend(route: &RouteView, port: u16) -> Option<SocketAddr> {
    let port = diagnose::ports(route).and_then(|ports| ports.destination(port)).unwrap_or(port);
    route.backends.first().map(|backend| SocketAddr::new(backend.address, port))
}

fn expected_sources(route: &RouteView) -> Vec<IpAddr> {
    let written = route.definition.iter().flat_map(|raw| raw.source_ips.iter().flatten());
    written.filter_map(|address| address.parse().ok()).collect()
}

/// The platform's own acceptance test.
fn acceptance(target: &Target, route: &RouteView) -> Option<String> {
    let destination = match &route.definition.as_ref()?.destination {
        crate::route::RawDestination::One(name) => name.clone(),
        crate::route::RawDestination::Many(addresses) => addresses.first()?.clone(),
    };
    let (name, port) = (&target.name, target.port);
    let to = diagnose::ports(route).and_then(|ports| ports.destination(port)).unwrap_or(port);
    let url = match port {
        443 => format!("https://{name}"),
        80 => format!("http://{name}"),
        _ => format!("https://{name}:{port}"),
    };
    Some(format!("curl --connect-to {name}:{port}:{destination}:{to} {url}"))
}

/// Runs the child and waits for it.
fn run(job: &Job) -> anyhow::Result<Seen> {
    let this = std::env::current_exe().context("failed to find this program's own file")?;
    let mut child = Command::new(this)
        .arg(CHILD)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .spawn()
        .context("failed to start the probe")?;
    let question = serde_json::to_vec(job).context("failed to write the probe's job")?;
    let written = child.stdin.take().map(|mut input| input.write_all(&question));
    let watch = Watchdog::start(&child, job.patience * 5 + GRACE)?;
    let ended = child.wait_with_output().context("failed to wait for the probe")?;
    let late = watch.stop();
    anyhow::ensure!(!late, "the probe did not end in time and was killed");
    written.transpose().context("failed to give the probe its job")?;
    anyhow::ensure!(ended.status.success(), "the probe failed: {}", ended.status);
    let seen: Seen =
        serde_json::from_slice(&ended.stdout).context("failed to understand the probe's answer")?;
    match &seen.no_entry {
        Some(no) if no.not_permitted => {
            let why = format!("{}: run this as root on the node", no.why);
            Err(std::io::Error::new(std::io::ErrorKind::PermissionDenied, why).into())
        }
        Some(no) => anyhow::bail!("{}", no.why),
        None => Ok(seen),
    }
}

/// The hidden verb that makes this program the probe.
pub(crate) const CHILD: &str = "verify-probe";

/// Kills a child that does not end in time.
struct Watchdog {
    stop: std::sync::mpsc::Sender<()>,
    thread: std::thread::JoinHandle<bool>,
}

impl Watchdog {
    fn start(child: &std::process::Child, patience: Duration) -> anyhow::Result<Self> {
        // A descriptor and not a number: that may be another process's by the time it is used.
        let process = rustix::process::pidfd_open(
            rustix::process::Pid::from_child(child),
            rustix::process::PidfdFlags::empty(),
        )
        .context("failed to open the probe's descriptor")?;
        let (stop, stopped) = std::sync::mpsc::channel();
        let thread = std::thread::spawn(move || {
            let late = matches!(
                stopped.recv_timeout(patience),
                Err(std::sync::mpsc::RecvTimeoutError::Timeout)
            );
            if late {
                let _ = rustix::process::pidfd_send_signal(process, rustix::process::Signal::KILL);
            }
            late
        });
        Ok(Self { stop, thread })
    }

    /// Whether it came too late.
    fn stop(self) -> bool {
        let _ = self.stop.send(());
        self.thread.join().unwrap_or(true)
    }
}

#[cfg(test)]
mod causes_tests;
