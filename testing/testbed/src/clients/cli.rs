//! The command line of `testbed-client`: the programs that run inside an executor.

use anyhow::{Context, Result};

use super::connect_load::{self, LoadOptions};
use super::connect_storm::{self, StormOptions};
use super::dns_load::{self, DnsLoadOptions};

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
}

/// Runs `testbed-client`.
pub fn run(client: Client) -> Result<()> {
    let options = match client.verb {
        Verb::Connect(options) => options,
        Verb::Storm(options) => return connect_storm::run(options),
        Verb::Queries(options) => return dns_load::run(&options),
    };
    let report = connect_load::connect(&options)?;
    println!("{}", serde_json::to_string(&report).context("failed to write the report")?);
    Ok(())
}
