//! `cargo xtask setup`: installs what the other tasks need and this machine lacks.
//!
//! On Debian by apt, in one call; elsewhere only Rust's tools by rustup, and the rest is listed.
//! Every other task calls [`ensure`].

use anyhow::bail;
use testbed::workspace;

use super::{
    apt::{self, Lists},
    needs::{self, Group},
    plan::Plan,
};
use crate::lock;

/// Arguments of `cargo xtask setup`.
#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    /// Only list what is missing, and exit with 1 if anything is
    #[arg(long)]
    check: bool,
    /// The needs to install [default: all]
    #[arg(value_enum)]
    groups: Vec<Group>,
}

/// Runs the task; returns whether nothing is missing.
pub(crate) fn run(args: &Args) -> anyhow::Result<bool> {
    let groups = if args.groups.is_empty() { &needs::ALL[..] } else { &args.groups };
    if args.check {
        let plan = Plan::make(groups, Lists::AsFound)?;
        plan.lines().iter().for_each(|line| println!("{line}"));
        return Ok(plan.is_empty());
    }
    if ensure(groups)? {
        eprintln!("setup: done");
    } else {
        eprintln!("setup: nothing is missing");
    }
    Ok(true)
}

/// Installs what is missing for these groups, after printing it; returns whether anything was.
pub(crate) fn ensure(groups: &[Group]) -> anyhow::Result<bool> {
    if Plan::make(groups, Lists::AsFound)?.is_empty() {
        return Ok(false);
    }
    let _lock = lock::acquire(&workspace::tools_dir().join("setup.lock"))?;
    // The previous holder of the lock may have installed it.
    let mut plan = Plan::make(groups, Lists::AsFound)?;
    if plan.is_empty() {
        return Ok(false);
    }
    announce(&plan);
    let mut lists = Lists::AsFound;
    if plan.wants_lists()? {
        apt::update()?;
        lists = Lists::Fresh;
        let known = Plan::make(groups, lists)?;
        if known.lines() != plan.lines() {
            announce(&known);
        }
        plan = known;
    }
    plan.install(lists)?;
    let left = Plan::make(groups, lists)?;
    if !left.is_empty() {
        bail!("still missing after setup:\n  {}", left.lines().join("\n  "));
    }
    Ok(true)
}

fn announce(plan: &Plan) {
    eprintln!("setup installs:");
    plan.lines().iter().for_each(|line| eprintln!("  {line}"));
}
