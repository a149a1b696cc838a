//! The verbs of `redirector route`.

use clap::Subcommand;

use super::{change, history, import, read};
use crate::cli::{context::Context, exit::Exit, io::Env};

/// What to do with routes.
#[derive(Debug, Subcommand)]
pub(crate) enum RouteVerb {
    /// Print every route with its virtual address, backends and counters
    #[command(visible_alias = "ls")]
    List(read::List),
    /// Print one route in full
    Show(read::Show),
    /// Add a route; it applies to the next connect
    Add(change::Add),
    /// Change a route; this applies to the next connect
    Set(change::Set),
    /// Remove a route that was added or imported
    #[command(visible_alias = "rm")]
    Remove(change::Remove),
    /// Import routes from executorPrivateDNS YAML, TOML, or JSON
    Import(import::Import),
    /// List changes: who, what, when
    History(history::History),
    /// Undo the last change
    Rollback(history::Rollback),
    /// Print the routes in effect, in a form that import reads
    Export(import::Export),
}

impl RouteVerb {
    /// Runs it.
    pub(crate) fn run(self, env: &mut Env<'_>, context: &Context) -> anyhow::Result<Exit> {
        match self {
            Self::List(verb) => verb.run(env, context),
            Self::Show(verb) => verb.run(env, context),
            Self::Add(verb) => verb.run(env, context),
            Self::Set(verb) => verb.run(env, context),
            Self::Remove(verb) => verb.run(env, context),
            Self::Import(verb) => verb.run(env, context),
            Self::History(verb) => verb.run(env, context),
            Self::Rollback(verb) => verb.run(env, context),
            Self::Export(verb) => verb.run(env, context),
        }
    }
}
