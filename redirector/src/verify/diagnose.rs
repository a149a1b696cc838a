//! From what the probe saw to the probable cause and the next step. Pure.

use std::net::{IpAddr, SocketAddr};

use super::{
    probe::{ConnectSeen, DnsSeen, HttpSeen, Io, Seen, TlsFailure, TlsSeen},
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
        let outcome = if finding.as_ref().is_some_and(|finding| finding.prevents) { StepOutcome::Failed } else { StepOutcome::Ok };
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
    if let Some((variable, value)) = facts.process.and_then(|process| process.proxy_for(facts.name)) {
        findings.push(proxy(variable, value, facts.name));
    }
    (steps, findings)
}

/// A proxy takes the name before any of our hooks sees an address.
pub(crate) fn proxy(variable: &str, value: &str, name: &str) -> Finding {
    let cause =
        format!("the process has {variable}={value}: its clients ask that proxy for {name}, and never connect to the virtual address");
    Finding::new("proxy", cause, format!("add {name} to the job's NO_PROXY, or take {variable} away"))
}

/// A name server on loopback is another process's business, in another cgroup.
pub(crate) fn loopback_resolver(server: IpAddr) -> Finding {
    let cause =
        format!("the executor's nameserver is {server}, on its own loopback: who asks upstream is another process, in another cgroup");
    let next =
        "give the executor the shim's address as its nameserver (Docker: `--dns`; Kubernetes: the pod's or the kubelet's DNS settings)";
    Finding::new("loopback_resolver", cause, next)
}

/// The answer comes from somewhere else than the shim.
fn not_the_shim(server: SocketAddr, what: &str, facts: &Facts<'_>) -> Finding {
    if server.ip().is_loopback() && !facts.listen.contains(&server) {
        return Finding { cause: format!("{}; it {what}", loopback_resolver(server.ip()).cause), ..loopback_resolver(server.ip()) };
    }
    let shim = facts.listen.iter().map(|address| address.ip().to_string()).collect::<Vec<_>>().join(" or ");
    let cause = format!("{} {what}: it is not the shim ({shim}), and its traffic is not intercepted", server.ip());
    let next = format!("make {shim} the executor's nameserver, or set dns.intercept so that its DNS goes to the shim");
    Finding::new("not_the_shim", cause, next)
}

fn of_dns(seen: &DnsSeen, facts: &Facts<'_>) -> (String, Option<Finding>) {
    let vip = |address: &IpAddr| [facts.before.vip.ipv4.map(IpAddr::V4), facts.before.vip.ipv6.map(IpAddr::V6)].contains(&Some(*address));
    match seen {
        DnsSeen::Hosts { address } if vip(address) => (format!("{address}, from the executor's /etc/hosts"), None),
        DnsSeen::Hosts { address } => {
            let cause = format!("the executor's /etc/hosts says {address} for {}, so DNS is never asked", facts.name);
            let next = "take that line away (Docker: --add-host; Kubernetes: hostAliases)";
            (format!("{address}, from the executor's /etc/hosts"), Some(Finding::new("hosts_entry", cause, next)))
        }
        DnsSeen::NoServer => {
            let cause = "the executor's /etc/resolv.conf names no nameserver";
            ("nobody to ask".into(), Some(Finding::new("no_nameserver", cause, "make the shim its nameserver")))
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
        DnsSeen::Failed { server, why } => (format!("{}: {}", server.ip(), why.words()), Some(of_silence(*server, why, facts))),
    }
}

fn of_answer(found: Option<&IpAddr>, code: &str, server: SocketAddr, facts: &Facts<'_>) -> Finding {
    let ours = facts.listen.contains(&server);
    match found {
        Some(address) if (facts.in_pool)(*address) => {
            let cause =
                format!("{address} is not the virtual address of {}: the answer is an old one, or another agent's", facts.before_name());
            Finding::new("other_vip", cause, "is a second agent, or a cache of DNS answers, between the executor and the shim?")
        }
        Some(address) if facts.before.backends.iter().any(|backend| backend.address == *address) => {
            let what = format!("answers {address}, the load balancer's own address, so connects are not redirected");
            Finding { code: "real_address".into(), ..not_the_shim(server, &what, facts) }
        }
        Some(address) => not_the_shim(server, &format!("answers {address}, which is no address of ours"), facts),
        None if ours && code == "SERVFAIL" => {
            let cause = "the shim does not have the name, and its upstream does not answer";
            Finding::new("not_live", cause, "`redirector status` tells whether the route is live, and how the upstreams do")
        }
        None if ours => {
            let cause = format!("the shim does not answer {}: its route is not live", facts.name);
            Finding::new("not_live", cause, "`redirector route show` tells why; `redirector status` what is amiss")
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
                "start it with `redirector run`; connects to addresses that are known already go on working",
            );
        }
        let cause = format!("the shim at {} can't be reached from the executor's network ({said})", server.ip());
        let next = "does a network policy or firewall forbid port 53 to it, or has the executor no route to it?";
        return Finding::new("shim_unreachable", cause, next);
    }
    if server.ip().is_loopback() {
        let finding = loopback_resolver(server.ip());
        return Finding { cause: format!("{}; it does not answer ({said})", finding.cause), ..finding };
    }
    not_the_shim(server, &format!("does not answer ({said})"), facts)
}

