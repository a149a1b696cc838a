//! `redirector verify`: connects as an executor does.

use std::{io, net::IpAddr, path::PathBuf, time::Duration};

use clap::Args;

use crate::{
    cli::{
        context::Context,
        exit::Exit,
        findings::print_findings,
        io::{Env, Paint},
        output::OutputArgs,
        status_source,
    },
    verify::{self, GuestPlace, Process, Referrer, Step, StepOutcome, Target, Until, Verified},
};

/// `verify`.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  redirector verify artifactory.internal.company.net
  redirector verify artifactory.internal.company.net --pid 4711
  redirector verify artifactory.internal.company.net --interface veth3a
  redirector verify https://artifactory.internal.company.net/v2/
  redirector verify ssh://git@git.internal.company.net:7999/team/repository.git
  redirector verify artifactory.internal.company.net --ca ca.pem

With --pid it uses that process's cgroup, network, resolver and certificates. Without, it runs \
in a new cgroup below the first attached one, in this network, and queries the shim. With \
--netns or --interface it acts as a guest does, whose connects only the packet programs see: it \
joins that network and a cgroup that is not attached. The guest of a virtual machine cannot be \
entered.

It follows the Location of a redirect and the realm of a Bearer challenge to other sources, and \
names hosts that are none.

Exit codes: 0 it works, 1 it does not, and the output shows why and what to do, 3 missing \
privileges, 4 no agent and nothing of it in the kernel.")]
pub(crate) struct Verify {
    /// The internal name, with a path or as a URL (https, http, ssh); the port is the scheme's, or
    /// 443. Ports 22 and 7999 are taken for SSH
    #[arg(value_name = "SOURCE[:PORT][/PATH]|URL")]
    target: Target,
    /// Run below this cgroup: absolute, or relative to the cgroup2 mount
    #[arg(long, value_name = "DIRECTORY")]
    cgroup: Option<PathBuf>,
    /// Run as this process would: its cgroup, network namespace, resolv.conf, hosts,
    /// certificates and proxy variables
    #[arg(long, value_name = "PID")]
    pid: Option<u32>,
    /// Act from a guest's place: this network namespace, by name (`ip netns`) or path, in a cgroup
    /// that the programs do not see
    #[arg(long, value_name = "NAME|PATH", conflicts_with_all = ["cgroup", "pid"])]
    netns: Option<PathBuf>,
    /// The same, for the namespace at the other end of this interface (a veth)
    #[arg(long, value_name = "NAME", conflicts_with_all = ["cgroup", "pid", "netns"])]
    interface: Option<String>,
    /// With --netns or --interface: query this nameserver, and not the namespace's or this host's
    #[arg(long, value_name = "ADDRESS")]
    nameserver: Vec<IpAddr>,
    /// Trust the certificate authorities of this PEM file only
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
    /// Stop after this step
    #[arg(long, value_enum, value_name = "STEP", default_value_t = Until::Http)]
    until: Until,
    /// Use HTTP without TLS; implied by port 80
    #[arg(long)]
    plain: bool,
    /// Seconds that each step may take
    #[arg(
        long,
        value_name = "SECONDS",
        default_value_t = 10,
        value_parser = clap::value_parser!(u64).range(1..=300)
    )]
    timeout: u64,
    #[command(flatten)]
    output: OutputArgs,
}

impl Verify {
    pub(crate) fn run(self, env: &mut Env<'_>, context: &Context) -> anyhow::Result<Exit> {
        let known = status_source::snapshot(context)?;
        let wanted = verify::VerifyOptions {
            target: self.target,
            cgroup: self.cgroup,
            process: self.pid.map(Process::read).transpose()?,
            guest: match (&self.netns, &self.interface) {
                (Some(netns), _) => Some(GuestPlace::netns(netns, self.nameserver)?),
                (None, Some(name)) => Some(GuestPlace::interface(name, self.nameserver)?),
                (None, None) => None,
            },
            ca: self.ca,
            until: self.until,
            plain: self.plain,
            timeout: Duration::from_secs(self.timeout),
            shim: known.shim,
        };
        let verified = verify::verify(&wanted, &known.status, || {
            status_source::snapshot(context).ok().map(|known| known.status)
        })?;
        self.output.print(env, &verified, |env| render(env, &verified))?;
        Ok(if verified.ok { Exit::Done } else { Exit::Failed })
    }
}

fn render(env: &mut Env<'_>, verified: &Verified) -> io::Result<()> {
    let paint = Paint(env.colour);
    if let Some(vantage) = &verified.vantage {
        let who = vantage
            .process
            .as_ref()
            .map(|process| format!(" as {} (pid {})", process.command, process.pid))
            .unwrap_or_default();
        let place = match &vantage.guest {
            Some(guest) => format!("running in the network namespace {}", guest.label()),
            None => format!("running in {}{who}", vantage.cgroup.display()),
        };
        writeln!(env.out, "{}", paint.dim(&place))?;
    }
    render_steps(env, &verified.steps)?;
    for followed in &verified.followed {
        let by = match followed.by {
            Referrer::Location => "redirected to",
            Referrer::Realm => "sent for a token to",
        };
        writeln!(env.out, "{}", paint.dim(&format!("{by} {}", followed.url)))?;
        render_steps(env, &followed.steps)?;
    }
    writeln!(env.out)?;
    let target = format!("{}:{}", verified.name, verified.port);
    match verified.findings.iter().find(|finding| finding.prevents) {
        None => writeln!(env.out, "{}", paint.good(&format!("{target} works from here")))?,
        Some(_) => {
            writeln!(env.out, "{}", paint.bad(&format!("{target} does not work from here")))?
        }
    }
    print_findings(env, &verified.findings)?;
    if let Some(command) = &verified.command {
        writeln!(
            env.out,
            "\nThe platform's acceptance test, to compare from the same location:\n    {command}"
        )?;
    }
    Ok(())
}

fn render_steps(env: &mut Env<'_>, steps: &[Step]) -> io::Result<()> {
    let paint = Paint(env.colour);
    for step in steps {
        let mark = match step.outcome {
            StepOutcome::Ok => paint.good("ok    "),
            StepOutcome::Failed => paint.bad("FAILED"),
        };
        writeln!(env.out, "{:<8} {mark}  {}", step.step, step.detail)?;
    }
    Ok(())
}

/// The probe itself: `verify` starts it.
#[derive(Args, Debug)]
pub(crate) struct Probe {}

impl Probe {
    pub(crate) fn run(env: &mut Env<'_>) -> anyhow::Result<Exit> {
        verify::child(env.input, env.out)?;
        Ok(Exit::Done)
    }
}
