//! The command line of `testbed-client`: the programs that run inside an executor.

use anyhow::{Context, Result};
use serde::Serialize;

use super::connect_load::{self, LoadOptions};
use super::connect_storm::{self, StormOptions};
use super::dns_load::{self, DnsLoadOptions};
use super::flood::{self, FloodOptions};
use super::lookups::{self, LookupOptions};
use super::operations::{self, OperationsOptions};

/// `testbed-client`: small programs that tests and the demo run inside an executor.
#[derive(Clone, Debug, clap::Parser)]
#[command(disable_help_subcommand = true)]
pub struct Client {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Clone, Debug, clap::Subcommand)]
enum Verb {
    /// Connects at a steady rate and prints a report in JSON.
    Connect(LoadOptions),
    /// Connects as fast as it can until its input ends, and prints a report in JSON.
    Storm(StormOptions),
    /// Asks a resolver at a steady rate, and prints a report in JSON.
    Queries(DnsLoadOptions),
    /// Looks names up at a steady rate, checks each answer, and prints a report in JSON.
    Lookups(LookupOptions),
    /// Connects and looks names up until its input ends, and prints a line for each operation.
    Operations(OperationsOptions),
    /// Sends SYNs or queries as fast as it can, and prints their number.
    Flood(FloodOptions),
}

/// Runs `testbed-client`.
pub fn run(client: Client) -> Result<()> {
    let options = match client.verb {
        Verb::Connect(options) => options,
        Verb::Storm(options) => return connect_storm::run(options),
        Verb::Queries(options) => return dns_load::run(&options),
        Verb::Operations(options) => return operations::run(options),
        Verb::Lookups(options) => return print(&lookups::run(&options)?),
        Verb::Flood(options) => return print(&flood::run(&options)?),
    };
    print(&connect_load::connect(&options)?)
}

fn print(report: &impl Serialize) -> Result<()> {
    println!("{}", serde_json::to_string(report).context("failed to write the report")?);
    Ok(())
}
