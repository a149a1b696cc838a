//! `redirector route …`: which verb.

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
    /// Add a route; it is live when this returns
    Add(change::Add),
    /// Change a route; it is live when this returns
    Set(change::Set),
    /// Remove a route that was added here or imported
    #[command(visible_alias = "rm")]
    Remove(change::Remove),
    /// Take routes from a file: executorPrivateDNS YAML, TOML, or JSON
    Import(import::Import),
    /// Print who changed what, and when
    History(history::History),
    /// Take the last change back
    Rollback(history::Rollback),
    /// Print the routes that serve, in a form that import takes
    Export(import::Export),
}

impl RouteVerb {
    /// Carries it out.
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
