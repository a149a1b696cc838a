//! The shapes of the packet datapath, part of the status.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// The packet datapath: names that are answered in the kernel, and guests.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PacketInfo {
    /// Why nothing is attached to interfaces; null when something may be.
    pub unavailable: Option<String>,
    /// Whether queries for sources are answered by packet.
    pub answers_names: bool,
    /// Sources that are answered with a virtual address.
    pub names: usize,
    /// What the programs counted since the maps were created, by name.
    pub counters: BTreeMap<String, u64>,
    /// The interfaces of this host, and what serves the packets that pass them.
    pub interfaces: Vec<InterfaceInfo>,
}

/// An interface of this host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InterfaceInfo {
    /// Its index.
    pub index: u32,
    /// Its name; null when it is gone.
    pub name: Option<String>,
    /// Its kind, such as `veth` or `tun`; empty for a physical one, or when it is not known.
    pub kind: String,
    /// What answers queries for sources that pass it.
    pub names: ServedBy,
    /// What redirects TCP to virtual addresses that passes it.
    pub connects: ServedBy,
    /// Whether attaching failed; the agent keeps retrying.
    pub failed: bool,
    /// Why nothing serves it, or not everything.
    pub reason: Option<String>,
    /// How the programs are attached: `tcx` or `clsact`; null when they are not.
    pub hook: Option<String>,
    /// The programs that are attached.
    pub programs: Vec<String>,
    /// How often ours were attached again, since another program had been attached in front.
    pub reattached: u32,
    /// Programs of others that run before ours and may end the chain.
    pub preceded_by: Vec<String>,
    /// The flows of its guest; null for an interface that serves none, or if they are unreadable.
    pub flows: Option<FlowsInfo>,
}

impl InterfaceInfo {
    /// The name, or the index of an interface that is gone, for people.
    pub(crate) fn label(&self) -> String {
        interface_label(self.name.as_deref(), self.index)
    }
}

/// See [`InterfaceInfo::label`].
pub(crate) fn interface_label(name: Option<&str>, index: u32) -> String {
    name.map_or_else(|| format!("number {index}"), str::to_owned)
}

/// The flows of a guest's interface: TCP connections that are redirected by packet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FlowsInfo {
    /// Established flows.
    pub open: u64,
    /// Flows whose SYN of the last 64 seconds has no answer yet.
    pub half_open: u64,
    /// New flows that were refused for want of room, since the interface was attached to.
    pub refused: u64,
    /// The most flows that may be open.
    pub limit: u64,
}

/// Which way serves a workload.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ServedBy {
    /// The packet programs of the interface.
    Packet,
    /// The cgroup programs: the sockets are this host's own.
    Cgroup,
    /// The DNS shim.
    Shim,
    /// Nothing.
    #[default]
    None,
}

impl ServedBy {
    /// The word in JSON and text.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Packet => "packet",
            Self::Cgroup => "cgroup",
            Self::Shim => "shim",
            Self::None => "none",
        }
    }
}
