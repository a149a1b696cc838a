//! `redirector reload`: puts the configuration file in force.

use clap::Args;

use crate::{
    cli::{context::Context, exit::Exit, io::Env, output::OutputArgs},
    control::count,
};

/// `reload`.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  redirector reload

Returns when the new configuration is in force. A file with an error changes
nothing, and is a failure.")]
pub(crate) struct Reload {
    #[command(flatten)]
    output: OutputArgs,
}

impl Reload {
    pub(crate) fn run(self, env: &mut Env<'_>, context: &Context) -> anyhow::Result<Exit> {
        let reloaded = context.ask(async |agent| agent.reload().await)?;
        self.output.print(env, &reloaded, |env| {
            writeln!(env.out, "reloaded: {} changed", count(reloaded.changed.len(), "route"))?;
            if !reloaded.restart_needed_for.is_empty() {
                let keys = reloaded.restart_needed_for.join(", ");
                writeln!(env.err, "warning: {keys}: in force after a restart")?;
            }
            Ok(())
        })?;
        Ok(Exit::Done)
    }
}
