//! What a connect would do, from what is known: the agent's state and, perhaps, a process's. Pure:
//! nothing is sent.

use std::{
    net::{IpAddr, SocketAddr},
    path::Path,
};

use super::{
    diagnose::{
        loopback_resolver, no_backends, not_attached, port_not_listed, ports, proxy, wrong_cgroup,
    },
    process::Process,
    report::{Explained, Finding, Waypoint},
    target::{Target, route_for},
};
use crate::{
    control::api::{AttachmentInfo, BackendState, ProblemCode, RouteView, Status, VERSION},
    datapath::ForeignProgram,
};

/// The programs in the kernel take the agent for dead after this long.
const STALE_MS: u64 = 2000;

/// What was asked about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Asked {
    /// A name.
    Name(Target),
    /// An address.
    Address(IpAddr, u16),
}

impl std::str::FromStr for Asked {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Ok(address) = text.parse::<SocketAddr>() {
            return Ok(Self::Address(address.ip().to_canonical(), address.port()));
        }
        if let Ok(address) = text.parse::<IpAddr>() {
            return Ok(Self::Address(address.to_canonical(), 443));
        }
        text.parse().map(Self::Name)
    }
}

impl std::fmt::Display for Asked {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Name(target) => write!(f, "{}:{}", target.name, target.port),
            Self::Address(address, port) => write!(f, "{}", SocketAddr::new(*address, *port)),
        }
    }
}

/// What is known.
pub(crate) struct Known<'a> {
    pub(crate) status: &'a Status,
    pub(crate) process: Option<&'a Process>,
    /// Where the shim listens.
    pub(crate) shim: &'a [SocketAddr],
    /// Programs of others on the hooks above the process, or above what is attached.
    pub(crate) others: &'a [ForeignProgram],
}

/// What a connect would do.
pub(crate) fn explain(asked: &Asked, known: &Known<'_>) -> Explained {
    let mut told = Told::default();
    match asked {
        Asked::Name(target) => told.name(target, known),
        Asked::Address(address, port) => told.address(*address, *port, known),
    }
    told.into_report(asked, known)
}

/// What has been said so far.
#[derive(Default)]
struct Told {
    way: Vec<Waypoint>,
    findings: Vec<Finding>,
    route: Option<RouteView>,
    /// What happens when nothing prevents anything.
    verdict: Option<String>,
}

impl Told {
    fn way(&mut self, stage: &str, detail: impl Into<String>) {
        self.way.push(Waypoint { stage: stage.to_owned(), detail: detail.into() });
    }

    fn name(&mut self, target: &Target, known: &Known<'_>) {
        let Some(route) = route_for(&target.name, &known.status.routes) else {
            self.way(
                "name",
                format!("{} is no route's source: DNS is answered by the upstreams", target.name),
            );
            self.findings.push(no_route(&target.name, &known.status.routes));
            self.verdict = Some("left alone: no route has this name".into());
            return;
        };
        let source = route.source.as_ref().map_or_else(String::new, ToString::to_string);
        let vip = route.vip.ipv4.map_or_else(|| "no address".to_owned(), |vip| vip.to_string());
        let answered = if known.status.agent.is_some() {
            "is answered with"
        } else {
            "would be answered with"
        };
        self.way("name", format!("{} {answered} {vip}, by the route of {source}", target.name));
        self.hook(known);
        self.resolver(&target.name, known);
        self.served(route, target.port, known);
    }

    fn address(&mut self, address: IpAddr, port: u16, known: &Known<'_>) {
        let routes = &known.status.routes;
        let is_vip = |route: &&RouteView| {
            [route.vip.ipv4.map(IpAddr::V4), route.vip.ipv6.map(IpAddr::V6)]
                .contains(&Some(address))
        };
        if let Some(route) = routes.iter().find(is_vip) {
            let source = route
                .source
                .as_ref()
                .map_or_else(|| "a route whose name is not known".to_owned(), ToString::to_string);
            self.way("vip", format!("{address} is the virtual address of {source}"));
            self.hook(known);
            return self.served(route, port, known);
        }
        let pool = known
            .status
            .datapath
            .as_ref()
            .and_then(|datapath| datapath.pool_ipv4.parse::<ipnet::Ipv4Net>().ok());
        if matches!(address, IpAddr::V4(address) if pool.is_some_and(|pool| pool.contains(&address)))
        {
            self.way("vip", format!("{address} is in the pool, and no route has it"));
            self.hook(known);
            let cause = format!(
                "{address} is no route's virtual address: a connect to it is refused at once"
            );
            self.findings.push(Finding::new(
                "vip_without_route",
                cause,
                "was its route removed? the client holds an old answer: `redirector route list` \
                    tells today's",
            ));
            self.verdict = Some("refused at once: no route has this address".into());
            return;
        }
        let of = routes
            .iter()
            .find(|route| route.backends.iter().any(|backend| backend.address == address));
        let cause = match of.and_then(|route| route.source.as_ref()) {
            Some(source) => {
                self.way(
                    "vip",
                    format!("{address} is a backend of {source}, not a virtual address"),
                );
                format!(
                    "{address} is the load balancer's own address: whoever connects to it does not \
                        use {source}"
                )
            }
            None => {
                self.way("vip", format!("{address} is outside of the pool"));
                format!("{address} is no virtual address: connects to it are not ours")
            }
        };
        let next = "ask about the name, or a virtual address: `redirector route list` has both";
        self.findings.push(Finding::new("not_virtual", cause, next));
        self.verdict = Some("left alone: it goes to that address itself".into());
    }

