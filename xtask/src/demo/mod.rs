//! demo

use anyhow::Result;

/// args
#[derive(Clone, Debug, clap::Args)]
pub struct Args {}

/// run
pub fn run(_args: Args) -> Result<()> {
    Ok(())
}
