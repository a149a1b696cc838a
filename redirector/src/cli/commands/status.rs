//! `redirector status`: whether everything works, in one line, then in detail.

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
        api::{self, ProblemCode, ServedBy, State},
        count,
    },
    datapath::{self, DatapathError},
};

/// `status`.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  redirector status
  redirector status -o json | jq -r '.problems[].message'

Exit codes: 0 everything works, 1 something is degraded, 4 no agent and nothing of it in the \
kernel.")]
pub(crate) struct Status {
    #[command(flatten)]
    output: OutputArgs,
}

impl Status {
    pub(crate) fn run(self, env: &mut Env<'_>, context: &Context) -> anyhow::Result<Exit> {
        let paths = context.agent_paths()?;
        let mut status = status_source::status(&paths).or_else(of_other_version)?;
        name_foreign_programs(&mut status);
        self.output.print(env, &status, |env| render(env, &status))?;
        Ok(if status.state == State::Ok { Exit::Done } else { Exit::Failed })
    }
}

/// The pins of another version can't be read, but their presence is a status.
fn of_other_version(error: anyhow::Error) -> anyhow::Result<api::Status> {
    match error.downcast_ref() {
        Some(&DatapathError::AbiMismatch { found, ours }) => Ok(agent::other_version(found, ours)),
        _ => Err(error),
    }
}

fn render(env: &mut Env<'_>, status: &api::Status) -> io::Result<()> {
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

/// How executors get the answers of sources.
fn intercepted(interception: &api::InterceptionInfo) -> String {
    let resolver = |at: &api::InterceptedResolver| format!("{} ({})", at.address, at.intercepted);
    let resolvers: Vec<_> = interception.resolvers.iter().map(resolver).collect();
    let stale = match interception.bypassed_heartbeat_stale {
        0 => String::new(),
        number => format!("; {number} bypassed: the agent's heartbeat is stale"),
    };
    match (&interception.reason, interception.way) {
        (Some(reason), _) => format!("off: {reason}{stale}"),
        (None, api::InterceptWay::Packets) => {
            "packets: names are answered in the kernel, by any resolver's address".to_owned()
        }
        (None, api::InterceptWay::Sockets) => {
            format!("sockets: queries to {} go to the shim{stale}", resolvers.join(", "))
        }
        (None, api::InterceptWay::Off) => "off".to_owned(),
    }
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
            if let Some(standby) = &agent.standby {
                let pid = standby.pid.map_or(String::new(), |pid| format!("pid {pid}, "));
                let state = if standby.ready { "ready to take over" } else { "preparing" };
                line("standby", format!("{pid}{state}"))?;
            }
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
        // Without an agent there is no shim, only what the maps hold of it.
        if !dns.listen.is_empty() {
            let listen: Vec<_> = dns.listen.iter().map(ToString::to_string).collect();
            let answer = if listen.len() == 1 { "answers" } else { "answer" };
            line("dns", format!("{} {answer} {}", listen.join(", "), count(dns.names, "name")))?;
            let note = |at: &api::UpstreamInfo| match (at.loops, at.ejected) {
                (true, _) => " (ejected: it forwards to us)",
                (false, true) => " (ejected: it failed)",
                (false, false) => "",
            };
            let upstream = |at: &api::UpstreamInfo| match &at.looping_zones[..] {
                [] => format!("{}{}", at.address, note(at)),
                zones => {
                    format!("{}{} (it forwards {} to us)", at.address, note(at), zones.join(", "))
                }
            };
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
                "loaded by another version".into()
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
    attached(env, datapath)?;
    packets(env, &datapath.packet)
}

/// Where the programs are attached, and which foreign programs share the hooks.
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
        line("draining", format!("{gone} with open sockets, followed until they close"))?;
    }
    if let Some(pods) = &datapath.pods {
        let left_out = pods.left_out;
        let stale = pods.error.as_ref().map(|error| format!(" (out of date: {error})"));
        let stale = stale.unwrap_or_default();
        let redirected = count(pods.selected, "pod");
        line("pods", format!("{redirected} redirected, {left_out} left out{stale}"))?;
    }
    for (number, text) in uncovered(&datapath.uncovered).into_iter().enumerate() {
        line(if number == 0 { "uncovered" } else { "" }, text)?;
    }
    for (number, text) in source_ports(&datapath.source_ports).into_iter().enumerate() {
        line(if number == 0 { "ports" } else { "" }, text)?;
    }
    for (number, text) in foreign_programs(&datapath.foreign_programs).into_iter().enumerate() {
        line(if number == 0 { "foreign" } else { "" }, text)?;
    }
    Ok(())
}

