//! `route add`, `route set`, `route remove`: one change, one line that says what is live now.

use std::net::IpAddr;

use clap::{Args, ValueEnum};

use super::cluster;
use crate::{
    cli::{context::Context, exit::Exit, io::Env, output::OutputArgs, route_tables},
    control::api::{ChangeKind, Changed},
    route::{Field, RawDestination, RawRoute, Route, RouteOrigin, RoutePatch, SourceName},
};

/// What a route has besides its source and destination.
#[derive(Args, Debug)]
struct Definition {
    /// A client port, and the destination's if it differs [default: all ports, unchanged]
    #[arg(long = "port", value_name = "PORT[:DESTINATION_PORT]", value_delimiter = ',')]
    ports: Vec<String>,
    /// The DNS server that resolves the destination [default: dns.upstreams]
    #[arg(long, value_name = "ADDRESS[:PORT]")]
    resolver: Option<String>,
    /// An address of this host to connect from [default: the kernel's choice]
    #[arg(long = "source-ip", value_name = "ADDRESS", value_delimiter = ',')]
    source_ips: Vec<IpAddr>,
    /// What a connect gets while the route has no backend [default: refuse]
    #[arg(long, value_enum, value_name = "POLICY")]
    on_no_backend: Option<Policy>,
    /// The load balancer's idle timeout; TCP keepalive is set below it [default: off]
    #[arg(long, value_name = "DURATION")]
    idle_timeout: Option<String>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Policy {
    /// Connection refused, at once
    Refuse,
    /// The connect is left alone
    Pass,
}

impl Policy {
    fn as_str(self) -> String {
        match self {
            Self::Refuse => "refuse".into(),
            Self::Pass => "pass".into(),
        }
    }
}

/// None for an option that was not given.
fn given<T>(list: Vec<T>) -> Option<Vec<String>>
where
    T: ToString,
{
    (!list.is_empty()).then(|| list.iter().map(T::to_string).collect())
}

/// One destination stands as a text, several as a list, as in the configuration.
fn destination(mut parts: Vec<String>) -> RawDestination {
    if parts.len() == 1 {
        RawDestination::One(parts.remove(0))
    } else {
        RawDestination::Many(parts)
    }
}

/// `route add`.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  redirector route add git.internal.company.net lb.company.net
  redirector route add git.internal.company.net 203.0.113.7,203.0.113.8
  redirector route add git.internal.company.net lb.company.net --port 80:8080
  redirector route add '*.internal.company.net' lb.company.net --port 443

When the command returns, the change is on disk and applies to the next connect. A destination \
that does not resolve is kept and retried (exit code 0, with a warning); connects are refused \
until it resolves.")]
pub(crate) struct Add {
    /// The internal name that executors use, exact, `*.zone` (one label more) or `**.zone`
    source: SourceName,
    /// The load balancer: a DNS name, or one or more addresses
    #[arg(required = true, value_name = "NAME or ADDRESS", value_delimiter = ',')]
    destination: Vec<String>,
    #[command(flatten)]
    definition: Definition,
    /// For every node of a Kubernetes cluster: makes a RedirectRoute, with the kubeconfig
    #[arg(long)]
    cluster: bool,
    #[command(flatten)]
    output: OutputArgs,
}

impl Add {
    pub(super) fn run(self, env: &mut Env<'_>, context: &Context) -> anyhow::Result<Exit> {
        let output = self.output;
        let Definition { ports, resolver, source_ips, on_no_backend, idle_timeout } =
            self.definition;
        let route = RawRoute {
            source: self.source.to_string(),
            destination: destination(self.destination),
            ports: given(ports),
            resolver,
            source_ips: given(source_ips),
            on_no_backend: on_no_backend.map(Policy::as_str),
            idle_timeout,
        };
        // The agent checks the same; this reports it even if no agent runs.
        Route::try_from(route.clone())
            .map_err(|problems| Exit::Usage.because(problems.to_string()))?;
        if self.cluster {
            return cluster::add(env, output, &route, &self.source);
        }
        let changed = context.ask(async |client| client.add(&route).await)?;
        print_change(env, output, &changed)
    }
}

/// `route set`.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  redirector route set git.internal.company.net --destination 203.0.113.8
  redirector route set git.internal.company.net --port 443 --idle-timeout 350s
  redirector route set git.internal.company.net --clear ports

Lists are replaced as a whole. A route of the configuration file gets an override, which `route \
remove` removes.")]
pub(crate) struct Set {
    /// The route's source
    source: SourceName,
    /// Another load balancer: a DNS name, or one or more addresses
    #[arg(long, value_name = "NAME or ADDRESS", value_delimiter = ',')]
    destination: Vec<String>,
    #[command(flatten)]
    definition: Definition,
    /// Reset this field to its default
    #[arg(long, value_enum, value_name = "FIELD", value_delimiter = ',')]
    clear: Vec<Clearable>,
    #[command(flatten)]
    output: OutputArgs,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Clearable {
    #[value(name = "ports", alias = "port")]
    Ports,
    Resolver,
    #[value(alias = "source-ip")]
    SourceIps,
    OnNoBackend,
    IdleTimeout,
}

impl Set {
    pub(super) fn run(self, env: &mut Env<'_>, context: &Context) -> anyhow::Result<Exit> {
        let (source, output) = (self.source.clone(), self.output);
        let patch = self.patch()?;
        let changed = context.ask(async |client| client.set(&source, &patch).await)?;
        print_change(env, output, &changed)
    }

