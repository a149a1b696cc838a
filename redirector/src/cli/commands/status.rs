//! `redirector status`: is all well, in words first.

use std::{io, time::Duration};

use clap::Args;

use crate::{
    agent,
    cli::{
        context::Context,
        exit::Exit,
        io::{Env, Paint},
        output::{OutputArgs, indented, span},
        route_tables, status_source,
    },
    control::{
        api::{self, ProblemCode, State},
        count,
    },
    datapath::{self, DatapathError},
};

/// `status`.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  redirector status
  redirector status -o json | jq -r '.problems[].message'

Exit codes: 0 all is well, 1 something is degraded (it says what), 4 no agent and nothing of it in the kernel.")]
pub(crate) struct Status {
    #[command(flatten)]
    output: OutputArgs,
}

impl Status {
    pub(crate) fn run(self, env: &mut Env<'_>, context: &Context) -> anyhow::Result<Exit> {
        let paths = context.agent_paths()?;
        let mut status = status_source::status(&paths).or_else(of_other_version)?;
        name_neighbours(&mut status);
        self.output.print(env, &status, |env| words(env, &status))?;
        Ok(if status.state == State::Ok { Exit::Done } else { Exit::Failed })
    }
}

/// Another version's pins can't be read, but that they are there is a status, too.
fn of_other_version(error: anyhow::Error) -> anyhow::Result<api::Status> {
    match error.downcast_ref() {
        Some(&DatapathError::AbiMismatch { found, ours }) => Ok(agent::other_version(found, ours)),
        _ => Err(error),
    }
}

fn words(env: &mut Env<'_>, status: &api::Status) -> io::Result<()> {
    let paint = Paint(env.colour);
    let summary = match status.state {
        State::Ok => paint.good(&status.summary),
        State::Degraded => paint.warn(&status.summary),
    };
    writeln!(env.out, "{summary}")?;
    if !status.problems.is_empty() {
        writeln!(env.out)?;
    }
    for problem in &status.problems {
        let mark = if problem.degrades { paint.bad("!") } else { paint.dim("-") };
        writeln!(env.out, "{mark} {}", indented(&problem.message))?;
        if let Some(remedy) = &problem.remedy {
            writeln!(env.out, "    {}", paint.dim(remedy))?;
        }
    }
    writeln!(env.out)?;
    parts(env, status)?;
    if !status.routes.is_empty() {
        writeln!(env.out)?;
        route_tables::list(env, &status.routes)?;
    }
    Ok(())
}

/// Whose DNS is taken to the shim.
fn intercepted(interception: &api::InterceptionInfo) -> String {
    let asked: Vec<_> = interception
        .resolvers
        .iter()
        .map(|resolver| format!("{} ({})", resolver.address, resolver.intercepted))
        .collect();
    if let Some(why_not) = &interception.reason {
        let were = if asked.is_empty() {
            String::new()
        } else {
            format!("; asked were {}", asked.join(", "))
        };
        let stale = match interception.bypassed_heartbeat_stale {
            0 => String::new(),
            number => format!("; {number} left alone since the agent is silent"),
        };
        return format!("nobody's DNS: {why_not}{were}{stale}");
    }
    let whose =
        if interception.listed_only { "DNS to listed resolvers" } else { "the DNS of executors" };
    let asked = if asked.is_empty() {
        "nobody has asked yet".to_owned()
    } else {
        format!("asked: {}", asked.join(", "))
    };
    let crowded = match interception.bypassed_resolver_slots_full {
        0 => String::new(),
        number => format!("; {number} left alone, since too many resolvers are asked"),
    };
    format!("{whose}; {asked}{crowded}")
}

