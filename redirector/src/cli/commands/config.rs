//! `redirector config …`: the configuration file, without an agent.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use crate::{
    cli::{context::Context, exit::Exit, io::Env},
    control::count,
};

/// What to do with the configuration.
#[derive(Debug, Subcommand)]
pub(crate) enum ConfigVerb {
    /// Report every problem of a configuration file at once
    Check(Check),
    /// Print the configuration in effect, every default written out
    Show(Show),
}

/// `config check`.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  redirector config check
  redirector config check ./redirector.toml")]
pub(crate) struct Check {
    /// The file [default: the configuration file]
    file: Option<PathBuf>,
}

/// `config show`.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  redirector config show --effective
  REDIRECTOR_DNS_TTL=5 redirector config show | grep ttl

Combines the file, the environment and the defaults. A running agent may still use an earlier \
version of the file: see `redirector status`.")]
pub(crate) struct Show {
    /// The configuration in effect; always on
    #[arg(long)]
    effective: bool,
}

impl ConfigVerb {
    pub(crate) fn run(self, env: &mut Env<'_>, context: &Context) -> anyhow::Result<Exit> {
        match self {
            Self::Check(check) => {
                let file = check.file.as_deref().unwrap_or_else(|| context.config());
                let config = crate::config::load(file)?;
                for route in &config.routes {
                    for ip in route.source_ips.iter().filter(|ip| !crate::host::has_address(**ip)) {
                        writeln!(
                            env.err,
                            "warning: source_ips of {}: this host lacks `{ip}`, connects use the \
                                kernel's default source address",
                            route.source
                        )?;
                    }
                }
                writeln!(
                    env.out,
                    "{}: no problem, {}",
                    file.display(),
                    count(config.routes.len(), "route")
                )?;
            }
            Self::Show(Show { effective: _ }) => {
                write!(env.out, "{}", crate::config::load(context.config())?.effective_toml())?
            }
        }
        Ok(Exit::Done)
    }
}
