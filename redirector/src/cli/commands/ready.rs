//! `redirector ready`: whether the agent of this container serves or could take over.

use clap::Args;

use crate::{
    agent::{self, Role},
    cli::{context::Context, exit::Exit, io::Env},
};

/// `ready`.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  redirector ready

The probe of the DaemonSet. While a second pod takes over, two agents run on a
node: only an agent in the PID namespace of this command counts, thus the pod's
own. It is ready if it serves, or waits with everything loaded (`run --standby`).

Exit codes: 0 ready, 1 not.")]
pub(crate) struct Ready {}

impl Ready {
    pub(crate) fn run(self, env: &mut Env<'_>, context: &Context) -> anyhow::Result<Exit> {
        let state = match agent::role_here(&context.agent_paths()?.run_dir) {
            Some(Role::Agent) => {
                context.ask(async |agent| agent.status().await)?;
                "the agent serves"
            }
            Some(Role::Standby) => "ready to take over",
            None => {
                return Err(Exit::Failed.because(
                    "no agent in this PID namespace serves or is ready to take over".to_owned(),
                ));
            }
        };
        writeln!(env.out, "{state}")?;
        Ok(Exit::Done)
    }
}
