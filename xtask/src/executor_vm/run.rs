//! Builds what the tests need, and runs them.

use std::time::Duration;

use anyhow::ensure;
use testbed::{capture, workspace};

use super::image;
use crate::{
    arch::Arch,
    deb,
    setup::{self, needs::Group},
};

/// Ten minutes on an idle machine, all of it emulated.
const LIMIT: Duration = Duration::from_secs(5400);

/// Arguments of `cargo xtask executor-vm`.
#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    /// Only make the machine's image, if it is not in the cache
    #[arg(long)]
    image_only: bool,
    /// Use the package that is in the target directory
    #[arg(long, conflicts_with = "image_only")]
    no_build: bool,
}

/// Runs the task; false when a check failed.
pub(crate) fn run(args: &Args) -> anyhow::Result<bool> {
    ensure!(Arch::HOST == Arch::X86, "the machine is x86-64, and this one is not");
    setup::ensure(&[Group::Tests, Group::Machines, Group::Package])?;
    image::ensure()?;
    if args.image_only {
        return Ok(true);
    }
    if !args.no_build {
        deb::ensure_package()?;
    }
    let mut command = workspace::cargo();
    command.args(["test", "--locked", "--package", "executor-vm", "--test", "docker", "--"]);
    command.arg("--nocapture");
    let finished = capture::capture_within(&mut command, LIMIT, |line| println!("{line}"))?;
    Ok(finished.status.success())
}
