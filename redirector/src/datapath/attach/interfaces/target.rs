//! What is attached to an interface, and what was found there.

use redirector_common::names::{self, Direction};
use serde::{Deserialize, Serialize};

use crate::datapath::error::DatapathError;

/// The programs of a guest's interface, in the order in which they are attached and swapped: first
/// the one that restores what the other rewrites.
const GUEST_PROGRAMS: &[&str] = &[names::EGRESS, names::INGRESS];

/// The programs of one of the host's own interfaces.
const HOST_PROGRAMS: &[&str] = &[names::HOST_EGRESS];

/// Whose packets pass an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum InterfaceRole {
    /// A container or a guest behind it: the host side of a veth, a tap, a netkit's primary.
    Guest,
    /// The host itself: `lo`, the uplinks, bridges.
    Host,
}

impl InterfaceRole {
    /// The programs for it, in the order in which they are attached.
    pub(crate) fn programs(self) -> &'static [&'static str] {
        match self {
            Self::Guest => GUEST_PROGRAMS,
            Self::Host => HOST_PROGRAMS,
        }
    }
}

/// How programs are attached to an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TcHook {
    /// A link to the TCX hook, pinned (6.6 and later).
    Tcx,
    /// A filter of the clsact qdisc.
    Clsact,
}

impl TcHook {
    /// Its name, as `tc` and bpftool write it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Tcx => "tcx",
            Self::Clsact => "clsact",
        }
    }
}

/// An interface to attach to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InterfaceTarget {
    /// Its index in the caller's network namespace.
    pub index: u32,
    /// Its name, for messages.
    pub name: String,
    /// Which programs it gets.
    pub role: InterfaceRole,
    /// Whether TCP of its guest is redirected. Without it only names are answered.
    pub redirects: bool,
}

/// An interface that the programs are attached to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InterfaceAttachment {
    /// Its index.
    pub index: u32,
    /// Its name; absent if it was not found.
    pub name: Option<String>,
    /// Whose packets pass it.
    pub role: InterfaceRole,
    /// How the programs are attached.
    pub hook: TcHook,
    /// The programs that are attached.
    pub programs: Vec<String>,
    /// Whether TCP of its guest is redirected.
    pub redirects: bool,
    /// How often ours were attached again, since another program had been attached in front.
    pub reattached: u32,
    /// Foreign programs that run before ours and may end the chain, as `tcx ingress: ID 17`.
    pub preceded_by: Vec<String>,
}

/// An interface that could not be attached to.
#[derive(Debug)]
pub struct InterfaceFailure {
    /// Its index.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// The reason, with the program.
    pub error: DatapathError,
}

/// What a check of an interface found, and changed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct InterfaceFinding {
    /// Its index.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// A program of ours was not there any more; it was attached again.
    pub was_missing: bool,
    /// A pin of ours had been removed; the program was pinned again.
    pub was_unpinned: bool,
    /// Foreign programs that had been attached in front; ours were attached again before them.
    pub overtaken: Vec<String>,
    /// Foreign programs that stay in front of ours.
    pub preceded_by: Vec<String>,
}

/// The direction of a program.
pub(crate) fn direction(program: &str) -> Option<Direction> {
    let all = names::PACKET_PROGRAMS.iter();
    all.clone().find(|known| known.name == program).map(|known| known.direction)
}

/// The role that a set of attached programs shows; none if there are none of ours.
pub(crate) fn role_of<'a>(mut programs: impl Iterator<Item = &'a str>) -> Option<InterfaceRole> {
    let first = programs.find(|program| direction(program).is_some())?;
    Some(if HOST_PROGRAMS.contains(&first) { InterfaceRole::Host } else { InterfaceRole::Guest })
}

/// The name of a direction, as `tc` writes it.
pub(crate) const fn direction_name(direction: Direction) -> &'static str {
    match direction {
        Direction::Ingress => "ingress",
        Direction::Egress => "egress",
    }
}
