//! `redirector check`: can this host run the agent, and what to do if not.

use std::{io, path::Path};

use clap::Args;
use comfy_table::{Cell, Color};
use ipnet::Ipv4Net;
use serde::Serialize;

use super::{
    Context, Exit, block_on,
    env::Env,
    output::{OutputArgs, table, write_table},
};
use crate::{
    config::Config,
    control::api,
    datapath::{self, Check as Checked, Outcome, Settings},
    host,
};

/// `check`.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  redirector check
  redirector check -o json | jq '.checks[] | select(.outcome != \"ok\")'

Changes nothing. Exit codes: 0 it can (perhaps with warnings), 1 something of this host is in the way, 2 the configuration has problems,
3 this kernel or these privileges can't do it.")]
pub(super) struct Check {
    #[command(flatten)]
    output: OutputArgs,
}

/// `redirector check -o json`.
#[derive(Debug, Serialize)]
struct Report {
    version: u32,
    /// The worst outcome.
    outcome: Outcome,
    checks: Vec<Checked>,
}

impl Check {
    pub(super) fn run(self, env: &mut Env<'_>, context: &Context) -> anyhow::Result<Exit> {
        let loaded = crate::config::load(&context.config);
        let configuration = of_configuration(&context.config, loaded.as_ref().map_err(ToString::to_string));
        // The kernel is worth a look whatever the file says.
        let config = loaded.unwrap_or_default();
        let settings = Settings { bpffs: config.agent.bpffs.clone(), pool: config.pool.clone() };
        let platform = datapath::preflight(&settings, &config.attach.cgroups);
        let host = block_on(of_host(&config))?;

        let failed = |checks: &[Checked]| checks.iter().any(|check| check.outcome == Outcome::Failed);
        let exit = match () {
            () if failed(&platform) => Exit::Unsupported,
            () if failed(std::slice::from_ref(&configuration)) => Exit::Usage,
            () if failed(&host) => Exit::Failed,
            () => Exit::Done,
        };
        let checks: Vec<_> = std::iter::once(configuration).chain(platform).chain(host).collect();
        let warned = checks.iter().any(|check| check.outcome == Outcome::Warning);
        let outcome = match exit {
            Exit::Done if warned => Outcome::Warning,
            Exit::Done => Outcome::Ok,
            _ => Outcome::Failed,
        };
        let report = Report { version: api::VERSION, outcome, checks };
        self.output.print(env, &report, |env| words(env, &report))?;
        Ok(exit)
    }
}

fn of_configuration(path: &Path, loaded: Result<&Config, String>) -> Checked {
    match loaded {
        Ok(config) => Checked::ok("configuration", format!("{}: {}", path.display(), crate::control::count(config.routes.len(), "route"))),
        Err(problems) => Checked::failed("configuration", problems, "correct the file; `redirector config check` reports the same"),
    }
}

/// The pool against this host's routes.
async fn of_host(config: &Config) -> Vec<Checked> {
    let pool = config.pool.ipv4;
    let remedy = "set pool.ipv4 to a range that nothing here uses";
    let check = match host::conflicts(&config.pool).await {
        Ok(conflicts) if conflicts.is_empty() => Checked::ok("pool", format!("{pool}: no route of this host overlaps it")),
        // The guard can't be added beside a route of the same prefix.
        Ok(conflicts) if config.pool.guard && conflicts.iter().any(|route| is_to(route, pool)) => {
            Checked::failed("pool", format!("{pool} is routed by this host: {}", conflicts.join("; ")), remedy)
        }
        Ok(conflicts) => Checked::warning("pool", format!("{pool} overlaps routes of this host: {}", conflicts.join("; ")), remedy),
        Err(error) => {
            Checked::warning("pool", format!("{pool}: {}", crate::agent::error_chain(&error)), "run it in the host's network namespace")
        }
    };
    vec![check, source_addresses(config)]
}

/// The addresses that connects are to be made from, against those of this host.
fn source_addresses(config: &Config) -> Checked {
    const NAME: &str = "source_ips";
    let wanted = || config.routes.iter().flat_map(|route| route.source_ips.iter().map(move |ip| (ip, &route.source)));
    let missing: Vec<_> = wanted().filter(|(ip, _)| !host::has_address(**ip)).map(|(ip, source)| format!("{ip} ({source})")).collect();
    if !missing.is_empty() {
        let remedy = "add them to this host, or correct source_ips; until then connects go out from the kernel's choice";
        return Checked::warning(NAME, format!("this host lacks {}", missing.join(", ")), remedy);
    }
    match wanted().count() {
        0 => Checked::ok(NAME, "no route has any: connects go out from the kernel's choice"),
        _ => Checked::ok(NAME, "this host has the source addresses of every route"),
    }
}

/// Whether a route as [`host::conflicts`] writes it leads to exactly this network.
fn is_to(route: &str, pool: Ipv4Net) -> bool {
    route.split_whitespace().any(|word| word.parse() == Ok(pool))
}

fn words(env: &mut Env<'_>, report: &Report) -> io::Result<()> {
    let mut table = table(env, ["CHECK", "OUTCOME", "FOUND"]);
    for check in &report.checks {
        let outcome = match check.outcome {
            Outcome::Ok => Cell::new("ok").fg(Color::Green),
            Outcome::Warning => Cell::new("warning").fg(Color::Yellow),
            Outcome::Failed => Cell::new("FAILED").fg(Color::Red),
        };
        let found = match &check.remedy {
            Some(remedy) => format!("{}\n→ {remedy}", check.detail),
            None => check.detail.clone(),
        };
        table.add_row(vec![Cell::new(&check.name), outcome, Cell::new(found)]);
    }
    write_table(env.out, &table)?;
    let verdict = match report.outcome {
        Outcome::Ok => "this host can run the agent",
        Outcome::Warning => "this host can run the agent, with the warnings above",
        Outcome::Failed => "this host can't run the agent as it is: see the remedies above",
    };
    writeln!(env.out, "\n{verdict}")
}
