//! `completions` and `man`: generated from the command line's own definition.

use std::path::PathBuf;

use anyhow::Context as _;
use clap::Args;
use clap_complete::Shell;

use crate::cli::{exit::Exit, io::Env};

/// `completions SHELL`.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  redirector completions bash > /etc/bash_completion.d/redirector
  redirector completions zsh > \"${fpath[1]}/_redirector\"
  redirector completions fish > ~/.config/fish/completions/redirector.fish")]
pub(crate) struct Completions {
    /// The shell
    shell: Shell,
}

impl Completions {
    pub(crate) fn run(self, env: &mut Env<'_>, mut command: clap::Command) -> anyhow::Result<Exit> {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut command, "redirector", &mut script);
        env.out.write_all(&script).context("failed to write the completions")?;
        Ok(Exit::Done)
    }
}

/// `man DIRECTORY`.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  redirector man /usr/local/share/man/man1")]
pub(crate) struct Man {
    /// The directory to write to; created if missing
    directory: PathBuf,
}

impl Man {
    pub(crate) fn run(self, env: &mut Env<'_>, command: clap::Command) -> anyhow::Result<Exit> {
        let directory = self.directory.display();
        std::fs::create_dir_all(&self.directory)
            .with_context(|| format!("failed to make {directory}"))?;
        clap_mangen::generate_to(command, &self.directory)
            .with_context(|| format!("failed to write into {directory}"))?;
        writeln!(env.err, "wrote the manual pages to {directory}")?;
        Ok(Exit::Done)
    }
}