impl Facts<'_> {
    fn before_name(&self) -> String {
        self.before.source.as_ref().map_or_else(|| self.name.to_owned(), ToString::to_string)
    }

    /// How much a counter of the route grew while the probe ran.
    fn grew(&self, counter: impl Fn(&Counters) -> u64) -> u64 {
        let read = |route: Option<&RouteView>| route.and_then(|route| route.counters.as_ref()).map_or(0, &counter);
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
        let tried: Vec<_> = all.iter().copied().filter(|&address| started(route, address) > started(self.before, address)).collect();
        let named = if tried.is_empty() { all } else { tried };
        named.iter().map(|address| SocketAddr::new(*address, self.destination_port()).to_string()).collect::<Vec<_>>().join(" and ")
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
        ConnectSeen::Failed { to, why, milliseconds } => {
            (format!("{to}: {} after {milliseconds} ms", why.words()), Some(of_failed_connect(why, facts)))
        }
    }
}

fn of_failed_connect(why: &Io, facts: &Facts<'_>) -> Finding {
    let (started, denied, passed) =
        (facts.grew(|counters| counters.started), facts.grew(|counters| counters.denied), facts.grew(|counters| counters.passed));
    if facts.before.backends.is_empty() && (denied + passed > 0 || started == 0 && facts.covered) {
        return no_backends(facts.before);
    }
    let unlisted = ports(facts.before).is_some_and(|ports| ports.destination(facts.port).is_none());
    if unlisted && (denied > 0 || facts.covered) {
        return port_not_listed(facts.before, facts.port);
    }
    if denied > 0 {
        let cause = format!("the datapath refused it: the route lists no port {}, or has no backend", facts.port);
        return Finding::new("denied", cause, "`redirector route show` tells its ports and backends");
    }
    if started == 0 {
        return unseen(why, facts);
    }
    let (tried, source) = (facts.tried(), facts.source.words());
    match why {
        Io::TimedOut => {
            let allowed = if facts.source.wrong() {
                format!("connect to {tried} timed out, and connects do not leave with the address that the route wants: {source}")
            } else {
                format!("connect to {tried} timed out: is this node's egress address on the load balancer's allowlist? {source}")
            };
            Finding::new(
                "backend_timeout",
                allowed,
                "ask the load balancer's owner to allow that address; check this node's firewall and NAT",
            )
        }
        Io::Refused => {
            let cause = format!(
                "{tried} refused: the load balancer is there, and nothing of it listens on the port, or it rejects this source; {source}"
            );
            Finding::new(
                "backend_refused",
                cause,
                "ask the load balancer's owner about its listener and its allowlist; is the route's port right?",
            )
        }
        Io::Unreachable => {
            let cause = format!("{tried} can't be reached from this node: no route leads there, or a router said so; {source}");
            Finding::new("backend_unreachable", cause, "check the node's routes and firewall towards the load balancer")
        }
        Io::NotPermitted => {
            let cause = format!(
                "this host forbids the connect to {tried} after it was redirected: another program on the hook, or a policy, refuses it"
            );
            Finding::new(
                "forbidden_here",
                cause,
                "`bpftool cgroup tree` lists the programs on each cgroup; does an egress policy allow the load balancer?",
            )
        }
        other => {
            let cause = format!("connect to {tried} failed: {}; {source}", other.words());
            Finding::new("backend_failed", cause, "look at `redirector route show` and at this node's firewall")
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
        "the programs are attached above {} and did not see the connect ({}): another program on the hook, or a policy, refused it first",
        facts.cgroup,
        why.words()
    );
    Finding::new(
        "hook_missed",
        cause,
        "`bpftool cgroup tree` lists the programs on each cgroup; `redirector check` tells what this host lacks",
    )
}

/// Nothing is redirected anywhere.
pub(crate) fn not_attached() -> Finding {
    let next = "`redirector status` tells why; attach.cgroups says where the programs belong";
    Finding::new("not_attached", "the programs are attached to no cgroup, so nothing is redirected", next)
}

/// The executor is out of scope.
pub(crate) fn wrong_cgroup(cgroup: &str) -> Finding {
    let cause = format!("{cgroup} is not at or below a cgroup that the programs are attached to, so no hook sees its connects");
    Finding::new("wrong_cgroup", cause, "add it, or a cgroup above it, to attach.cgroups; `redirector status` lists what is attached")
}

/// A route without addresses.
pub(crate) fn no_backends(route: &RouteView) -> Finding {
    let destination = route.definition.as_ref().map_or_else(|| "the destination".to_owned(), |raw| raw.destination.to_string());
    let why = route.resolution.as_ref().and_then(|resolution| resolution.error.as_deref()).map(|error| format!(": {error}"));
    let cause = format!("no address of {destination} is known{}; there is nobody to connect to", why.unwrap_or_default());
    Finding::new(
        "no_backends",
        cause,
        "check the destination's A records, and the resolver that is asked (route's resolver, dns.upstreams)",
    )
}

/// A port that the route leaves out.
pub(crate) fn port_not_listed(route: &RouteView, port: u16) -> Finding {
    let listed = route.definition.as_ref().and_then(|raw| raw.ports.clone()).unwrap_or_default().join(", ");
    let source = route.source.as_ref().map_or_else(|| "the route".to_owned(), ToString::to_string);
    let cause = format!("{source} does not list port {port} (it has {listed}): a connect to it is refused at once");
    Finding::new("port_not_listed", cause, format!("`redirector route set {source} --port {port} …` with all ports that it is to have"))
}

fn of_tls(seen: &TlsSeen, facts: &Facts<'_>) -> (String, Option<Finding>) {
    match seen {
        TlsSeen::Done { version, certificate } => {
            let whose =
                certificate.as_ref().map(|seen| format!(", certificate of {} by {}, until {}", seen.subject, seen.issuer, seen.not_after));
            (format!("{version}{}", whose.unwrap_or_default()), None)
        }
        TlsSeen::Failed { why, words, certificate } => {
            let whose =
                certificate.as_ref().map_or_else(|| "the certificate".to_owned(), |seen| format!("the certificate of {}", seen.subject));
            let names = certificate.as_ref().map(|seen| seen.names.join(", ")).filter(|names| !names.is_empty());
            let names = names.unwrap_or_else(|| "no name".into());
            let issuer = certificate.as_ref().map_or("its issuer", |seen| seen.issuer.as_str());
            let until = certificate.as_ref().map_or("an unknown time", |seen| seen.not_after.as_str());
            (words.clone(), Some(of_failed_tls(why, words, facts, [&whose, &names, issuer, until])))
        }
    }
}

fn of_failed_tls(why: &TlsFailure, words: &str, facts: &Facts<'_>, [whose, names, issuer, until]: [&str; 4]) -> Finding {
    let name = facts.name;
    match why {
        TlsFailure::WrongName => Finding::new(
            "wrong_name",
            format!("{whose} is for {names}, not for {name}"),
            "a load balancer that ends TLS needs a certificate for the internal name, too; one that passes TLS through shows the server's own",
        ),
        TlsFailure::UnknownIssuer => Finding::new(
            "unknown_issuer",
            format!("{whose} is by {issuer}, which is not trusted here"),
            "give that authority to the job's image (and to the platform's tls.external.certificates); try it with --ca FILE",
        ),
        TlsFailure::Expired => {
            Finding::new("certificate_expired", format!("{whose} has expired: it was good until {until}"), "ask its owner to renew it")
        }
        TlsFailure::NotYetValid => {
            Finding::new("certificate_not_yet_valid", format!("{whose} is not valid yet"), "is this node's clock right?")
        }
        TlsFailure::BadCertificate => Finding::new("bad_certificate", format!("{whose} is not good: {words}"), "show it to its owner"),
        TlsFailure::Alert(alert) => Finding::new(
            "tls_refused",
            format!("the server refused the handshake for {name} with the alert {alert}"),
            "does the load balancer have a certificate, or a rule, for the internal name?",
        ),
        TlsFailure::ClientCertificate => client_certificate(),
        TlsFailure::NotTls => Finding::new(
            "not_tls",
            format!("port {} of {} does not speak TLS", facts.destination_port(), facts.before_name()),
            "is it the right port? `--plain` verifies HTTP without TLS, `--until connect` the connection alone",
        ),
        TlsFailure::Incompatible => {
            Finding::new("tls_incompatible", format!("no common version or cipher of TLS: {words}"), "this client speaks TLS 1.2 and 1.3")
        }
        TlsFailure::NoRoots => {
            Finding::new("no_roots", "no bundle of certificate authorities was found in this place", "give one with --ca FILE")
        }
        TlsFailure::Io(Io::Closed) => closed(facts, "TLS began"),
        TlsFailure::Io(Io::TimedOut) => silent(facts, "the TLS handshake"),
        TlsFailure::Io(_) | TlsFailure::Other => {
            Finding::new("tls_failed", format!("TLS with {} failed: {words}", facts.tried()), "look at the load balancer's log")
        }
    }
}

fn client_certificate() -> Finding {
    Finding::new(
        "client_certificate",
        "the server wants a certificate of the client",
        "the path works: give the job its certificate and key",
    )
}

fn closed(facts: &Facts<'_>, before: &str) -> Finding {
    let cause = format!(
        "{} took the connection and closed it before {before}: it rejects this source, or has no healthy server behind it; {}",
        facts.tried(),
        facts.source.words()
    );
    Finding::new("closed_early", cause, "ask the load balancer's owner whether that address is on the allowlist and its servers are up")
}

fn silent(facts: &Facts<'_>, what: &str) -> Finding {
    let cause = format!(
        "{} took the connection and did not answer {what}: its servers are silent, or large packets are lost on the way (MTU)",
        facts.tried()
    );
    Finding::new("silent_after_connect", cause, "ask the load balancer's owner; compare the MTU of the executor's network with the path's")
}

fn of_http(seen: &HttpSeen, facts: &Facts<'_>) -> (String, Option<Finding>) {
    match seen {
        HttpSeen::Status { code, reason } => (format!("{code} {reason}").trim().to_owned(), of_status(*code)),
        HttpSeen::NotHttp { begins } => {
            let cause = format!("what answers is not HTTP: it begins with `{begins}`");
            (
                cause.clone(),
                Some(Finding::new("not_http", cause, "the connection itself works: verify it with `--until tls` or `--until connect`")),
            )
        }
        HttpSeen::Failed { why, words } => {
            let finding = match why {
                TlsFailure::ClientCertificate => client_certificate(),
                TlsFailure::Io(Io::Closed) => closed(facts, "an answer came"),
                TlsFailure::Io(Io::TimedOut) => silent(facts, "the request"),
                _ => Finding::new("http_failed", format!("no HTTP answer: {words}"), "look at the server's log"),
            };
            (words.clone(), Some(finding))
        }
    }
}

fn of_status(code: u16) -> Option<Finding> {
    match code {
        401 => Some(Finding::note(
            "credentials_wanted",
            "the path works, and the registry wants credentials",
            "create the executor's secret with them",
        )),
        403 => Some(Finding::note(
            "forbidden",
            "the path works, and the server forbids `/`: to everybody without credentials, or to this source",
            "create the executor's secret; if that does not help, ask for the allowlist of the server itself",
        )),
        407 => Some(Finding::new("proxy_answered", "a proxy answered instead of the registry", "is there a transparent proxy on the way?")),
        421 => Some(Finding::new(
            "misdirected",
            "the server has the connection and does not serve this name",
            "the load balancer needs a rule for the internal name",
        )),
        502..=504 => Some(Finding::new(
            "server_down",
            format!("the load balancer answers {code}: it has no healthy server behind it"),
            "the path to it works; tell the registry's owner",
        )),
        500..=599 => Some(Finding::new("server_error", format!("the server answers {code}"), "the path works; tell the registry's owner")),
        _ => None,
    }
}

#[cfg(test)]
#[path = "diagnose_tests.rs"]
mod tests;