    /// Which hook applies to the process, and what else is there.
    fn hook(&mut self, known: &Known<'_>) {
        if let Some(guest) = known.process.and_then(guest_kernel) {
            self.findings.push(guest);
        }
        let attachments = known
            .status
            .datapath
            .as_ref()
            .map(|datapath| datapath.attachments.as_slice())
            .unwrap_or_default();
        let live: Vec<_> = attachments.iter().filter(|at| at.live).collect();
        let names = live.iter().map(|at| {
            at.cgroup.as_ref().map_or_else(
                || format!("cgroup {}", at.cgroup_id),
                |path| path.display().to_string(),
            )
        });
        if live.is_empty() {
            self.way("hook", "attached to no cgroup");
            self.findings.push(not_attached());
        } else if let Some(process) = known.process {
            let cgroup = process
                .cgroup
                .as_ref()
                .map_or_else(|| "its cgroup".to_owned(), |path| path.display().to_string());
            match process.cgroup.as_deref().and_then(|cgroup| covering(attachments, cgroup)) {
                Some(at) => self.way(
                    "hook",
                    format!(
                        "{cgroup} is covered by {}",
                        at.cgroup.as_deref().unwrap_or(Path::new("?")).display()
                    ),
                ),
                None => {
                    self.way(
                        "hook",
                        format!(
                            "{cgroup} is covered by none of {}",
                            names.collect::<Vec<_>>().join(", ")
                        ),
                    );
                    self.findings.push(wrong_cgroup(&cgroup));
                }
            }
        } else {
            self.way(
                "hook",
                format!("applies at and below {}", names.collect::<Vec<_>>().join(", ")),
            );
        }
        for other in known.others {
            self.findings.push(Finding::note(
                "other_program",
                format!(
                    "another program is on the hook {} as well: {} (ID {})",
                    other.hook,
                    other.name.as_deref().unwrap_or("unnamed"),
                    other.id
                ),
                "it sees connects before or after ours, and may refuse or rewrite them; `bpftool \
                    prog show` tells whose it is",
            ));
        }
    }

    /// How the name is resolved by the process.
    fn resolver(&mut self, name: &str, known: &Known<'_>) {
        if let Some(process) = known.process {
            self.process(process, name, known);
        }
        let agent = known.status.agent.as_ref();
        if agent.is_none() {
            let code = known
                .status
                .problems
                .iter()
                .find(|problem| problem.code == ProblemCode::AgentSilent)
                .map_or("agent_dead", |_| "agent_silent");
            let cause = "no agent answers, so DNS does not answer the name; connects to its \
                virtual address go on being redirected";
            self.findings.push(Finding::new(
                code,
                cause,
                "start or restart the agent: `redirector run`, or its service",
            ));
        }
        let age = known.status.datapath.as_ref().and_then(|datapath| datapath.heartbeat_age_ms);
        if let Some(age) = age.filter(|&age| age > STALE_MS && agent.is_some()) {
            let cause = format!(
                "the agent's last sign of life is {age} ms old: the programs take it for dead, and \
                    intercepted DNS goes elsewhere"
            );
            self.findings.push(Finding::new(
                "stale_heartbeat",
                cause,
                "look at the agent's log, then restart it",
            ));
        }
        if let Some(problem) =
            known.status.problems.iter().find(|problem| problem.code == ProblemCode::ConfigError)
        {
            let next = problem.remedy.clone().unwrap_or_default();
            self.findings.push(Finding::note("config_error", problem.message.clone(), next));
        }
    }

