//! `redirector-bench`: the benchmarks, and the processes that they measure. `cargo xtask bench`
//! builds what they need and calls them.

use std::process::ExitCode;

use clap::Parser;
use redirector_bench::{
    cli::{Args, What, run},
    steady, worker,
};

#[derive(Parser)]
#[command(about = "Measure what the redirector costs", disable_help_subcommand = true)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(clap::Subcommand)]
enum Verb {
    #[command(flatten)]
    Bench(What),
    /// Connect in batches, on command, and print the time that each took
    #[command(hide = true)]
    Measure,
    /// Answer a byte with a byte, for `measure`
    #[command(hide = true)]
    Serve(worker::ServeOptions),
    /// Connect at a steady rate, and report each attempt
    #[command(hide = true)]
    Steady(steady::Options),
}

fn main() -> ExitCode {
    let outcome = match Cli::parse().verb {
        Verb::Bench(what) => run(&Args { what }),
        Verb::Measure => worker::measure(),
        Verb::Serve(options) => worker::serve(options),
        Verb::Steady(options) => steady::run(&options),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
