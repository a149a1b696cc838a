//! The programs that tests, the demo and the benchmarks run inside an executor: cgroups hold
//! processes, not threads, so a client must be a process of its own.

use std::process::ExitCode;

use clap::Parser;
use testbed::clients::cli::{self, Client};

fn main() -> ExitCode {
    match cli::run(Client::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
