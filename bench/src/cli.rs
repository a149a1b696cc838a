//! The command line of the benchmarks.

use anyhow::Result;

use crate::{agent, bulk, connect, dns, options::Options};

/// Arguments of `cargo xtask bench`.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// What is measured.
    #[command(subcommand)]
    pub what: What,
}

/// What is measured.
#[derive(Clone, Debug, clap::Subcommand)]
pub enum What {
    /// The cost of a connect: missed, redirected, and by the peers' ways
    Connect(Options),
    /// Queries a second, latency and memory of the DNS shim, beside unbound and dnsmasq
    Dns(dns::Options),
    /// What the agent costs, and how soon a route change is live
    Agent(Options),
    /// How soon a pool full of routes is in the kernel, and one route's change
    Bulk(bulk::Options),
}

impl Args {
    /// Whether the release binary must be built first.
    #[must_use]
    pub fn wants_build(&self) -> bool {
        match &self.what {
            What::Connect(options) | What::Agent(options) => options.binary.is_none(),
            What::Bulk(options) => options.common.binary.is_none(),
            What::Dns(_) => false,
        }
    }

    /// The example of the product that must be built first.
    #[must_use]
    pub fn wants_example(&self) -> Option<&'static str> {
        match &self.what {
            What::Bulk(options) if options.program.is_none() => Some(bulk::EXAMPLE),
            What::Dns(options) if options.shim.is_none() => Some(dns::EXAMPLE),
            _ => None,
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
    }
}
