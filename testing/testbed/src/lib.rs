//! The test bed: a node, its executors and a customer's site on one machine, in namespaces and a
//! cgroup of their own.
//!
//! It serves `cargo xtask demo`, `cargo xtask bench` and the real-kernel tests in
//! `redirector/tests`. Namespaces, cgroups and bpffs are the kernel's; the servers are HAProxy,
//! nsd, nginx, docker-registry and pypiserver. It must never reach beyond the namespaces it made,
//! and must leave nothing behind.
//!
//! ```text
//!   executor 10.61.1.2 ──veth── node 198.51.100.1, .2 ──veth── customer
//!   resolv.conf: 169.254.20.53  │ masquerade to .1             203.0.113.7, .8  HAProxy
//!   cgroup kubepods/pod<name>   │ bpffs, cgroup root           203.0.113.53     nsd
//!                                                              10.20.0.10       nginx
//! ```
//!
//! **Lifetime.** File descriptors of this process hold the namespaces: when it dies, they and every
//! mount and device in them are gone. Children carry `PR_SET_PDEATHSIG`. The cgroup directory and
//! the folder of logs are removed when the [`Rig`] is dropped and on SIGINT, SIGTERM and SIGHUP;
//! the next rig sweeps what a SIGKILL left.

pub mod agent;
pub mod binaries;
pub mod browser;
pub mod capture;
pub mod client_programs;
pub mod clients;
pub mod cpio;
pub mod customer;
pub mod debian_package;
pub mod dns_query;
pub mod dnsmasq;
pub mod executor;
pub mod foreign_filter;
pub mod foreign_program;
pub mod guests;
mod isolation;
pub mod lookup_programs;
pub mod node;
pub mod packages;
pub mod process;
pub mod rig;
pub mod sample_artifacts;
pub mod service;
pub mod topology;
mod unused_address;
pub mod workspace;

pub use agent::{Agent, AgentOptions};
pub use customer::Customer;
pub use executor::{Executor, ExecutorOptions, Network};
pub use isolation::{
    cleanup::interrupted, descriptors::without_descriptors, isolated_netns::IsolatedNetns,
    mounts::ResolvConf, namespaces::Namespaces, sandbox::Sandbox, scope::leftovers,
};
pub use node::Node;
pub use rig::Rig;
pub use unused_address::unused_address;
