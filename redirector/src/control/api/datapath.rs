//! The shapes of the datapath, part of the status.

use std::{
    net::{IpAddr, SocketAddr},
    path::PathBuf,
};

use serde::{Deserialize, Serialize};

use crate::control::api::packet::PacketInfo;

/// The datapath in the kernel.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DatapathInfo {
    /// The version of what kernel and user space share.
    pub abi: u32,
    /// The directory of its pins.
    pub pins: PathBuf,
    /// The pool's IPv4 range.
    pub pool_ipv4: String,
    /// The pool's IPv6 range, if it has one.
    pub pool_ipv6: Option<String>,
    /// Milliseconds since the agent's last heartbeat; null when there never was one.
    pub heartbeat_age_ms: Option<u64>,
    /// The programs, by name.
    pub programs: Vec<String>,
    /// Where they are attached.
    pub attachments: Vec<AttachmentInfo>,
    /// Where cgroup2 is mounted, to which the paths and patterns of `attach.cgroups` are relative;
    /// null when it is not mounted.
    #[serde(default)]
    pub cgroup2_mount: Option<PathBuf>,
    /// Cgroups that could not be attached to; the agent keeps retrying. Empty without an agent.
    #[serde(default)]
    pub pending_attachments: Vec<PendingAttachment>,
    /// What holds sockets and is not redirected.
    #[serde(default)]
    pub uncovered: Vec<UncoveredCgroup>,
    /// The source ports in use towards backends, the most first: 64 pairs at most. Only sockets of
    /// the agent's network namespace are known: those of executors with the host's network.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub source_ports: Vec<SourcePortsInfo>,
    /// The pods of this node; null without access to the API of Kubernetes.
    #[serde(default)]
    pub pods: Option<PodsInfo>,
    /// How many removed cgroups still have open sockets, for which the programs stay. 0 without an
    /// agent.
    #[serde(default)]
    pub draining_cgroups: usize,
    /// Programs of others on the hooks of the first 32 attachments.
    #[serde(default)]
    pub foreign_programs: Vec<ForeignProgram>,
    /// The last upgrade; null when there was none.
    #[serde(default)]
    pub upgraded: Option<UpgradeInfo>,
    /// The packet datapath.
    #[serde(default)]
    pub packet: PacketInfo,
}

/// A cgroup that the programs are attached to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AttachmentInfo {
    /// The cgroup's directory; null when only its ID is known.
    pub cgroup: Option<PathBuf>,
    /// Its ID (the inode of its directory).
    pub cgroup_id: u64,
    /// The programs that are attached there.
    pub programs: Vec<String>,
    /// Whether the cgroup still exists, with programs attached.
    pub live: bool,
}

/// The source ports that are in use from one address towards one backend.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourcePortsInfo {
    /// The source address.
    pub source: IpAddr,
    /// The backend and its port.
    pub backend: SocketAddr,
    /// How many ports, those in TIME_WAIT included.
    pub ports: u64,
}

/// A cgroup that could not be attached to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PendingAttachment {
    /// The cgroup's directory.
    pub cgroup: PathBuf,
    /// Why attaching failed.
    pub reason: String,
}

/// A cgroup of a preset that is not attached, or one with connections of the host's own network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UncoveredCgroup {
    /// The cgroup's directory.
    pub cgroup: PathBuf,
    /// The word of `attach.cgroups` that covers it; null if no preset does.
    pub preset: Option<String>,
    /// TCP connections that it has opened in the host's network.
    pub connections: usize,
}

/// The pods of the node, as the API server names them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PodsInfo {
    /// Pods that are redirected.
    pub selected: usize,
    /// Pods that `attach.namespaces`, `pod_names` or `pod_labels` leave out.
    pub left_out: usize,
    /// Why they may be out of date; null while they are watched.
    pub error: Option<String>,
}

/// A program of another product on one of our hooks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ForeignProgram {
    /// The attached cgroup whose connects it sees; it may be attached there or above.
    pub cgroup: PathBuf,
    /// The hook, such as `connect4` or `sock_ops`.
    pub hook: String,
    /// The kernel's ID for it.
    pub id: u32,
    /// Its name; null without the privilege to read it.
    pub name: Option<String>,
    /// Whether it runs before ours, which then sees the address that it has left.
    pub runs_first: bool,
}

/// An upgrade (or downgrade) of the agent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UpgradeInfo {
    /// When the new version served for the first time.
    pub at: jiff::Timestamp,
    /// The version before; null when it is known only by its maps.
    pub from_version: Option<String>,
    /// The ABI of its maps.
    pub from_abi: u32,
    /// The new version.
    pub to_version: String,
    /// The ABI of its maps.
    pub to_abi: u32,
}
