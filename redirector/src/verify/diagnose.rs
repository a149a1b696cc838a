//! From what the probe saw to the probable cause and the next step. Pure.

mod session;

use std::net::{IpAddr, SocketAddr};

use self::session::{of_http, of_tls};
use super::{
    probe::{ConnectSeen, DnsSeen, Io, Seen},
    process::Process,
    report::{Finding, SourceAddresses, Step, StepOutcome},
};
use crate::{
    control::api::{Counters, RouteView},
    route::PortMap,
};

/// What is known besides what the probe saw.
pub(super) struct Facts<'a> {
    pub(super) name: &'a str,
    pub(super) port: u16,
    /// The route before the probe, and after it.
    pub(super) before: &'a RouteView,
    pub(super) after: Option<&'a RouteView>,
    /// Whether an agent answers.
    pub(super) agent: bool,
    /// Where the shim listens.
    pub(super) listen: &'a [SocketAddr],
    /// The pool, to tell a virtual address from a real one.
    pub(super) in_pool: &'a dyn Fn(IpAddr) -> bool,
    /// Whether the programs are attached anywhere, and to a cgroup at or above the executor's.
    pub(super) attached: bool,
    pub(super) covered: bool,
    /// The cgroup, in words.
    pub(super) cgroup: String,
    pub(super) process: Option<&'a Process>,
    pub(super) source: &'a SourceAddresses,
}

/// The steps that were done, with the causes of what failed.
pub(super) fn diagnose(seen: &Seen, facts: &Facts<'_>) -> (Vec<Step>, Vec<Finding>) {
    let (mut steps, mut findings) = (Vec::new(), Vec::new());
    let mut step = |name: &str, (detail, finding): (String, Option<Finding>)| {
        let outcome = if finding.as_ref().is_some_and(|finding| finding.prevents) {
            StepOutcome::Failed
        } else {
            StepOutcome::Ok
        };
        steps.push(Step { step: name.to_owned(), outcome, detail });
        findings.extend(finding);
    };
    if let Some(dns) = &seen.dns {
        step("dns", of_dns(dns, facts));
    }
    if let Some(connect) = &seen.connect {
        step("connect", of_connect(connect, facts));
    }
    if let Some(tls) = &seen.tls {
        step("tls", of_tls(tls, facts));
    }
    if let Some(http) = &seen.http {
        step("http", of_http(http, facts));
    }
    if let Some((variable, value)) = facts.process.and_then(|process| process.proxy_for(facts.name))
    {
        findings.push(proxy(variable, value, facts.name));
    }
    (steps, findings)
}

/// A proxy takes the name before any of our hooks sees an address.
pub(crate) fn proxy(variable: &str, value: &str, name: &str) -> Finding {
    let cause = format!(
        "the process has {variable}={value}: its clients ask that proxy for {name}, and never \
            connect to the virtual address"
    );
    Finding::new(
        "proxy",
        cause,
        format!("add {name} to the job's NO_PROXY, or take {variable} away"),
    )
}

/// A name server on loopback is another process's business, in another cgroup.
pub(crate) fn loopback_resolver(server: IpAddr) -> Finding {
    let cause = format!(
        "the executor's nameserver is {server}, on its own loopback: who asks upstream is another \
            process, in another cgroup"
    );
    let next = "give the executor the shim's address as its nameserver (Docker: `--dns`; \
        Kubernetes: the pod's or the kubelet's DNS settings)";
    Finding::new("loopback_resolver", cause, next)
}

/// The answer comes from somewhere else than the shim.
fn not_the_shim(server: SocketAddr, what: &str, facts: &Facts<'_>) -> Finding {
    if server.ip().is_loopback() && !facts.listen.contains(&server) {
        return Finding {
            cause: format!("{}; it {what}", loopback_resolver(server.ip()).cause),
            ..loopback_resolver(server.ip())
        };
    }
    let shim = facts
        .listen
        .iter()
        .map(|address| address.ip().to_string())
        .collect::<Vec<_>>()
        .join(" or ");
    let cause = format!(
        "{} {what}: it is not the shim ({shim}), and its traffic is not intercepted",
        server.ip()
    );
    let next = format!(
        "make {shim} the executor's nameserver, or set dns.intercept so that its DNS goes to the \
            shim"
    );
    Finding::new("not_the_shim", cause, next)
}