    fn process(&mut self, process: &Process, name: &str, known: &Known<'_>) {
        let told = |server: &IpAddr| {
            format!(
                "{server}{}",
                if is_intercepted(*server, process, known) { " (intercepted)" } else { "" }
            )
        };
        let servers = process.nameservers.iter().map(told).collect::<Vec<_>>().join(", ");
        let network =
            if process.host_network { "this node's network" } else { "a network of its own" };
        self.way(
            "process",
            format!("{} (pid {}) in {network}, nameserver {servers}", process.command, process.pid),
        );
        if let Some((variable, value)) = process.proxy_for(name) {
            self.findings.push(proxy(variable, value, name));
        }
        if let Some(address) = process.hosts_entry(name) {
            let vip = route_for(name, &known.status.routes)
                .and_then(|route| route.vip.ipv4)
                .map(IpAddr::V4);
            if vip != Some(address) {
                let cause =
                    format!("its /etc/hosts says {address} for {name}, so DNS is never asked");
                self.findings.push(Finding::new(
                    "hosts_entry",
                    cause,
                    "take that line away (Docker: --add-host; Kubernetes: hostAliases)",
                ));
            }
            return;
        }
        let shim = |server: &IpAddr| known.shim.iter().any(|address| address.ip() == *server);
        match process.nameservers.first() {
            None => self.findings.push(Finding::new(
                "no_nameserver",
                "its /etc/resolv.conf names no nameserver",
                "make the shim its nameserver, or set dns.intercept",
            )),
            Some(server) if shim(server) || is_intercepted(*server, process, known) => {}
            Some(server) if server.is_loopback() => self.findings.push(loopback_resolver(*server)),
            Some(server) => {
                let interception =
                    known.status.dns.as_ref().and_then(|dns| dns.interception.as_ref());
                let why_not = interception
                    .and_then(|interception| interception.reason.as_deref())
                    .unwrap_or("it is not in dns.intercept");
                // The server may pass the name on to the shim, so this does not say that it fails.
                self.findings.push(Finding::note(
                    "other_resolver",
                    format!(
                        "its nameserver {server} is not the shim, and what it is asked is not \
                        intercepted: {why_not}"
                    ),
                    "`redirector verify --pid` asks it for real",
                ));
            }
        }
    }

    /// The route: its port, its backends.
    fn served(&mut self, route: &RouteView, port: u16, known: &Known<'_>) {
        self.route = Some(route.clone());
        if let Some(problem) = known
            .status
            .problems
            .iter()
            .find(|problem| problem.code == ProblemCode::KernelUpdateFailed)
        {
            self.findings.push(Finding::new(
                "kernel_update_failed",
                problem.message.clone(),
                "the agent goes on trying; `redirector check` may tell why",
            ));
        }
        if !route.live {
            let source =
                route.source.as_ref().map_or_else(|| "the route".to_owned(), ToString::to_string);
            let cause = format!(
                "{source} is not live yet: it waits for the first answer about its destination, or \
                    for the kernel"
            );
            self.findings.push(Finding::new(
                "not_live",
                cause,
                "`redirector route show` tells what it waits for",
            ));
        }
        let listed = ports(route);
        let to = listed.as_ref().map_or(Some(port), |ports| ports.destination(port));
        match to {
            Some(to) if to == port => self.way("port", format!("{port} stays {port}")),
            Some(to) => self.way("port", format!("{port} becomes {to}")),
            None => {
                self.way("port", format!("{port} is not listed"));
                self.findings.push(port_not_listed(route, port));
            }
        }
        self.backends(route, to.unwrap_or(port));
    }

