//! What the debug build (feature `debug-log`) logs: each decision and outcome. The macro `log!`
//! calls these functions; in the ordinary build it is empty.

use redirector_common::{
    addr::{Ip6Be, PortBe},
    decide::{Backend, ConnectOutcome, Denial},
    dns::SLOTS,
    event::{DenyReason, EventKind},
    origin::Origin,
};

mod label;
mod lines;

use label::Label;

/// A connect is sent to the backend in its origin.
#[inline(always)]
pub(crate) fn redirected(origin: &Origin, backend: Backend) {
    let label = if backend.all_ejected() {
        Label::new("all_ejected")
    } else if backend.is_trial() {
        Label::new("trial")
    } else {
        Label::new("redirected")
    };
    lines::connect(origin, label);
}

/// A backend has accepted a connect.
#[inline(always)]
pub(crate) fn established(origin: &Origin) {
    lines::connect(origin, Label::new("established"));
}

/// An established connection has ended.
#[inline(always)]
pub(crate) fn closed(origin: &Origin) {
    lines::connect(origin, Label::new("closed"));
}

/// A connect has ended without being established.
#[inline(always)]
pub(crate) fn failed(origin: &Origin, outcome: ConnectOutcome) {
    let label = match outcome {
        ConnectOutcome::Refused => Label::new("refused"),
        ConnectOutcome::TimedOut => Label::new("timed_out"),
        ConnectOutcome::Unreachable => Label::new("unreachable"),
        ConnectOutcome::Aborted => Label::new("aborted"),
        ConnectOutcome::Unsent => Label::new("unsent"),
    };
    lines::connect(origin, label);
}

/// The backend of a connect is ejected.
#[inline(always)]
pub(crate) fn ejected(origin: &Origin) {
    lines::connect(origin, Label::new("ejected"));
}

/// A connect is not redirected.
#[inline(always)]
pub(crate) fn denied(route: u32, vip_port: PortBe, denial: Denial, reason: DenyReason) {
    let verdict = if denial.kind() == EventKind::Passed as u8 {
        Label::new("passed")
    } else {
        Label::new("denied")
    };
    let reason = match reason {
        DenyReason::NoRoute => Label::new("no_route"),
        DenyReason::PortNotListed => Label::new("port_not_listed"),
        DenyReason::NoBackend => Label::new("no_backend"),
        DenyReason::NoMemory => Label::new("no_memory"),
        DenyReason::TooManyFlows => Label::new("too_many_flows"),
        DenyReason::NoSourcePort => Label::new("no_source_port"),
    };
    lines::denied((route, vip_port), verdict, reason);
}

/// A query is redirected to the shim's port of this slot.
#[inline(always)]
pub(crate) fn intercepted(resolver: Ip6Be, slot: u32) {
    lines::query(resolver, slot, Label::new("redirected"));
}

/// A query is left alone, since the agent's heartbeat has stopped.
#[inline(always)]
pub(crate) fn agent_stale(resolver: Ip6Be) {
    lines::query(resolver, SLOTS, Label::new("agent_stale"));
}