fn of_dns(seen: &DnsSeen, facts: &Facts<'_>) -> (String, Option<Finding>) {
    let vip = |address: &IpAddr| {
        [facts.before.vip.ipv4.map(IpAddr::V4), facts.before.vip.ipv6.map(IpAddr::V6)]
            .contains(&Some(*address))
    };
    match seen {
        DnsSeen::Hosts { address } if vip(address) => {
            (format!("{address}, from the executor's /etc/hosts"), None)
        }
        DnsSeen::Hosts { address } => {
            let cause = format!(
                "the executor's /etc/hosts says {address} for {}, so DNS is never asked",
                facts.name
            );
            let next = "take that line away (Docker: --add-host; Kubernetes: hostAliases)";
            (
                format!("{address}, from the executor's /etc/hosts"),
                Some(Finding::new("hosts_entry", cause, next)),
            )
        }
        DnsSeen::NoServer => {
            let cause = "the executor's /etc/resolv.conf names no nameserver";
            (
                "nobody to ask".into(),
                Some(Finding::new("no_nameserver", cause, "make the shim its nameserver")),
            )
        }
        DnsSeen::Answer { server, addresses, code, milliseconds } => {
            let told = addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
            let told = if told.is_empty() { format!("{code} without an address") } else { told };
            let detail = format!("{told}, from {} in {milliseconds} ms", server.ip());
            let finding = match addresses.first() {
                Some(address) if vip(address) => None,
                found => Some(of_answer(found, code, *server, facts)),
            };
            (detail, finding)
        }
        DnsSeen::Failed { server, why } => {
            (format!("{}: {}", server.ip(), why.words()), Some(of_silence(*server, why, facts)))
        }
    }
}

fn of_answer(found: Option<&IpAddr>, code: &str, server: SocketAddr, facts: &Facts<'_>) -> Finding {
    let ours = facts.listen.contains(&server);
    match found {
        Some(address) if (facts.in_pool)(*address) => {
            let cause = format!(
                "{address} is not the virtual address of {}: the answer is an old one, or another \
                    agent's",
                facts.before_name()
            );
            Finding::new(
                "other_vip",
                cause,
                "is a second agent, or a cache of DNS answers, between the executor and the shim?",
            )
        }
        Some(address)
            if facts.before.backends.iter().any(|backend| backend.address == *address) =>
        {
            let what = format!(
                "answers {address}, the load balancer's own address, so connects are not redirected"
            );
            Finding { code: "real_address".into(), ..not_the_shim(server, &what, facts) }
        }
        Some(address) => {
            not_the_shim(server, &format!("answers {address}, which is no address of ours"), facts)
        }
        None if ours && code == "SERVFAIL" => {
            let cause = "the shim does not have the name, and its upstream does not answer";
            Finding::new(
                "not_live",
                cause,
                "`redirector status` tells whether the route is live, and how the upstreams do",
            )
        }
        None if ours => {
            let cause = format!("the shim does not answer {}: its route is not live", facts.name);
            Finding::new(
                "not_live",
                cause,
                "`redirector route show` tells why; `redirector status` what is amiss",
            )
        }
        None => not_the_shim(server, &format!("answers {code}"), facts),
    }
}

fn of_silence(server: SocketAddr, why: &Io, facts: &Facts<'_>) -> Finding {
    let said = why.words();
    if facts.listen.contains(&server) {
        if !facts.agent {
            let cause = format!("no agent runs, so nobody answers DNS at {} ({said})", server.ip());
            return Finding::new(
                "agent_dead",
                cause,
                "start it with `redirector run`; connects to addresses that are known already go \
                    on working",
            );
        }
        let cause = format!(
            "the shim at {} can't be reached from the executor's network ({said})",
            server.ip()
        );
        let next = "does a network policy or firewall forbid port 53 to it, or has the executor no \
            route to it?";
        return Finding::new("shim_unreachable", cause, next);
    }
    if server.ip().is_loopback() {
        let finding = loopback_resolver(server.ip());
        return Finding {
            cause: format!("{}; it does not answer ({said})", finding.cause),
            ..finding
        };
    }
    not_the_shim(server, &format!("does not answer ({said})"), facts)
}