    fn backends(&mut self, route: &RouteView, port: u16) {
        let pass = route
            .definition
            .as_ref()
            .is_some_and(|raw| raw.on_no_backend.as_deref() == Some("pass"));
        let eligible: Vec<_> = route
            .backends
            .iter()
            .filter(|backend| backend.state == BackendState::Eligible)
            .collect();
        let list: Vec<_> = route
            .backends
            .iter()
            .map(|backend| {
                let aside = match (backend.state, backend.retry_in_ms) {
                    (BackendState::Eligible, _) => String::new(),
                    (BackendState::Ejected, Some(ms)) => {
                        format!(" (set aside, tried again in {ms} ms)")
                    }
                    (BackendState::Ejected, None) => " (set aside)".into(),
                };
                format!("{}{aside}", SocketAddr::new(backend.address, port))
            })
            .collect();
        self.way(
            "backends",
            if list.is_empty() { "none is known".to_owned() } else { list.join(", ") },
        );
        if route.backends.is_empty() {
            let finding = no_backends(route);
            let does = if pass {
                ", the route lets connects pass, to the virtual address itself"
            } else {
                ", connects are refused at once"
            };
            self.findings.push(Finding { cause: format!("{}{does}", finding.cause), ..finding });
        } else if eligible.is_empty() {
            let cause = match route.backends.len() {
                1 => {
                    "the only backend is set aside since it failed lately; it is tried all the same"
                        .to_owned()
                }
                all => format!(
                    "all {all} backends are set aside since they failed lately; they are tried all \
                        the same"
                ),
            };
            let next = "`redirector verify` tells how they fail; is this node's egress address on \
                the load balancer's allowlist?";
            self.findings.push(Finding::new("all_ejected", cause, next));
        } else if eligible.len() < route.backends.len() {
            let cause = format!(
                "{} of {} backends are set aside since they failed lately",
                route.backends.len() - eligible.len(),
                route.backends.len()
            );
            self.findings.push(Finding::note(
                "backend_ejected",
                cause,
                "connects go to the others meanwhile",
            ));
        }
        let to = match eligible.len() {
            0 => "one of them, none being better".to_owned(),
            1 => SocketAddr::new(eligible[0].address, port).to_string(),
            many => format!("one of {many} eligible backends, anew for each connect"),
        };
        self.verdict = Some(format!("redirected to {to}"));
    }

    fn into_report(mut self, asked: &Asked, known: &Known<'_>) -> Explained {
        self.findings.sort_by_key(|finding| !finding.prevents);
        let prevented = self.findings.first().filter(|finding| finding.prevents);
        let verdict = match (prevented, self.verdict, &self.route) {
            (Some(finding), _, Some(_)) => format!("would not work: {}", finding.cause),
            (_, Some(verdict), _) => verdict,
            (_, None, _) => "not known".into(),
        };
        Explained {
            version: VERSION,
            asked: asked.to_string(),
            verdict,
            redirected: prevented.is_none() && self.route.is_some(),
            way: self.way,
            process: known.process.cloned(),
            vip: self.route.as_ref().and_then(|route| route.vip.ipv4),
            backends: self
                .route
                .iter()
                .flat_map(|route| route.backends.iter().map(|backend| backend.address))
                .collect(),
            findings: self.findings,
        }
    }
}

/// Whether what `process` asks `server` goes to the shim.
fn is_intercepted(server: IpAddr, process: &Process, known: &Known<'_>) -> bool {
    let Some(interception) = known.status.dns.as_ref().and_then(|dns| dns.interception.as_ref())
    else {
        return false;
    };
    let listed = !interception.listed_only
        || interception.resolvers.iter().any(|resolver| resolver.address == server);
    interception.on && listed && (process.host_network || !server.is_loopback())
}

/// The attachment that covers a cgroup.
pub(super) fn covering<'a>(
    attachments: &'a [AttachmentInfo],
    cgroup: &Path,
) -> Option<&'a AttachmentInfo> {
    attachments
        .iter()
        .find(|at| at.live && at.cgroup.as_deref().is_some_and(|at| cgroup.starts_with(at)))
}

/// The finding for a process whose guest has a kernel of its own.
pub(super) fn guest_kernel(process: &Process) -> Option<Finding> {
    let guest = process.guest.as_ref()?;
    let cause = format!(
        "{} (pid {}) is {guest}: what runs inside has a network stack of its own, and no hook here \
            sees its connects",
        process.command, process.pid
    );
    let next = "list the guests' network in dns.real_address_clients: they get the load balancer's \
        real address";
    Some(Finding::new("guest_kernel", cause, next))
}

/// The finding for a name without a route, with the nearest one.
pub(super) fn no_route(name: &str, routes: &[RouteView]) -> Finding {
    let sources = routes.iter().filter_map(|route| route.source.as_ref()).map(ToString::to_string);
    let near = sources
        .map(|source| (strsim::damerau_levenshtein(&source, name), source))
        .min()
        .filter(|(distance, _)| *distance <= 1 + name.len() / 5);
    let hint = near.map(|(_, source)| format!(" (did you mean {source}?)")).unwrap_or_default();
    let next = format!(
        "`redirector route list` has all; `redirector route add {name} DESTINATION` makes one"
    );
    Finding::new("no_route", format!("no route has the source {name}{hint}"), next)
}

#[cfg(test)]
#[path = "explain_tests.rs"]
mod tests;
