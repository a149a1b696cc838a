//! What clients and the observer of the node have seen.

use testbed::clients::{Operation, Task};

/// A client: a process in a place of its own.
#[derive(Clone, Debug)]
pub(crate) struct ClientInfo {
    /// Its name in the report.
    pub(crate) name: String,
    /// Its tasks, numbered as in its operations.
    pub(crate) tasks: Vec<Task>,
}

/// An operation of a client.
#[derive(Clone, Debug)]
pub(crate) struct Record {
    /// The client's number.
    pub(crate) client: usize,
    /// What it did.
    pub(crate) operation: Operation,
}

/// The kernel's counters of the route under observation, and the answers to its name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Deserialize)]
#[serde(default)]
pub(crate) struct Counters {
    /// Redirected connects.
    pub(crate) started: u64,
    /// Accepted by a backend.
    pub(crate) established: u64,
    /// Answered with a reset.
    pub(crate) refused: u64,
    /// Not answered.
    pub(crate) timed_out: u64,
    /// Answered with an ICMP error.
    pub(crate) unreachable: u64,
    /// Given up by the client.
    pub(crate) aborted: u64,
    /// Never left.
    pub(crate) unsent: u64,
    /// Established and ended.
    pub(crate) closed: u64,
    /// Refused on the node.
    pub(crate) denied: u64,
    /// Answers in the kernel to queries for the name.
    pub(crate) answered: u64,
}

impl Counters {
    /// Outcomes of connects.
    pub(crate) fn ended(&self) -> u64 {
        self.established
            + self.refused
            + self.timed_out
            + self.unreachable
            + self.aborted
            + self.unsent
    }
}

/// A reading of what must not grow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Sample {
    /// When.
    pub(crate) at_us: u64,
    /// The agent's pid; readings of one agent are compared with each other.
    pub(crate) pid: u32,
    /// The agent's resident memory.
    pub(crate) memory_kib: u64,
    /// The agent's descriptors.
    pub(crate) descriptors: u64,
    /// The kernel's memory of the maps that the agent has open, which grows with their entries.
    pub(crate) map_kib: u64,
    /// Sockets in the namespaces of node and clients, without those that wait for late segments.
    pub(crate) sockets: u64,
    /// Files below the product's directory in the bpf file system.
    pub(crate) pins: u64,
}