impl Facts<'_> {
    fn before_name(&self) -> String {
        self.before.source.as_ref().map_or_else(|| self.name.to_owned(), ToString::to_string)
    }

    /// How much a counter of the route grew while the probe ran.
    fn grew(&self, counter: impl Fn(&Counters) -> u64) -> u64 {
        let read = |route: Option<&RouteView>| {
            route.and_then(|route| route.counters.as_ref()).map_or(0, &counter)
        };
        read(self.after).saturating_sub(read(Some(self.before)))
    }

    /// The backends that were tried while the probe ran; all of them when that is not known.
    fn tried(&self) -> String {
        let route = self.after.unwrap_or(self.before);
        let started = |route: &RouteView, address: IpAddr| {
            let backend = route.backends.iter().find(|backend| backend.address == address);
            backend.and_then(|backend| backend.counters).map_or(0, |counters| counters.started)
        };
        let all: Vec<_> = route.backends.iter().map(|backend| backend.address).collect();
        let tried: Vec<_> = all
            .iter()
            .copied()
            .filter(|&address| started(route, address) > started(self.before, address))
            .collect();
        let named = if tried.is_empty() { all } else { tried };
        named
            .iter()
            .map(|address| SocketAddr::new(*address, self.destination_port()).to_string())
            .collect::<Vec<_>>()
            .join(" and ")
    }

    /// The load balancer's port.
    pub(super) fn destination_port(&self) -> u16 {
        ports(self.before).and_then(|ports| ports.destination(self.port)).unwrap_or(self.port)
    }
}

/// The ports of a route; none when its definition is not known.
pub(crate) fn ports(route: &RouteView) -> Option<PortMap> {
    let raw = route.definition.as_ref()?;
    PortMap::parse_list(raw.ports.as_deref()?).ok()
}

fn of_connect(seen: &ConnectSeen, facts: &Facts<'_>) -> (String, Option<Finding>) {
    match seen {
        ConnectSeen::Connected { to, local, milliseconds, .. } => {
            let through = facts.tried();
            (format!("{to} from {local} in {milliseconds} ms, through {through}"), None)
        }
        ConnectSeen::Failed { to, why, milliseconds } => (
            format!("{to}: {} after {milliseconds} ms", why.words()),
            Some(of_failed_connect(why, facts)),
        ),
    }
}

fn of_failed_connect(why: &Io, facts: &Facts<'_>) -> Finding {
    let (started, denied, passed) = (
        facts.grew(|counters| counters.started),
        facts.grew(|counters| counters.denied),
        facts.grew(|counters| counters.passed),
    );
    if facts.before.backends.is_empty() && (denied + passed > 0 || started == 0 && facts.covered) {
        return no_backends(facts.before);
    }
    let unlisted = ports(facts.before).is_some_and(|ports| ports.destination(facts.port).is_none());
    if unlisted && (denied > 0 || facts.covered) {
        return port_not_listed(facts.before, facts.port);
    }
    if denied > 0 {
        let cause = format!(
            "the datapath refused it: the route lists no port {}, or has no backend",
            facts.port
        );
        return Finding::new(
            "denied",
            cause,
            "`redirector route show` tells its ports and backends",
        );
    }
    if started == 0 {
        return unseen(why, facts);
    }
    let (tried, source) = (facts.tried(), facts.source.words());
    match why {
        Io::TimedOut => {
            let allowed = if facts.source.wrong() {
                format!(
                    "connect to {tried} timed out, and connects do not leave with the address that \
                        the route wants: {source}"
                )
            } else {
                format!(
                    "connect to {tried} timed out: is this node's egress address on the load \
                        balancer's allowlist? {source}"
                )
            };
            Finding::new(
                "backend_timeout",
                allowed,
                "ask the load balancer's owner to allow that address; check this node's firewall \
                    and NAT",
            )
        }
        Io::Refused => {
            let cause = format!(
                "{tried} refused: the load balancer is there, and nothing of it listens on the \
                    port, or it rejects this source; {source}"
            );
            Finding::new(
                "backend_refused",
                cause,
                "ask the load balancer's owner about its listener and its allowlist; is the \
                    route's port right?",
            )
        }
        Io::Unreachable => {
            let cause = format!(
                "{tried} can't be reached from this node: no route leads there, or a router said \
                    so; {source}"
            );
            Finding::new(
                "backend_unreachable",
                cause,
                "check the node's routes and firewall towards the load balancer",
            )
        }
        Io::NotPermitted => {
            let cause = format!(
                "this host forbids the connect to {tried} after it was redirected: another program \
                    on the hook, or a policy, refuses it"
            );
            Finding::new(
                "forbidden_here",
                cause,
                "`bpftool cgroup tree` lists the programs on each cgroup; does an egress policy \
                    allow the load balancer?",
            )
        }
        other => {
            let cause = format!("connect to {tried} failed: {}; {source}", other.words());
            Finding::new(
                "backend_failed",
                cause,
                "look at `redirector route show` and at this node's firewall",
            )
        }
    }
}

