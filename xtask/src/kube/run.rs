//! Builds what the tests need, and runs them.

use testbed::{capture, workspace};

use super::build;
use crate::{
    image,
    setup::{self, needs::Group},
};

/// Arguments of `cargo xtask kube`.
#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    /// Run only the tests whose name contains this
    filter: Option<String>,
    /// Only build Kubernetes, if it is not in the cache
    #[arg(long, conflicts_with = "filter")]
    build_only: bool,
}

/// Runs the task; false when a test failed.
pub(crate) fn run(args: &Args) -> anyhow::Result<bool> {
    setup::ensure(&[Group::Cluster])?;
    build::ensure()?;
    if args.build_only {
        return Ok(true);
    }
    setup::ensure(&[Group::Toolchain, Group::Tests, Group::Image])?;
    image::ensure_archive()?;
    let mut command = workspace::cargo();
    command.args(["test", "--locked", "--package", "cluster", "--test", "kubernetes", "--"]);
    // Each test has a cluster of its own, which uses the whole machine.
    command.args(["--test-threads=1", "--nocapture"]).args(&args.filter);
    let finished = capture::capture(&mut command, |line| println!("{line}"))?;
    Ok(finished.status.success())
}
