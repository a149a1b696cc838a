//! `redirector unload`: removes everything that the agent left in the kernel.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use clap::Args;
use ipnet::IpNet;
use serde::Serialize;

use crate::{
    agent,
    cli::{
        context::{Context, block_on},
        exit::Exit,
        io::Env,
        output::OutputArgs,
    },
    config::Config,
    control::{api, count},
    datapath::{self, Removed},
    host,
};

/// `unload`.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  redirector unload
  redirector unload --purge     before the program is removed from this host

Established connections are not affected. New connects to virtual addresses are no longer \
redirected: they fail, or leave this host towards the pool once its guard route is gone. Routes \
and virtual addresses stay on disk for the next start.")]
pub(crate) struct Unload {
    /// Unload even if an agent runs; that agent redirects nothing until it is restarted
    #[arg(long)]
    force: bool,
    /// Remove the files in agent.state_dir and agent.run_dir too, so virtual addresses and routes
    /// added by command; that there is nothing to remove is no error
    #[arg(long)]
    purge: bool,
    #[command(flatten)]
    output: OutputArgs,
}

/// What was removed: `redirector unload -o json`.
#[derive(Debug, Serialize)]
struct Report {
    version: u32,
    links: usize,
    cgroups: usize,
    packet_programs: usize,
    interfaces: usize,
    maps: usize,
    guard: Option<String>,
    addresses: Vec<String>,
    /// With `--purge`: the directories whose files were removed.
    files: Vec<PathBuf>,
}

impl Unload {
    pub(crate) fn run(self, env: &mut Env<'_>, context: &Context) -> anyhow::Result<Exit> {
        let paths = context.agent_paths()?;
        let held = [&paths.run_dir, &paths.bpffs].into_iter().find(|path| agent::is_running(path));
        if let Some(held) = held.filter(|_| !self.force) {
            let pid = agent::running(held).map(|pid| format!(", pid {pid},")).unwrap_or_default();
            return Err(Exit::Failed.because(format!(
                "an agent{pid} is running and needs its datapath: stop it first, or use --force"
            )));
        }
        if held.is_some() {
            // It would restore what is removed here.
            agent::end_restoring(&paths.run_dir).map_err(|error| {
                let run_dir = paths.run_dir.display();
                Exit::Failed.because(format!("the agent would restore it: {run_dir}: {error}"))
            })?;
        }
        // Without a readable file, the defaults show where to look for what carries our mark.
        let config = crate::config::load(context.config()).unwrap_or_default();
        let removed = datapath::unload(&paths.bpffs)?;
        let mut report = block_on(host_changes(removed, &config))??;
        if self.purge {
            for dir in [&paths.state_dir, &paths.run_dir] {
                report.files.extend(purge(dir)?.then(|| dir.clone()));
            }
        }
        if report.is_empty() && !self.purge {
            return Err(Exit::Absent
                .because("nothing to unload: no pins, no guard route, no address of ours"));
        }
        self.output.print(env, &report, |env| {
            report.render().iter().try_for_each(|line| writeln!(env.out, "removed {line}"))
        })?;
        Ok(Exit::Done)
    }
}

/// Removes everything in a directory, and itself unless something is mounted there, as in a pod.
/// False if there was nothing.
fn purge(dir: &Path) -> anyhow::Result<bool> {
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(error).context(format!("failed to read {}", dir.display())),
    };
    let mut found = false;
    for entry in entries {
        let path = entry.with_context(|| format!("failed to read {}", dir.display()))?.path();
        let removed =
            if path.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
        removed.with_context(|| format!("failed to remove {}", path.display()))?;
        found = true;
    }
    Ok(fs::remove_dir(dir).is_ok() || found)
}

/// Removes the guard route and the listen addresses. Both carry a mark, so those of other owners
/// stay.
async fn host_changes(removed: Removed, config: &Config) -> anyhow::Result<Report> {
    let mut report = Report {
        version: api::VERSION,
        links: removed.links,
        cgroups: removed.cgroups,
        packet_programs: removed.packet_programs,
        interfaces: removed.interfaces,
        maps: removed.maps,
        guard: None,
        addresses: vec![],
        files: vec![],
    };
    let pinned = removed
        .pool
        .into_iter()
        .chain(removed.pool_ipv6)
        .chain(removed.former_pools)
        .filter_map(|pool| pool.parse::<IpNet>().ok());
    let pools: std::collections::BTreeSet<IpNet> = pinned.chain(config.pool.nets()).collect();
    let mut guards = Vec::new();
    for pool in pools {
        if host::remove_guard(pool).await? {
            guards.push(pool.to_string());
        }
    }
    report.guard = (!guards.is_empty()).then(|| guards.join(", "));
    for listen in &config.dns.listen {
        if host::remove_address(listen.ip()).await? {
            report.addresses.push(listen.ip().to_string());
        }
    }
    Ok(report)
}

impl Report {
    fn is_empty(&self) -> bool {
        self.links + self.packet_programs + self.maps == 0
            && self.guard.is_none()
            && self.addresses.is_empty()
            && self.files.is_empty()
    }

    fn render(&self) -> Vec<String> {
        let mut lines = Vec::new();
        if self.links > 0 {
            lines.push(format!(
                "{} from {}",
                count(self.links, "link"),
                count(self.cgroups, "cgroup")
            ));
        }
        if self.packet_programs > 0 {
            lines.push(format!(
                "{} from {}",
                count(self.packet_programs, "packet program"),
                count(self.interfaces, "interface")
            ));
        }
        if self.maps > 0 {
            lines.push(count(self.maps, "pinned map"));
        }
        lines.extend(self.guard.iter().map(|pool| format!("the guard route for {pool}")));
        lines.extend(self.addresses.iter().map(|address| format!("{address} from lo")));
        lines.extend(self.files.iter().map(|dir| format!("the files in {}", dir.display())));
        lines
    }
}