/// No program of ours saw the connect.
fn unseen(why: &Io, facts: &Facts<'_>) -> Finding {
    if !facts.attached {
        return not_attached();
    }
    if !facts.covered {
        return wrong_cgroup(&facts.cgroup);
    }
    let cause = format!(
        "the programs are attached above {} and did not see the connect ({}): another program on \
            the hook, or a policy, refused it first",
        facts.cgroup,
        why.words()
    );
    Finding::new(
        "hook_missed",
        cause,
        "`bpftool cgroup tree` lists the programs on each cgroup; `redirector check` tells what \
            this host lacks",
    )
}

/// Nothing is redirected anywhere.
pub(crate) fn not_attached() -> Finding {
    let next = "`redirector status` tells why; attach.cgroups says where the programs belong";
    Finding::new(
        "not_attached",
        "the programs are attached to no cgroup, so nothing is redirected",
        next,
    )
}

/// The executor is out of scope.
pub(crate) fn wrong_cgroup(cgroup: &str) -> Finding {
    let cause = format!(
        "{cgroup} is not at or below a cgroup that the programs are attached to, so no hook sees \
            its connects"
    );
    Finding::new(
        "wrong_cgroup",
        cause,
        "add it, or a cgroup above it, to attach.cgroups; `redirector status` lists what is \
            attached",
    )
}

/// A route without addresses.
pub(crate) fn no_backends(route: &RouteView) -> Finding {
    let destination = route
        .definition
        .as_ref()
        .map_or_else(|| "the destination".to_owned(), |raw| raw.destination.to_string());
    let why = route
        .resolution
        .as_ref()
        .and_then(|resolution| resolution.error.as_deref())
        .map(|error| format!(": {error}"));
    let cause = format!(
        "no address of {destination} is known{}; there is nobody to connect to",
        why.unwrap_or_default()
    );
    Finding::new(
        "no_backends",
        cause,
        "check the destination's A records, and the resolver that is asked (route's resolver, \
            dns.upstreams)",
    )
}

/// A port that the route leaves out.
pub(crate) fn port_not_listed(route: &RouteView, port: u16) -> Finding {
    let listed =
        route.definition.as_ref().and_then(|raw| raw.ports.clone()).unwrap_or_default().join(", ");
    let source = route.source.as_ref().map_or_else(|| "the route".to_owned(), ToString::to_string);
    let cause = format!(
        "{source} does not list port {port} (it has {listed}): a connect to it is refused at once"
    );
    Finding::new(
        "port_not_listed",
        cause,
        format!(
            "`redirector route set {source} --port {port} …` with all ports that it is to have"
        ),
    )
}

#[cfg(test)]
#[path = "diagnose_tests.rs"]
mod tests;