/// A line for each cgroup that holds sockets and is not redirected.
pub(super) fn uncovered(all: &[api::UncoveredCgroup]) -> Vec<String> {
    /// A host has dozens of services.
    const SHOWN: usize = 5;
    let line = |at: &api::UncoveredCgroup| {
        let preset = at.preset.as_ref().map(|preset| format!("preset {preset}"));
        let connections = (at.connections > 0).then(|| count(at.connections, "connection"));
        let notes: Vec<_> = preset.into_iter().chain(connections).collect();
        format!("{} ({})", at.cgroup.display(), notes.join(", "))
    };
    let more = all.len().saturating_sub(SHOWN);
    let more = (more > 0).then(|| format!("and {} more", count(more, "cgroup")));
    all.iter().take(SHOWN).map(line).chain(more).collect()
}

/// A line for each source address with many ports in use towards a backend.
fn source_ports(all: &[api::SourcePortsInfo]) -> Vec<String> {
    /// Of 28,232 by default.
    const MANY: u64 = 1000;
    let many = all.iter().filter(|at| at.ports >= MANY);
    many.map(|at| format!("{} in use from {} to {}", at.ports, at.source, at.backend)).collect()
}

/// What serves the packets that pass this host's interfaces.
fn packets(env: &mut Env<'_>, packet: &api::PacketInfo) -> io::Result<()> {
    let mut line = |key: &str, value: String| writeln!(env.out, "{key:<10} {value}");
    if let Some(reason) = &packet.unavailable {
        return line("packets", format!("unavailable: {reason}"));
    }
    let counter = |name: &str| packet.counters.get(name).copied().unwrap_or_default();
    let answered: u64 =
        ["names_answered", "names_nodata", "names_reverse"].map(counter).iter().sum();
    let names = match packet.answers_names {
        true => format!("{} answered {answered} times", count(packet.names, "name")),
        false => "no names are answered".to_owned(),
    };
    let moved = match counter("flows_moved") {
        0 => String::new(),
        moved => format!(", {moved} connects of guests moved to another backend"),
    };
    line("packets", format!("{names}{moved}"))?;
    for (number, text) in interfaces(&packet.interfaces).into_iter().enumerate() {
        line(if number == 0 { "interfaces" } else { "" }, text)?;
    }
    if let Some(text) = flows(&packet.interfaces) {
        line("flows", text)?;
    }
    Ok(())
}

/// The connections of guests, and the interfaces with most of them.
fn flows(interfaces: &[api::InterfaceInfo]) -> Option<String> {
    const SHOWN: usize = 3;
    let mut guests: Vec<_> = interfaces
        .iter()
        .filter_map(|at| Some((at, at.flows?)))
        .filter(|(_, flows)| flows.open + flows.half_open + flows.refused > 0)
        .collect();
    let sum = |field: fn(&api::FlowsInfo) -> u64| guests.iter().map(|(_, at)| field(at)).sum();
    let (open, half_open, refused): (u64, u64, u64) =
        (sum(|at| at.open), sum(|at| at.half_open), sum(|at| at.refused));
    guests.sort_by_key(|(_, at)| std::cmp::Reverse((at.open + at.half_open, at.refused)));
    let shown = guests.iter().take(SHOWN).map(|(at, flows)| {
        let refused = match flows.refused {
            0 => String::new(),
            refused => format!(", {refused} refused"),
        };
        format!("{} {} of {}{refused}", at.label(), flows.open, flows.limit)
    });
    let shown = shown.collect::<Vec<_>>().join("; ");
    let summary = format!("{open} open, {half_open} half-open, {refused} refused");
    (!guests.is_empty()).then(|| format!("{summary} (most open: {shown})"))
}