/// The agent and what it is made of, one line each.
fn parts(env: &mut Env<'_>, status: &api::Status) -> io::Result<()> {
    let mut line = |key: &str, value: String| writeln!(env.out, "{key:<10} {value}");
    match &status.agent {
        Some(agent) => {
            let up = match agent.uptime_seconds {
                0 => "just started".to_owned(),
                seconds => format!("up {}", span(Duration::from_secs(seconds))),
            };
            let ours = env!("CARGO_PKG_VERSION");
            let other = if agent.version == ours {
                String::new()
            } else {
                format!(" (this command is {ours}: restart the agent to upgrade it)")
            };
            line("agent", format!("version {}{other}, pid {}, {up}", agent.version, agent.pid))?;
        }
        None if status.problems.iter().any(|problem| problem.code == ProblemCode::AgentSilent) => {
            line("agent", "does not answer".into())?
        }
        None => line("agent", "not running".into())?,
    }
    if let Some(config) = &status.config {
        line(
            "config",
            format!("{}, loaded {}", config.path.display(), config.loaded_at.strftime("%F %T UTC")),
        )?;
    }
    if let Some(dns) = &status.dns {
        // Without an agent there is no shim, and only what the tables tell of it.
        if !dns.listen.is_empty() {
            let listen: Vec<_> = dns.listen.iter().map(ToString::to_string).collect();
            let answer = if listen.len() == 1 { "answers" } else { "answer" };
            line("dns", format!("{} {answer} {}", listen.join(", "), count(dns.names, "name")))?;
            let why = |at: &api::UpstreamInfo| match (at.loops, at.ejected) {
                (true, _) => " (set aside: it asks us in turn)",
                (false, true) => " (set aside: it failed)",
                (false, false) => "",
            };
            let upstream = |at: &api::UpstreamInfo| format!("{}{}", at.address, why(at));
            let upstreams: Vec<_> = dns.upstreams.iter().map(upstream).collect();
            line("upstreams", upstreams.join(", "))?;
        }
        if let Some(interception) = &dns.interception {
            line("intercept", intercepted(interception))?;
        }
    }
    let Some(datapath) = &status.datapath else {
        return line(
            "datapath",
            if status.is_other_version() {
                "another version's".into()
            } else {
                "not loaded".into()
            },
        );
    };
    let heartbeat = match datapath.heartbeat_age_ms {
        Some(age) => format!("heartbeat {} ago", span(Duration::from_millis(age))),
        None => "no heartbeat yet".into(),
    };
    line(
        "datapath",
        format!(
            "ABI {}, {} at {}, {heartbeat}",
            datapath.abi,
            count(datapath.programs.len(), "program"),
            datapath.pins.display()
        ),
    )?;
    line(
        "pool",
        datapath.pool_ipv6.iter().fold(datapath.pool_ipv4.clone(), |v4, v6| format!("{v4}, {v6}")),
    )?;
    if let Some(upgrade) = &datapath.upgraded {
        let version = upgrade.from_version.as_deref().map_or_else(
            || "an earlier version".to_owned(),
            |version| format!("version {version}"),
        );
        line(
            "upgraded",
            format!(
                "from {version} (ABI {}) on {}",
                upgrade.from_abi,
                upgrade.at.strftime("%F %T UTC")
            ),
        )?;
    }
    if let Some(mount) = &datapath.cgroup2_mount {
        line("cgroup2", mount.display().to_string())?;
    }
    attached(env, datapath)
}

/// Where the programs are, and who else is there.
fn attached(env: &mut Env<'_>, datapath: &api::DatapathInfo) -> io::Result<()> {
    /// Lines for cgroups: a node may have hundreds.
    const SHOWN: usize = 10;
    let mut line = |key: &str, value: String| writeln!(env.out, "{key:<10} {value}");
    for (number, at) in datapath.attachments.iter().take(SHOWN).enumerate() {
        let cgroup = at
            .cgroup
            .as_ref()
            .map_or_else(|| format!("cgroup {}", at.cgroup_id), |path| path.display().to_string());
        let gone = if at.live { "" } else { " (gone)" };
        line(if number == 0 { "attached" } else { "" }, format!("{cgroup}{gone}"))?;
    }
    match datapath.attachments.len() {
        0 => line("attached", "to no cgroup".into())?,
        many if many > SHOWN => line("", format!("and {} more", count(many - SHOWN, "cgroup")))?,
        _ => {}
    }
    if datapath.draining_cgroups > 0 {
        let gone = count(datapath.draining_cgroups, "cgroup");
        line(
            "gone",
            format!("{gone} with sockets that are still open: they are followed to their end"),
        )?;
    }
    for (number, words) in neighbours(&datapath.foreign_programs).into_iter().enumerate() {
        line(if number == 0 { "neighbours" } else { "" }, words)?;
    }
    Ok(())
}

/// A line for each program of others, wherever it was met.
fn neighbours(met: &[api::ForeignProgram]) -> Vec<String> {
    let mut told: Vec<(&api::ForeignProgram, usize)> = Vec::new();
    for one in met {
        match told.iter_mut().find(|(known, _)| (&known.hook, known.id) == (&one.hook, one.id)) {
            Some((_, cgroups)) => *cgroups += 1,
            None => told.push((one, 1)),
        }
    }
    let words = |(at, cgroups): (&api::ForeignProgram, usize)| {
        let place =
            if cgroups == 1 { at.cgroup.display().to_string() } else { count(cgroups, "cgroup") };
        let order = if at.runs_first { "before" } else { "after" };
        format!(
            "{} (ID {}) is on {} of {place}, too, and runs {order} ours",
            at.name.as_deref().unwrap_or("a program"),
            at.id,
            at.hook
        )
    };
    told.into_iter().map(words).collect()
}

/// The agent has no right to ask for names; whoever runs this command may have.
fn name_neighbours(status: &mut api::Status) {
    for neighbour in status
        .datapath
        .iter_mut()
        .flat_map(|datapath| &mut datapath.foreign_programs)
        .filter(|at| at.name.is_none())
    {
        neighbour.name = datapath::program_name(neighbour.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_neighbour_above_several_cgroups_is_told_once() {
        let met = |cgroup: &str, id| api::ForeignProgram {
            cgroup: cgroup.into(),
            hook: "connect4".into(),
            id,
            name: (id == 7).then(|| "cil_sock4_connect".into()),
            runs_first: id == 8,
        };
        let told = neighbours(&[met("/a", 7), met("/b", 7), met("/b", 8)]);
        let expected = [
            "cil_sock4_connect (ID 7) is on connect4 of 2 cgroups, too, and runs after ours",
            "a program (ID 8) is on connect4 of /b, too, and runs before ours",
        ];
        assert_eq!(told, expected);
    }
}