    fn patch(self) -> anyhow::Result<RoutePatch> {
        let Definition { ports, resolver, source_ips, on_no_backend, idle_timeout } =
            self.definition;
        let clear = &self.clear;
        let patch = RoutePatch {
            destination: (!self.destination.is_empty()).then(|| destination(self.destination)),
            ports: Clearable::Ports.field(given(ports), clear)?,
            resolver: Clearable::Resolver.field(resolver, clear)?,
            source_ips: Clearable::SourceIps.field(given(source_ips), clear)?,
            on_no_backend: Clearable::OnNoBackend
                .field(on_no_backend.map(Policy::as_str), clear)?,
            idle_timeout: Clearable::IdleTimeout.field(idle_timeout, clear)?,
        };
        if patch.is_empty() {
            return Err(Exit::Usage.because(
                "nothing to change: give --destination, --port, another option, or --clear FIELD",
            ));
        }
        Ok(patch)
    }
}

impl Clearable {
    fn field<T>(self, given: Option<T>, clear: &[Self]) -> anyhow::Result<Field<T>> {
        match (given, clear.contains(&self)) {
            (Some(_), true) => {
                Err(Exit::Usage.because(format!("{self:?} is both set and cleared")))
            }
            (Some(value), false) => Ok(Field::Set(value)),
            (None, true) => Ok(Field::Clear),
            (None, false) => Ok(Field::Keep),
        }
    }
}

/// `route remove`.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  redirector route remove artifactory.internal.company.net

Removing an override restores the route of the configuration file or the cluster. Routes of the \
file itself are removed in the file.")]
pub(crate) struct Remove {
    /// The route's source
    source: SourceName,
    /// Remove the RedirectRoute of a Kubernetes cluster, with the kubeconfig
    #[arg(long)]
    cluster: bool,
    #[command(flatten)]
    output: OutputArgs,
}

impl Remove {
    pub(super) fn run(self, env: &mut Env<'_>, context: &Context) -> anyhow::Result<Exit> {
        if self.cluster {
            return cluster::remove(env, self.output, &self.source);
        }
        let changed = context.ask(async |client| client.remove(&self.source).await)?;
        print_change(env, self.output, &changed)
    }
}

/// The new state on standard output, warnings on standard error.
fn print_change(env: &mut Env<'_>, output: OutputArgs, changed: &Changed) -> anyhow::Result<Exit> {
    output.print(env, changed, |env| render(env, changed))?;
    for warning in &changed.warnings {
        env.warn(warning)?;
    }
    Ok(Exit::Done)
}

fn render(env: &mut Env<'_>, changed: &Changed) -> std::io::Result<()> {
    let (source, live) = (
        &changed.source,
        changed.route.as_ref().map(route_tables::render_live).unwrap_or_default(),
    );
    match changed.change {
        ChangeKind::Added => writeln!(env.out, "added {source}: {live}"),
        ChangeKind::Changed => writeln!(env.out, "changed {source}: {live}"),
        ChangeKind::Unchanged => writeln!(env.out, "{source} is unchanged: {live}"),
        ChangeKind::Removed => writeln!(env.out, "removed {source}"),
        ChangeKind::Restored => {
            let is_cluster =
                changed.route.as_ref().and_then(|route| route.origin) == Some(RouteOrigin::Cluster);
            let whose = if is_cluster { "cluster" } else { "file" };
            writeln!(
                env.out,
                "removed the override of {source}; the {whose}'s route applies again: {live}"
            )
        }
    }
}
