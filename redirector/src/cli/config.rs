//! `redirector config …`: the configuration file, without an agent.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::{Context, Exit, env::Env};
use crate::control::count;

/// What to do with the configuration.
#[derive(Debug, Subcommand)]
pub enum ConfigVerb {
    /// Report every problem of a configuration file at once
    Check(Check),
}

/// `config check`.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  redirector config check
  redirector config check ./redirector.toml")]
pub struct Check {
    /// The file [default: the one that every command reads]
    file: Option<PathBuf>,
}

impl ConfigVerb {
    pub(super) fn run(self, env: &mut Env<'_>, context: &Context) -> anyhow::Result<Exit> {
        let Self::Check(check) = self;
        let file = check.file.as_ref().unwrap_or(&context.config);
        let config = crate::config::load(file)?;
        writeln!(env.out, "{}: no problem, {}", file.display(), count(config.routes.len(), "route"))?;
        Ok(Exit::Done)
    }
}
