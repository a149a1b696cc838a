//! Causes that both `verify` and `explain` find.

use std::net::IpAddr;

use super::{
    cause_code::CauseCode,
    process::{LocalResolver, Process},
    report::Finding,
};
use crate::control::api::RouteView;

/// A proxy gets the name before any hook sees an address.
pub(super) fn proxy(variable: &str, value: &str, name: &str) -> Finding {
    let cause = format!(
        "the process has {variable}={value}: its clients send requests for {name} to that \
            proxy and never connect to the virtual address"
    );
    Finding::new(
        CauseCode::Proxy,
        cause,
        format!("add {name} to the job's NO_PROXY, or unset {variable}"),
    )
}

/// A nameserver on loopback, whose upstream query another process sends.
pub(super) fn loopback_resolver(server: IpAddr, process: Option<&Process>) -> Finding {
    let resolver = process.and_then(|process| process.local_resolver.as_ref());
    let whose = match resolver {
        Some(LocalResolver { pid, command, cgroup: Some(cgroup) }) => {
            format!("{command} (pid {pid}) in {}", cgroup.display())
        }
        Some(LocalResolver { pid, command, .. }) => format!("{command} (pid {pid})"),
        None => "another process, in another cgroup".to_owned(),
    };
    let cause = format!(
        "the executor's nameserver is {server}, on its own loopback: the upstream query comes \
            from {whose}"
    );
    let next = "give the executor the shim's address as its nameserver (Docker: `--dns`; \
        Kubernetes: the pod's or the kubelet's DNS settings)";
    Finding::new(CauseCode::LoopbackResolver, cause, next)
}

/// The programs are attached nowhere.
pub(super) fn not_attached() -> Finding {
    let next = "`redirector status` shows why; attach.cgroups lists where the programs belong";
    Finding::new(
        CauseCode::NotAttached,
        "the programs are attached to no cgroup, so nothing is redirected",
        next,
    )
}

/// No attachment covers the cgroup.
pub(super) fn wrong_cgroup(cgroup: &str) -> Finding {
    let cause = format!(
        "{cgroup} is not at or below a cgroup that the programs are attached to, so no hook sees \
            its connects"
    );
    Finding::new(
        CauseCode::WrongCgroup,
        cause,
        "add it, or a cgroup above it, to attach.cgroups; `redirector status` lists what is \
            attached",
    )
}

/// A route without addresses.
pub(super) fn no_backends(route: &RouteView) -> Finding {
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
        "no address of {destination} is known{}; there is nothing to connect to",
        why.unwrap_or_default()
    );
    Finding::new(
        CauseCode::NoBackends,
        cause,
        "check the destination's A records, and its resolver (the route's resolver, or \
            dns.upstreams)",
    )
}

/// A route whose addresses no executor can use.
pub(super) fn unusable_family(route: &RouteView) -> Option<Finding> {
    let first = route.backends.first().filter(|_| route.lacks_usable_family())?.address;
    let cause = format!(
        "the load balancer has IPv6 addresses only ({first}), and the virtual address is IPv4: \
            there is no pool.ipv6"
    );
    let next = "set pool.ipv6 and restart the agent, or give the destination an IPv4 address";
    Some(Finding::new(CauseCode::UnusableFamily, cause, next))
}

/// A port that the route does not list.
pub(super) fn port_not_listed(route: &RouteView, port: u16) -> Finding {
    let listed =
        route.definition.as_ref().and_then(|raw| raw.ports.clone()).unwrap_or_default().join(", ");
    let source = route.source.as_ref().map_or_else(|| "the route".to_owned(), ToString::to_string);
    let cause = format!(
        "{source} does not list port {port} (it has {listed}): a connect to it is refused at once"
    );
    Finding::new(
        CauseCode::PortNotListed,
        cause,
        format!("`redirector route set {source} --port {port} …` with all its ports"),
    )
}

/// The finding for a process whose guest has a kernel of its own.
pub(super) fn guest_kernel(process: &Process) -> Option<Finding> {
    let guest = process.guest.as_ref()?;
    let cause = format!(
        "{} (pid {}) is {guest}: its guest has a network stack of its own, and no cgroup hook sees \
            the guest's connects",
        process.command, process.pid
    );
    let next = "name the guest's interface on this host by --interface: its packets are answered \
        and redirected there";
    Some(Finding::new(CauseCode::GuestKernel, cause, next))
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
        "`redirector route list` shows all; `redirector route add {name} DESTINATION` adds one"
    );
    Finding::new(CauseCode::NoRoute, format!("no route has the source {name}{hint}"), next)
}
