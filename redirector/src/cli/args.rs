//! The command line: its arguments, and which command they start.

use std::{ffi::OsString, path::PathBuf};

use clap::{CommandFactory, Parser, Subcommand};

use super::{
    commands::{
        check, config, controller, events, explain, generate, ready, reload, route, run, status,
        top, unload, verify,
    },
    context::Context,
    exit::{self, Exit},
    io::Env,
};
use crate::{error::error_chain, printable::PrintableWriter};

/// Redirects connections to a private name to the live addresses of its public load balancer, in
/// the kernel.
#[derive(Debug, Parser)]
#[command(
    name = "redirector",
    version,
    max_term_width = 120,
    disable_help_subcommand = true,
    after_help = "Examples:
  redirector check              can this host run the agent?
  redirector run                run the agent in the foreground
  redirector route add git.internal.company.net lb.company.net
  redirector status             is everything working?
  redirector verify git.internal.company.net
                                does it work from an executor?

Exit codes:
  0 success
  1 failure, or degraded
  2 invalid usage or configuration
  3 not supported by this kernel or these privileges
  4 no agent, and nothing of it in the kernel"
)]
pub(super) struct Cli {
    /// The configuration file [env: REDIRECTOR_CONFIG] [default: /etc/redirector/redirector.toml]
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Run the agent in the foreground
    Run(run::Run),
    /// Put the configuration file in force, in the running agent
    Reload(reload::Reload),
    /// Check whether this host can run the agent, and what to do if not
    Check(check::Check),
    /// List, show and change routes
    #[command(subcommand)]
    Route(route::RouteVerb),
    /// Show whether everything works; needs no agent
    Status(status::Status),
    /// Check whether the agent of this container serves or could take over
    Ready(ready::Ready),
    /// Explain what a connect would do, and what prevents it
    Explain(explain::Explain),
    /// Connect as an executor would, and show which step fails and why
    Verify(Box<verify::Verify>),
    /// Show the outcome of each connect
    Events(events::Events),
    /// Show live rates of routes and backends
    Top(top::Top),
    /// Check or print the configuration
    #[command(subcommand)]
    Config(config::ConfigVerb),
    /// Compile the routes of a Kubernetes cluster for its agents
    Controller(controller::Controller),
    /// Detach the programs and remove everything the agent left in the kernel
    Unload(unload::Unload),
    /// Print shell completions
    Completions(generate::Completions),
    /// Write the manual pages
    Man(generate::Man),
    /// The child of `verify`
    #[command(hide = true)]
    VerifyProbe(verify::Probe),
}

/// Parses `arguments` (the program's name first), carries them out, and prints an error if there is
/// one.
pub fn main(arguments: impl IntoIterator<Item = OsString>, env: &mut Env<'_>) -> Exit {
    let cli = match Cli::try_parse_from(arguments) {
        Ok(cli) => cli,
        Err(error) => return usage(&error, env),
    };
    // `top` draws its own screen, and the others write what we made.
    if matches!(cli.verb, Verb::Top(_) | Verb::VerifyProbe(_) | Verb::Completions(_) | Verb::Man(_))
    {
        return run(cli, env);
    }
    let mut out = PrintableWriter::new(env.out, env.colour);
    let mut err = PrintableWriter::new(env.err, env.colour);
    let Env { input, colour, width, variable, .. } = env;
    let (out, err) = (&mut out, &mut err);
    run(
        cli,
        &mut Env { input: *input, out, err, colour: *colour, width: *width, variable: *variable },
    )
}

fn run(cli: Cli, env: &mut Env<'_>) -> Exit {
    let context = Context::new(crate::config::path(cli.config));
    let ended = match cli.verb {
        Verb::Run(verb) => verb.run(env, &context),
        Verb::Reload(verb) => verb.run(env, &context),
        Verb::Check(verb) => verb.run(env, &context),
        Verb::Route(verb) => verb.run(env, &context),
        Verb::Status(verb) => verb.run(env, &context),
        Verb::Ready(verb) => verb.run(env, &context),
        Verb::Explain(verb) => verb.run(env, &context),
        Verb::Verify(verb) => verb.run(env, &context),
        Verb::VerifyProbe(_) => verify::Probe::run(env),
        Verb::Events(verb) => verb.run(env, &context),
        Verb::Top(verb) => verb.run(env, &context),
        Verb::Config(verb) => verb.run(env, &context),
        Verb::Controller(verb) => verb.run(env),
        Verb::Unload(verb) => verb.run(env, &context),
        Verb::Completions(verb) => verb.run(env, command()),
        Verb::Man(verb) => verb.run(env, command()),
    };
    ended.unwrap_or_else(|error| {
        let exit = Exit::of(&error);
        if exit != Exit::Done {
            let _ = env.err.write_all(render_error(&error).as_bytes());
        }
        exit
    })
}

/// An error for a person. Problems that have lines of their own begin them with file and line,
/// where editors and grep look for them.
fn render_error(error: &anyhow::Error) -> String {
    let text = error_chain(error.as_ref());
    match text.lines().count() {
        many @ 2.. if exit::lists_problems(error) => {
            format!("redirector: {many} problems:\n{text}\n")
        }
        _ => format!("redirector: {text}\n"),
    }
}

/// Prints help and version to standard output, anything else to standard error.
fn usage(error: &clap::Error, env: &mut Env<'_>) -> Exit {
    let rendered = error.render();
    let text = if env.colour { rendered.ansi().to_string() } else { rendered.to_string() };
    let stream: &mut dyn std::io::Write = if error.use_stderr() { env.err } else { env.out };
    let _ = stream.write_all(text.as_bytes()).and_then(|()| stream.flush());
    if error.use_stderr() { Exit::Usage } else { Exit::Done }
}

/// The whole command line, for manual pages, completions and the reference.
pub fn command() -> clap::Command {
    Cli::command()
}
