//! `route history` and `route rollback`.

use clap::Args;

use super::diff::print_diff;
use crate::{
    cli::{
        context::Context,
        exit::Exit,
        io::Env,
        output::{OutputArgs, table, write_table},
    },
    control::api::{self, Change},
};

/// `route history`.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  redirector route history
  redirector route history 7                change 7, route by route
  redirector route history -o json | jq '.changes[0]'

Changes of the configuration file are not recorded here.")]
pub(crate) struct History {
    /// Show this change in full [default: all, in short]
    number: Option<u64>,
    #[command(flatten)]
    output: OutputArgs,
}

impl History {
    pub(super) fn run(self, env: &mut Env<'_>, context: &Context) -> anyhow::Result<Exit> {
        if let Some(number) = self.number {
            let show = context.ask(async |client| client.change(number).await)?;
            self.output.print(env, &show, |env| {
                let change = &show.change;
                writeln!(
                    env.out,
                    "change {number}: {} at {}, by {}",
                    what(change),
                    change.at.strftime("%F %T UTC"),
                    who(change)
                )?;
                print_diff(env, &show.diff)
            })?;
            return Ok(Exit::Done);
        }
        let history = context.ask(async |client| client.history().await)?;
        self.output.print(env, &history, |env| list(env, &history.changes))?;
        Ok(Exit::Done)
    }
}

fn list(env: &mut Env<'_>, changes: &[Change]) -> std::io::Result<()> {
    if changes.is_empty() {
        return writeln!(env.out, "no changes yet");
    }
    let mut rows = table(env, ["CHANGE", "WHEN (UTC)", "WHO", "WHAT", "ROUTES"]);
    for change in changes {
        rows.add_row([
            change.number.to_string(),
            change.at.strftime("%F %T").to_string(),
            who(change),
            what(change),
            sources(change),
        ]);
    }
    write_table(env.out, &rows)
}

fn who(change: &Change) -> String {
    change.pid.map_or_else(
        || format!("uid {}", change.uid),
        |pid| format!("uid {}, pid {pid}", change.uid),
    )
}

fn what(change: &Change) -> String {
    match (change.undoes, change.undone) {
        (Some(number), _) => format!("undid {number}"),
        (None, true) => format!("{}, undone", change.action),
        (None, false) => change.action.clone(),
    }
}

/// The first few sources.
fn sources(change: &Change) -> String {
    const SHOWN: usize = 3;
    let names: Vec<_> = change.sources.iter().take(SHOWN).map(ToString::to_string).collect();
    match change.sources.len().saturating_sub(SHOWN) {
        0 => names.join(", "),
        more => format!("{} and {more} more", names.join(", ")),
    }
}

/// `route rollback`.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  redirector route rollback --dry-run
  redirector route rollback

Undoes the last change made by route add, set, remove or import. Running it again undoes the \
change before that. The rollback is recorded as a change, too: see `redirector route history`.")]
pub(crate) struct Rollback {
    /// Print the difference, change nothing
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    output: OutputArgs,
}

impl Rollback {
    pub(super) fn run(self, env: &mut Env<'_>, context: &Context) -> anyhow::Result<Exit> {
        let request = api::RollbackRequest { dry_run: self.dry_run };
        let rolled = context.ask(async |client| client.rollback(&request).await)?;
        self.output.print(env, &rolled, |env| {
            let change = &rolled.undone;
            let verb = if rolled.result.dry_run { "would undo" } else { "undid" };
            writeln!(
                env.out,
                "{verb} change {} ({} at {}, by {})",
                change.number,
                change.action,
                change.at.strftime("%F %T UTC"),
                who(change)
            )?;
            print_diff(env, &rolled.result)
        })?;
        for warning in &rolled.result.warnings {
            env.warn(warning)?;
        }
        Ok(Exit::Done)
    }
}
