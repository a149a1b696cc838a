//! The datapath on the real kernel: programs, maps, links and pins, without the agent above them.
//!
//! Each test has a rig of its own: a node with its own cgroup root and bpf file system, an executor
//! in a pod's cgroup, a customer behind a link.

mod attach;
mod clients;
mod connect;
mod debug_log;
mod events;
mod failure;
mod faults;
mod foreign_programs;
mod interception;
mod ipv6;
mod judgement;
mod options;
mod pins;
mod pool_change;
mod resets;
mod rig;
mod source_ports;
mod swaps;
mod upgrade;
mod upgrade_killed;
