//! `cargo xtask`: everything a contributor runs. One file per verb; each does first what it needs.

mod build;
mod build_ebpf;
mod exec;
mod lock;
mod progress;
mod setup;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", about = "Everything a contributor runs", disable_help_subcommand = true)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Install what the other tasks need; says first what
    Setup(setup::Args),
    /// Build the programs for the kernel and check the object
    BuildEbpf,
    /// Build the static release binary
    Build,
}

fn main() -> ExitCode {
    let outcome = match Cli::parse().verb {
        Verb::Setup(args) => setup::run(&args),
        Verb::BuildEbpf => build_ebpf::run().map(|()| true),
        Verb::Build => build::run().map(|()| true),
    };
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
