//! Routes as text and tables, for `route` and `status`.

use std::{io, time::Duration};

use comfy_table::{Cell, CellAlignment, Color};

use super::{
    io::{Env, Paint},
    output::{bytes, span, table, write_table},
};
use crate::{
    control::api::{
        BackendCounters, BackendState, BackendView, Counters, ResolutionState, RouteView,
    },
    printable::printable,
};

/// `198.18.0.1 → 203.0.113.7, 203.0.113.8 (ports 443, 80:8080)`, or why connects are refused.
pub(super) fn render_live(route: &RouteView) -> String {
    let vip = vip(route);
    let ports = route.definition.as_ref().and_then(|definition| definition.ports.as_ref());
    let ports = ports.map(|ports| format!(" (ports {})", ports.join(", "))).unwrap_or_default();
    if route.backends.is_empty() {
        return format!("{vip} → no backend yet; {}{ports}", without_backend(route));
    }
    let backends: Vec<_> =
        route.backends.iter().map(|backend| backend.address.to_string()).collect();
    format!("{vip} → {}{ports}", backends.join(", "))
}

fn without_backend(route: &RouteView) -> &'static str {
    match route.definition.as_ref().and_then(|definition| definition.on_no_backend.as_deref()) {
        Some("pass") => "connects are left alone until there is one",
        _ => "connects are refused until there is one",
    }
}

/// The table of many routes.
pub(super) fn list(env: &mut Env<'_>, routes: &[RouteView]) -> io::Result<()> {
    let mut table = table(
        env,
        ["SOURCE", "VIP", "DESTINATION", "BACKENDS", "OPEN", "ESTABLISHED", "FAILED", "ORIGIN"],
    );
    for route in routes {
        let counters = route.counters.unwrap_or_default();
        table.add_row(vec![
            Cell::new(name(route)),
            Cell::new(vip(route)),
            Cell::new(
                route
                    .definition
                    .as_ref()
                    .map_or_else(|| "-".into(), |definition| definition.destination.to_string()),
            ),
            backends_cell(route),
            number(counters.open()),
            number(counters.established),
            number(failed(&counters)),
            Cell::new(route.origin.map_or_else(|| "-".into(), |origin| origin.to_string())),
        ]);
    }
    write_table(env.out, &table)
}

fn number(value: u64) -> Cell {
    Cell::new(value).set_alignment(CellAlignment::Right)
}

fn backends_cell(route: &RouteView) -> Cell {
    let all = route.backends.len();
    let eligible =
        route.backends.iter().filter(|backend| backend.state == BackendState::Eligible).count();
    match (eligible, all) {
        (_, 0) => Cell::new("none").fg(Color::Red),
        (eligible, all) if eligible == all => Cell::new(format!("{all} of {all}")).fg(Color::Green),
        (0, all) => Cell::new(format!("0 of {all}")).fg(Color::Red),
        (eligible, all) => Cell::new(format!("{eligible} of {all}")).fg(Color::Yellow),
    }
}

/// One route in full.
pub(super) fn show(env: &mut Env<'_>, route: &RouteView) -> io::Result<()> {
    let paint = Paint(env.colour);
    writeln!(env.out, "{}", paint.strong(&name(route)))?;
    let mut line = |key: &str, value: &str| writeln!(env.out, "  {key:<14} {value}");
    line("vip", &vip(route))?;
    if let Some(definition) = &route.definition {
        line("destination", &definition.destination.to_string())?;
        line("ports", &joined(definition.ports.as_ref(), "all, unchanged"))?;
        line("resolver", definition.resolver.as_deref().unwrap_or("dns.upstreams"))?;
        line("source ips", &joined(definition.source_ips.as_ref(), "the kernel's choice"))?;
        line("on no backend", definition.on_no_backend.as_deref().unwrap_or("refuse"))?;
        line("idle timeout", definition.idle_timeout.as_deref().unwrap_or("off"))?;
    }
    if let Some(origin) = route.origin {
        line("origin", &origin.to_string())?;
    }
    line("live", if route.live { "yes" } else { "no" })?;
    line("addresses", &render_resolution(route))?;
    if let Some(resolution) = &route.resolution {
        if !resolution.rejected.is_empty() {
            let rejected = resolution.rejected.iter();
            let list: Vec<_> =
                rejected.map(|at| format!("{} ({})", at.address, at.reason)).collect();
            line("not used", &list.join(", "))?;
        }
        if !resolution.left_out.is_empty() {
            let list: Vec<_> = resolution.left_out.iter().map(ToString::to_string).collect();
            line("left out", &format!("{}, for lack of room", list.join(", ")))?;
        }
    }
    if let Some(counters) = &route.counters {
        line("connects", &render_counters(counters))?;
        line(
            "traffic",
            &format!(
                "{} received, {} sent on closed connections",
                bytes(counters.rx_bytes),
                bytes(counters.tx_bytes)
            ),
        )?;
    }
    if route.backends.is_empty() {
        return writeln!(env.out, "\n  no backend: {}", without_backend(route));
    }
    writeln!(env.out)?;
    backends(env, &route.backends)
}

