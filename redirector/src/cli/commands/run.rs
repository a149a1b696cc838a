//! `redirector run`: the agent.

use anyhow::Context as _;
use clap::Args;

use crate::cli::{context::Context, exit::Exit, io::Env, log_args::LogArgs};
use crate::{
    agent::{self, WhenTaken},
    config::Accepted,
};

/// `run`.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  redirector run
  redirector run --config ./redirector.toml --log-level debug
  redirector run --log-format json
  redirector run --take-over      upgrade: replace the running agent

SIGHUP or a changed file reloads the configuration; a file with an error changes nothing. \
SIGTERM stops the agent; the programs stay in the kernel and keep redirecting. `redirector \
unload` removes them. Without --standby or --take-over a second agent is refused.")]
pub(crate) struct Run {
    #[command(flatten)]
    log: LogArgs,
    /// If another agent runs, wait with its sockets until it ends or dies, and then take its place
    #[arg(long, conflicts_with = "take_over")]
    standby: bool,
    /// If another agent runs, take its sockets over and end it as soon as this one is ready
    #[arg(long)]
    take_over: bool,
    /// Log the route, the backend and the verdict of each connect, as `datapath.debug_log = true`
    /// does
    #[arg(long)]
    debug_datapath: bool,
}

impl Run {
    pub(crate) fn run(self, env: &mut Env<'_>, context: &Context) -> anyhow::Result<Exit> {
        // Read before logging starts: a broken file is reported as by every other command.
        let (mut accepted, errors) = Accepted::at_start(context.config())?;
        accepted.config.datapath.debug_flag = self.debug_datapath;
        agent::prepare_memory();
        self.log.start(env)?;
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .thread_name("redirector")
            .build()
            .context("failed to start the runtime")?;
        // On a worker, beside the timers: run here, each of its ticks would wake two threads.
        let when_taken = match (self.standby, self.take_over) {
            (true, _) => WhenTaken::Wait,
            (_, true) => WhenTaken::TakeOver,
            _ => WhenTaken::Refuse,
        };
        let config = (accepted, errors);
        let running = runtime.spawn(agent::run(context.config().to_owned(), config, when_taken));
        let ended = runtime.block_on(running).context("the agent panicked");
        // A resolver or a probe may sit in a system call; the contract is two seconds, whatever it
        // does.
        runtime.shutdown_timeout(std::time::Duration::from_millis(300));
        ended?.map(|()| Exit::Done)
    }
}
