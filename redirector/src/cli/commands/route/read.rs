//! `route list` and `route show`.

use clap::Args;

use crate::{
    cli::{context::Context, exit::Exit, io::Env, output::OutputArgs, route_tables},
    control::api::{RouteList, RouteShow},
    route::SourceName,
};

/// `route list`.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  redirector route list
  redirector route list -o json | jq -r '.routes[] | select(.live | not)'")]
pub(crate) struct List {
    #[command(flatten)]
    output: OutputArgs,
}

impl List {
    pub(super) fn run(self, env: &mut Env<'_>, context: &Context) -> anyhow::Result<Exit> {
        let list: RouteList = context.ask(async |client| client.routes().await)?;
        self.output.print(env, &list, |env| {
            if list.routes.is_empty() {
                return writeln!(
                    env.err,
                    "no routes: add one with `redirector route add SOURCE DESTINATION`"
                );
            }
            route_tables::list(env, &list.routes)
        })?;
        Ok(Exit::Done)
    }
}

/// `route show`.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  redirector route show artifactory.internal.company.net
  redirector route show '*.internal.company.net'

A name without a route of its own is served by the longest wildcard that matches it: that route \
is shown.")]
pub(crate) struct Show {
    /// The route's source, or a name that a wildcard matches
    source: SourceName,
    #[command(flatten)]
    output: OutputArgs,
}

impl Show {
    pub(super) fn run(self, env: &mut Env<'_>, context: &Context) -> anyhow::Result<Exit> {
        let show: RouteShow = context.ask(async |client| client.route(&self.source).await)?;
        self.output.print(env, &show, |env| {
            let served_by = show.route.source.as_ref().filter(|source| **source != self.source);
            if let Some(source) = served_by {
                writeln!(env.err, "{} has no route of its own: {source} serves it", self.source)?;
            }
            route_tables::show(env, &show.route)
        })?;
        Ok(Exit::Done)
    }
}
