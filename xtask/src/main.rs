//! `cargo xtask VERB`: what contributors and CI run.

use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[derive(Parser)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Shows the whole job on this machine.
    Demo(xtask::demo::Args),
    /// Programs that run inside an executor.
    #[command(hide = true)]
    Client(xtask::testbed::client::ClientArgs),
}

fn main() -> ExitCode {
    let done = match Cli::parse().verb {
        Verb::Demo(args) => xtask::demo::run(args),
        Verb::Client(args) => xtask::testbed::client::run(args),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
