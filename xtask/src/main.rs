//! `cargo xtask`: everything a contributor runs. One file per verb; each builds and installs what
//! it needs.

mod arch;
mod bench;
mod build;
mod build_ebpf;
mod cross;
mod deb;
mod demo;
mod executor_vm;
mod flags;
mod fuzz;
mod image;
mod kube;
mod lock;
mod own_program;
mod progress;
mod reproduce;
mod sbom;
mod setup;
mod soak;
mod test;
mod vm;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(
    name = "cargo xtask",
    bin_name = "cargo xtask",
    about = "Everything a contributor runs",
    disable_help_subcommand = true
)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Install what the other tasks need
    Setup(setup::Args),
    /// Build the programs for the kernel and check the object
    BuildEbpf,
    /// Build the static release binary
    Build,
    /// Build the container image
    Image(image::Args),
    /// List what the binary contains, with the licences
    Sbom(sbom::Args),
    /// Build everything in another folder too, and compare
    Reproduce,
    /// Build the Debian package
    Deb(deb::Args),
    /// Play the whole job on this machine: a customer, a node, an executor, and failures
    Demo(demo::Args),
    /// Take pictures of the commands' output from a real run, for the documentation
    Docs(demo::captures::Args),
    /// Measure the cost of redirector, compared with its peers
    Bench(bench::Args),
    /// Play the datapath's scenarios on kernels from 5.10 to the newest, in emulated machines
    Vm(vm::Args),
    /// Test the chart and the agent on a real Kubernetes, built from Debian's source once
    Kube(kube::Args),
    /// Test the package on a machine with systemd and Docker, in emulation
    ExecutorVm(executor_vm::Args),
    /// Run clients under load while everything goes wrong, and hold them against the contract
    Soak(soak::Args),
    /// Run every check and test
    Test(test::Args),
    /// Fuzz what parses foreign bytes with libFuzzer
    Fuzz(fuzz::Args),
}

fn main() -> ExitCode {
    let outcome = match Cli::parse().verb {
        Verb::Setup(args) => setup::run(&args),
        Verb::BuildEbpf => build_ebpf::run().map(|()| true),
        Verb::Build => build::run().map(|()| true),
        Verb::Image(args) => image::run(&args).map(|()| true),
        Verb::Sbom(args) => sbom::run(&args).map(|()| true),
        Verb::Reproduce => reproduce::run().map(|()| true),
        Verb::Deb(args) => deb::run(&args).map(|()| true),
        Verb::Demo(args) => demo::run(args).map(|()| true),
        Verb::Docs(args) => demo::captures::run(&args).map(|()| true),
        Verb::Bench(args) => bench::run(&args).map(|()| true),
        Verb::Vm(args) => vm::run(&args),
        Verb::Kube(args) => kube::run(&args),
        Verb::ExecutorVm(args) => executor_vm::run(&args),
        Verb::Soak(args) => soak::run(&args),
        Verb::Test(args) => test::run(&args),
        Verb::Fuzz(args) => fuzz::run(&args).map(|()| true),
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
