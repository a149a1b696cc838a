//! The command line of the benchmarks.

use anyhow::Result;

use crate::{
    agent, bulk, connect, dns, failover, guests, memory, options::Options, packets, scale,
    throughput, upgrade,
};

/// Arguments of `cargo xtask bench`.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// The benchmark.
    #[command(subcommand)]
    pub what: What,
}

/// The benchmarks.
#[derive(Clone, Debug, clap::Subcommand)]
pub enum What {
    /// The cost of a connect: not redirected, redirected, and by peers
    Connect(connect::Options),
    /// Queries a second, latency and memory of the DNS shim, compared with unbound and dnsmasq
    Dns(dns::Options),
    /// The cost of the agent, and how soon a route change applies
    Agent(Options),
    /// The time to write a full pool of routes to the kernel, and to change one
    Bulk(bulk::Options),
    /// The cost of packets at guests' interfaces, and of guests' redirected connections
    Guests(guests::Options),
    /// Connects, look-ups, loads and changes with up to 50,000 routes, and with peers
    Scale(Options),
    /// What clients notice when an address dies, with redirector and with peers
    Failover(Options),
    /// What clients lose in an upgrade, a crash and a flood, with redirector and with peers
    Upgrade(Options),
    /// Memory for open connections and for routes, with redirector and with peers
    Memory(Options),
    /// The rate of long transfers and their processor time, with redirector and with peers
    Throughput(Options),
}

impl Args {
    /// Whether the benchmark needs the release binary of this workspace.
    #[must_use]
    pub fn wants_build(&self) -> bool {
        match &self.what {
            What::Connect(options) => options.common.binary.is_none(),
            What::Agent(options)
            | What::Scale(options)
            | What::Failover(options)
            | What::Upgrade(options)
            | What::Memory(options)
            | What::Throughput(options) => options.binary.is_none(),
            What::Bulk(options) => options.common.binary.is_none(),
            What::Dns(_) | What::Guests(_) => false,
        }
    }

    /// The examples of the product that the benchmark needs.
    #[must_use]
    pub fn wants_examples(&self) -> Vec<&'static str> {
        match &self.what {
            What::Bulk(options) if options.program.is_none() => vec![bulk::EXAMPLE],
            What::Guests(options) if options.program.is_none() => vec![packets::EXAMPLE],
            What::Dns(options) => {
                let shim = options.shim.is_none().then_some(dns::EXAMPLE);
                let packets = options.packets.is_none().then_some(packets::EXAMPLE);
                shim.into_iter().chain(packets).collect()
            }
            _ => Vec::new(),
        }
    }
}

/// Runs the benchmark that the arguments name, prints its result as a table, and writes it into the
/// results' folder. A missed target is shown in the table; it is not an error.
pub fn run(args: &Args) -> Result<()> {
    match &args.what {
        What::Connect(options) => connect::run(options),
        What::Dns(options) => dns::run(options),
        What::Agent(options) => agent::run(options),
        What::Bulk(options) => bulk::run(options),
        What::Guests(options) => guests::run(options),
        What::Scale(options) => scale::run(options),
        What::Failover(options) => failover::run(options),
        What::Upgrade(options) => upgrade::run(options),
        What::Memory(options) => memory::run(options),
        What::Throughput(options) => throughput::run(options),
    }
}
