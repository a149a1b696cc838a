//! `redirector check`: can this host run the agent, and what to do if not.

use std::{io, net::IpAddr, path::Path};

use clap::Args;
use comfy_table::{Cell, Color};
use ipnet::Ipv4Net;
use serde::Serialize;
use socket2::{Domain, Socket, Type};

use crate::{
    cli::{
        commands::{check_destinations, check_interfaces, check_search_list, status},
        context::{Context, block_on},
        exit::Exit,
        io::Env,
        output::{OutputArgs, table, write_table},
    },
    config::{Config, Intercept},
    control::{self, api},
    datapath::{self, Check as Checked, Outcome, Settings},
    host::{self, HostError},
    net::SearchList,
    route::import::old_wildcards_warning,
};

/// `check`.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  redirector check
  redirector check -o json | jq '.checks[] | select(.outcome != \"ok\")'

Changes nothing.

Exit codes: 0 this host can run the agent (perhaps with warnings), 1 its network prevents it, 2 \
the configuration has problems, 3 the kernel or the privileges do not suffice.")]
pub(crate) struct Check {
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
    pub(crate) fn run(self, env: &mut Env<'_>, context: &Context) -> anyhow::Result<Exit> {
        let loaded = crate::config::load(context.config());
        let configuration =
            of_configuration(context.config(), loaded.as_ref().map_err(ToString::to_string));
        // The kernel is checked even if the file has problems.
        let config = loaded.unwrap_or_default();
        let settings = Settings::from(&config);
        let platform = datapath::preflight(&settings, &config.attach.cgroups);
        let host = block_on(of_host(&config))?;

        let failed =
            |checks: &[Checked]| checks.iter().any(|check| check.outcome == Outcome::Failed);
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
        self.output.print(env, &report, |env| render(env, &report))?;
        Ok(exit)
    }
}

fn of_configuration(path: &Path, loaded: Result<&Config, String>) -> Checked {
    match loaded {
        Ok(config) => match old_wildcards_warning(path, &config.old_wildcards) {
            Some(warning) => Checked::warning(
                "configuration",
                warning,
                "begin the file with `wildcards = \"one_label\"`",
            ),
            None => {
                let routes = control::count(config.routes.len(), "route");
                Checked::ok("configuration", format!("{}: {routes}", path.display()))
            }
        },
        Err(problems) => Checked::failed(
            "configuration",
            problems,
            "correct the file; `redirector config check` reports the same",
        ),
    }
}

/// The pool against this host's routes, and what the configuration expects of this host.
async fn of_host(config: &Config) -> Vec<Checked> {
    let pool = config.pool.ipv4;
    let remedy = "set pool.ipv4 to a range that nothing here uses";
    let check = match host::conflicting_routes(&config.pool).await {
        Ok(conflicts) if conflicts.is_empty() => {
            Checked::ok("pool", format!("{pool}: no route of this host overlaps it"))
        }
        // The guard can't be added beside a route of the same prefix.
        Ok(conflicts) if config.pool.guard && conflicts.iter().any(|route| is_to(route, pool)) => {
            Checked::failed(
                "pool",
                format!("{pool} is routed by this host: {}", conflicts.join("; ")),
                remedy,
            )
        }
        Ok(conflicts) => Checked::warning(
            "pool",
            format!("{pool} overlaps routes of this host: {}", conflicts.join("; ")),
            remedy,
        ),
        Err(error) => Checked::warning(
            "pool",
            format!("{pool}: {}", crate::error::error_chain(&error)),
            "run this in the host's network namespace",
        ),
    };
    let destinations = check_destinations::check(config).await;
    vec![
        check,
        guard(config),
        source_addresses(config),
        destinations,
        scope(config),
        check_interfaces::roles(config),
        check_interfaces::foreign_filters(config),
        check_interfaces::dns_clients(config),
        check_search_list::check(config, &SearchList::of_host()),
        interception(config),
    ]
}