/// A line for each way that serves interfaces, and one for each that failed.
fn interfaces(all: &[api::InterfaceInfo]) -> Vec<String> {
    /// Names in a line: a node may have hundreds.
    const SHOWN: usize = 8;
    let list = |found: Vec<&api::InterfaceInfo>, served: &str| {
        let mut names: Vec<_> = found.iter().take(SHOWN).map(|at| at.label()).collect();
        if found.len() > SHOWN {
            names.push(format!("and {} more", found.len() - SHOWN));
        }
        (!found.is_empty()).then(|| format!("{served}: {}", names.join(", ")))
    };
    let served_by = |names, connects| {
        let is_served =
            move |at: &&api::InterfaceInfo| at.names == names && at.connects == connects;
        all.iter().filter(is_served).collect::<Vec<_>>()
    };
    let (packet, cgroup, none) = (ServedBy::Packet, ServedBy::Cgroup, ServedBy::None);
    let ways = [
        list(served_by(packet, packet), "names and connects by packet"),
        list(served_by(packet, none), "names only by packet"),
        list(served_by(packet, cgroup), "names of attached cgroups by packet"),
    ];
    let failed = all
        .iter()
        .filter(|at| at.failed)
        .map(|at| format!("failed: {}: {}", at.label(), at.reason.as_deref().unwrap_or("unknown")));
    ways.into_iter().flatten().chain(failed).collect()
}

/// A line for each foreign program, however many cgroups it is on.
fn foreign_programs(found: &[api::ForeignProgram]) -> Vec<String> {
    let mut programs: Vec<(&api::ForeignProgram, usize)> = Vec::new();
    for one in found {
        match programs.iter_mut().find(|(known, _)| (&known.hook, known.id) == (&one.hook, one.id))
        {
            Some((_, cgroups)) => *cgroups += 1,
            None => programs.push((one, 1)),
        }
    }
    let render = |(at, cgroups): (&api::ForeignProgram, usize)| {
        let place =
            if cgroups == 1 { at.cgroup.display().to_string() } else { count(cgroups, "cgroup") };
        let order = if at.runs_first { "before" } else { "after" };
        format!(
            "{} (ID {}) is on {} of {place} and runs {order} ours",
            at.name.as_deref().unwrap_or("a program"),
            at.id,
            at.hook
        )
    };
    programs.into_iter().map(render).collect()
}

/// Adds program names, which the agent may not read but this command perhaps may.
fn name_foreign_programs(status: &mut api::Status) {
    for program in status
        .datapath
        .iter_mut()
        .flat_map(|datapath| &mut datapath.foreign_programs)
        .filter(|at| at.name.is_none())
    {
        program.name = datapath::program_name(program.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_foreign_program_on_several_cgroups_has_one_line() {
        let found = |cgroup: &str, id| api::ForeignProgram {
            cgroup: cgroup.into(),
            hook: "connect4".into(),
            id,
            name: (id == 7).then(|| "cil_sock4_connect".into()),
            runs_first: id == 8,
        };
        let lines = foreign_programs(&[found("/a", 7), found("/b", 7), found("/b", 8)]);
        let expected = [
            "cil_sock4_connect (ID 7) is on connect4 of 2 cgroups and runs after ours",
            "a program (ID 8) is on connect4 of /b and runs before ours",
        ];
        assert_eq!(lines, expected);
    }
}
