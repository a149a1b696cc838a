//! Devices, addresses and packet rules, by iproute2 and nft, in whatever namespace the calling
//! thread is in.

use std::time::Duration;

use anyhow::{Result, bail};

use crate::{packages, process};

/// iproute2 and nft finish at once; this limit only matters on an overloaded machine.
const LIMIT: Duration = Duration::from_secs(60);

/// Runs the lines of an `ip -batch` script.
pub(crate) fn ip(script: &str) -> Result<()> {
    run_script("ip", &["-force", "-batch", "-"], script)
}

/// Runs the lines of a `tc -batch` script.
pub(crate) fn tc(script: &str) -> Result<()> {
    run_script("tc", &["-force", "-batch", "-"], script)
}

/// Loads an nft script.
pub(crate) fn nft(script: &str) -> Result<()> {
    run_script("nft", &["-f", "-"], script)
}

fn run_script(program: &str, arguments: &[&str], script: &str) -> Result<()> {
    let mut command = packages::tool(program)?;
    command.args(arguments);
    let done = process::finish_with_input(command, script.as_bytes(), LIMIT)?;
    if !done.status.success() {
        bail!(
            "failed to run `{program} {}` ({}): {}\n{script}",
            arguments.join(" "),
            done.status,
            done.stderr.trim()
        );
    }
    Ok(())
}