fn backends(env: &mut Env<'_>, backends: &[BackendView]) -> io::Result<()> {
    let mut table = table(
        env,
        ["BACKEND", "STATE", "OPEN", "ESTABLISHED", "RESET", "REFUSED", "TIMED OUT", "OTHER"],
    );
    for backend in backends {
        let counters: BackendCounters = backend.counters.unwrap_or_default();
        table.add_row(vec![
            Cell::new(backend.address),
            state_cell(backend),
            number(counters.established.saturating_sub(counters.closed)),
            number(counters.established),
            number(counters.reset),
            number(counters.refused),
            number(counters.timed_out),
            number(counters.unreachable + counters.unsent),
        ]);
    }
    write_table(env.out, &table)
}

fn state_cell(backend: &BackendView) -> Cell {
    match backend.state {
        BackendState::Eligible if !backend.ejections.is_empty() => {
            Cell::new(render_clients(backend)).fg(Color::Yellow)
        }
        BackendState::Eligible => Cell::new("eligible").fg(Color::Green),
        BackendState::Ejected => Cell::new(render_ejected(backend)).fg(Color::Yellow),
    }
}

/// `eligible, but at port 443 not for the cgroup /kubepods/pod7`.
fn render_clients(backend: &BackendView) -> String {
    let clients = backend.ejections.iter().filter_map(|ejection| {
        let client = ejection.client.as_deref()?;
        Some(format!("at port {} not for {}", ejection.port, printable(client)))
    });
    let list: Vec<String> = clients.collect();
    if list.is_empty() { "eligible".into() } else { format!("eligible, but {}", list.join(", ")) }
}

/// `ejected after 3 failures, retry in 4 s`.
pub(super) fn render_ejected(backend: &BackendView) -> String {
    let noun = backend.cause.unwrap_or_default().noun();
    let failures = crate::control::count(backend.failures as usize, noun);
    match backend.retry_in_ms {
        Some(left) => {
            format!("ejected after {failures}, retry in {}", span(Duration::from_millis(left)))
        }
        None => format!("ejected after {failures}"),
    }
}

fn render_resolution(route: &RouteView) -> String {
    let Some(resolution) = &route.resolution else {
        return "from the kernel; no agent resolves the destination".into();
    };
    let error = resolution.error.as_deref().unwrap_or("no answer yet");
    match resolution.state {
        ResolutionState::Literal => "literal".into(),
        ResolutionState::Fresh => match resolution.ttl_seconds {
            Some(ttl) => format!("fresh, TTL {ttl} s"),
            None => "fresh".into(),
        },
        ResolutionState::Stale => format!("stale: {error}"),
        ResolutionState::Unresolved => format!("unknown: {error}"),
    }
}

fn render_counters(counters: &Counters) -> String {
    let mut text = format!(
        "{} started, {} established, {} open",
        counters.started,
        counters.established,
        counters.open()
    );
    for (number, what) in [
        (counters.reset, "reset by the backend before a byte arrived"),
        (counters.refused, "refused by the backend"),
        (counters.timed_out, "timed out"),
        (counters.unreachable, "unreachable"),
        (counters.aborted, "aborted by the caller"),
        (counters.unsent, "never sent"),
        (counters.denied, "denied (port or backend)"),
        (counters.passed, "left alone"),
        (counters.all_ejected, "sent to an ejected backend because all were"),
    ] {
        if number > 0 {
            text.push_str(&format!(", {number} {what}"));
        }
    }
    text
}

fn failed(counters: &Counters) -> u64 {
    let c = counters;
    c.reset + c.refused + c.timed_out + c.unreachable + c.unsent
}

/// The source, or that it is unknown.
pub(super) fn name(route: &RouteView) -> String {
    route.source.as_ref().map_or_else(|| "(name unknown)".into(), ToString::to_string)
}

fn vip(route: &RouteView) -> String {
    match (route.vip.ipv4, route.vip.ipv6) {
        (Some(v4), Some(v6)) => format!("{v4} {v6}"),
        (Some(v4), None) => v4.to_string(),
        (None, Some(v6)) => v6.to_string(),
        (None, None) => format!("#{}", route.vip.index),
    }
}

/// A list as one text, or what stands for none.
fn joined(list: Option<&Vec<String>>, none: &str) -> String {
    list.filter(|list| !list.is_empty()).map_or_else(|| none.to_owned(), |list| list.join(", "))
}