/// What keeps connects to the pool that are not redirected on this host, by asking the kernel.
fn guard(config: &Config) -> Checked {
    const NAME: &str = "guard";
    let (pool, runs) = (&config.pool, crate::agent::is_running(&config.agent.run_dir));
    if !pool.guard {
        return Checked::ok(NAME, "off: connects to the pool that are not redirected leave it");
    }
    let nets = [IpAddr::from(pool.ipv4.network())].into_iter();
    let addresses = nets.chain(pool.ipv6.map(|net| IpAddr::from(net.network())));
    let routed = addresses.filter(|address| host::has_route(*address));
    let routed: Vec<_> = routed.map(|address| address.to_string()).collect();
    if runs && !routed.is_empty() {
        let found = format!("packets to {} would leave this host", routed.join(" and "));
        let remedy = "no rule of routing may be before the guard's (`ip rule`)";
        return Checked::failed(NAME, found, remedy);
    }
    match host::can_reset(pool) {
        Ok(()) => Checked::ok(NAME, "connects to the pool that are not redirected get a reset"),
        Err(HostError::NoResets { cause }) => Checked::warning(
            NAME,
            format!("connects of pods that are not redirected fail after seconds: {cause}"),
            "load the modules nf_tables and nft_reject_ipv4",
        ),
        Err(error) => Checked::warning(
            NAME,
            format!("unknown: {}", crate::error::error_chain(&error)),
            "run this with CAP_NET_ADMIN, as the agent does",
        ),
    }
}

/// What holds sockets on this host and is not at or below a cgroup that the agent would attach to.
fn scope(config: &Config) -> Checked {
    const NAME: &str = "scope";
    let Ok(cgroups) = datapath::cgroups(&config.attach.cgroups) else {
        return Checked::ok(NAME, "unknown: see cgroup2");
    };
    let attached: Vec<_> = cgroups.into_iter().map(|cgroup| cgroup.path).collect();
    match status::uncovered(&control::uncovered(&attached)) {
        none if none.is_empty() => Checked::ok(NAME, "nothing with sockets is left out"),
        some => Checked::ok(NAME, format!("not in attach.cgroups: {}", some.join(", "))),
    }
}

/// The source addresses of the routes, against the addresses of this host.
fn source_addresses(config: &Config) -> Checked {
    const NAME: &str = "source_ips";
    let wanted = || {
        config
            .routes
            .iter()
            .flat_map(|route| route.source_ips.iter().map(move |ip| (ip, &route.source)))
    };
    let missing: Vec<_> = wanted()
        .filter(|(ip, _)| !host::has_address(**ip))
        .map(|(ip, source)| format!("{ip} ({source})"))
        .collect();
    if !missing.is_empty() {
        let remedy = "add them to this host, or correct source_ips; until then connects use the \
            kernel's default source address";
        return Checked::warning(NAME, format!("this host lacks {}", missing.join(", ")), remedy);
    }
    match wanted().count() {
        0 => {
            Checked::ok(NAME, "no route has any: connects use the kernel's default source address")
        }
        _ => Checked::ok(NAME, "this host has the source addresses of every route"),
    }
}

/// How the agent would intercept DNS, what that requires, and whether it does now.
fn interception(config: &Config) -> Checked {
    const NAME: &str = "dns_intercept";
    match config.dns.intercept {
        Intercept::Off => return Checked::ok(NAME, "off: dns.intercept is `off`"),
        Intercept::Auto | Intercept::Packets => {
            let found = "mapped names are answered by packet; every other query is left alone";
            return Checked::ok(NAME, found);
        }
        Intercept::Sockets => {}
    }
    let list = &config.dns.intercept_resolvers;
    let whose = if list.is_empty() {
        "DNS to this host's nameservers".to_owned()
    } else {
        format!("DNS to {}", list.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "))
    };
    let mark = Socket::new(Domain::IPV4, Type::DGRAM, None)
        .and_then(|socket| crate::net::socket_mark::mark(&socket));
    if let Err(error) = mark {
        let found = format!(
            "{whose} can't be intercepted: cannot mark our own DNS queries (SO_MARK: {error})"
        );
        return Checked::warning(
            NAME,
            found,
            "run it with CAP_NET_ADMIN, as the agent does, or set dns.intercept = \"auto\"",
        );
    }
    let now = match datapath::pinned_interception(&config.agent.bpffs) {
        Ok(Some(found)) if found.on && crate::agent::is_running(&config.agent.run_dir) => {
            "active now"
        }
        Ok(Some(_)) => "inactive",
        Ok(None) => "not loaded yet",
        Err(_) => "its state can't be read",
    };
    Checked::ok(
        NAME,
        format!(
            "{whose} goes to the shim, by the sendmsg and recvmsg hooks and marked sockets; {now}"
        ),
    )
}

/// Whether a route as [`host::conflicting_routes`] writes it leads to exactly this network.
fn is_to(route: &str, pool: Ipv4Net) -> bool {
    route.split_whitespace().any(|word| word.parse() == Ok(pool))
}

fn render(env: &mut Env<'_>, report: &Report) -> io::Result<()> {
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
