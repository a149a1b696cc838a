//! `redirector explain`: what a connect would do, and why.

use std::{io, path::Path};

use clap::Args;

use crate::{
    cli::{
        context::Context,
        exit::Exit,
        findings::print_findings,
        io::{Env, Paint},
        output::OutputArgs,
        status_source::{self, Snapshot},
    },
    datapath,
    verify::{self, ExplainTarget, Explained, Process},
};

/// `explain`.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  redirector explain artifactory.internal.company.net
  redirector explain artifactory.internal.company.net:8443 --pid 4711
  redirector explain 198.18.0.1:443
  redirector explain artifactory.internal.company.net --interface tap0

Sends nothing; `redirector verify` connects for real.

Exit codes: 0 a connect would be redirected, 1 it would not, and the output shows why, 4 no \
agent and nothing of it in the kernel.")]
pub(crate) struct Explain {
    /// The name or address to connect to; the port is 443 unless given
    #[arg(value_name = "NAME|ADDRESS[:PORT]")]
    target: ExplainTarget,
    /// The process that connects
    #[arg(long, value_name = "PID")]
    pid: Option<u32>,
    /// The interface of this host whose guest connects
    #[arg(long, value_name = "NAME", conflicts_with = "pid")]
    interface: Option<String>,
    #[command(flatten)]
    output: OutputArgs,
}

impl Explain {
    pub(crate) fn run(self, env: &mut Env<'_>, context: &Context) -> anyhow::Result<Exit> {
        let known = status_source::snapshot(context)?;
        let process = self.pid.map(Process::read).transpose()?;
        let others = others(&known, process.as_ref(), &context.agent_paths()?.bpffs);
        let facts = verify::ExplainFacts {
            status: &known.status,
            process: process.as_ref(),
            interface: self.interface.as_deref(),
            client: self.client(process.as_ref()),
            shim: &known.shim,
            others: &others,
        };
        let explained = verify::explain(&self.target, &facts);
        self.output.print(env, &explained, |env| render(env, &explained))?;
        Ok(if explained.redirected { Exit::Done } else { Exit::Failed })
    }

    /// Who connects, as the agent names those that it ejects a backend for.
    fn client(&self, process: Option<&Process>) -> Option<String> {
        match &self.interface {
            Some(interface) => Some(datapath::interface_client(interface)),
            None => process?.cgroup.as_deref().map(datapath::cgroup_client),
        }
    }
}

/// Foreign programs on the hooks of the process, or of an attached cgroup; none without the right
/// to read them.
fn others(
    known: &Snapshot,
    process: Option<&Process>,
    bpffs: &Path,
) -> Vec<datapath::ForeignProgram> {
    let attached = known
        .status
        .datapath
        .iter()
        .flat_map(|datapath| &datapath.attachments)
        .find_map(|at| at.cgroup.as_deref());
    let cgroup = process.and_then(|process| process.cgroup.as_deref()).or(attached);
    cgroup.and_then(|cgroup| datapath::foreign_programs(bpffs, cgroup).ok()).unwrap_or_default()
}

fn render(env: &mut Env<'_>, explained: &Explained) -> io::Result<()> {
    let paint = Paint(env.colour);
    let verdict = format!("{}: {}", explained.target, explained.verdict);
    writeln!(
        env.out,
        "{}\n",
        if explained.redirected { paint.good(&verdict) } else { paint.bad(&verdict) }
    )?;
    for stage in &explained.path {
        writeln!(env.out, "{:<9} {}", stage.stage, stage.detail)?;
    }
    if !explained.findings.is_empty() {
        writeln!(env.out)?;
    }
    print_findings(env, &explained.findings)
}
