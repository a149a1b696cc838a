//! Plays a step of the schedule: causes the fault, waits, and undoes it.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rustix::process::{Pid, Resource, Rlimit, Signal, prlimit};
use testbed::clients::{LoadOptions, LoadProcess, now_us};
use testbed::customer::Obstacle;
use testbed::topology::LOAD_BALANCERS;
use testbed::{Agent, Network, process};

use crate::fault::{Attack, Condition, Fault};
use crate::field::{self, Field, LIMIT, PORT, STATE, UNLISTED, UPSTREAMS};
use crate::profile::Profile;
use crate::schedule::Step;
use crate::tenants::Running;
use crate::timeline::Timeline;

/// Crashes of a crash loop, and how long the agent lives each time.
const CRASHES: (u32, Duration) = (3, Duration::from_millis(700));
/// How the link is slowed down: at this rate packets of the clients queue.
const SLOW: &str = "tbf rate 2mbit burst 16kb latency 200ms";
/// How long a new guest may wait until it is served, on a busy machine.
const GUEST_LIMIT: Duration = Duration::from_secs(15);

/// What a step needs to be played.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stage<'a> {
    pub(crate) field: &'a Field,
    pub(crate) timeline: &'a Mutex<Timeline>,
    pub(crate) profile: Profile,
    /// When the next fault of the agent begins; an agent may be killed while it starts.
    pub(crate) next_of_agent: Option<Instant>,
}

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Stage<'_> {
    /// Causes the fault of a step, waits until `over` returns true or for as long as the step
    /// lasts, and undoes it.
    pub(crate) fn play(self, step: &Step, over: &dyn Fn() -> bool) -> Result<()> {
        let condition = step.fault.condition();
        let number = lock(self.timeline).begin(now_us(), condition, step.to_string());
        let end = Instant::now() + step.lasts;
        let wait = || {
            while !over() && Instant::now() < end {
                thread::sleep(Duration::from_millis(20).min(end - Instant::now()));
            }
        };
        let applied = self.apply(step, &wait).with_context(|| step.to_string());
        // A fault that could not be undone is reported, and is no excuse for what follows.
        if !matches!(applied, Ok(false)) {
            let mut timeline = lock(self.timeline);
            timeline.end(number, now_us());
            if condition == Some(Condition::AgentAway) {
                // Earlier agents were killed before they were ready.
                timeline.end_all(Condition::AgentAway, now_us());
            }
        }
        applied.map(drop)
    }

    /// Returns whether the effect is over.
    fn apply(self, step: &Step, wait: &dyn Fn()) -> Result<bool> {
        let field = self.field;
        match step.fault {
            Fault::AgentKilled
            | Fault::AgentStopped
            | Fault::AgentUpgraded
            | Fault::AgentCrashLoop
            | Fault::AgentWithoutMemory => return self.apply_to_agent(step.fault, wait),
            Fault::BackendKilled(at) => {
                lock(&field.balancers[at]).stop()?;
                wait();
                lock(&field.balancers[at]).start_again()?;
            }
            Fault::BackendStopped(at) => {
                lock(&field.balancers[at]).signal(Signal::STOP)?;
                wait();
                lock(&field.balancers[at]).signal(Signal::CONT)?;
            }
            Fault::BackendObstructed(at, obstacle) => {
                self.obstruct(&[LOAD_BALANCERS[at]], obstacle, wait)?;
            }
            Fault::UpstreamObstructed(at, obstacle) => {
                self.obstruct(&[UPSTREAMS[at]], obstacle, wait)?;
            }
            Fault::UplinkLossy => {
                self.obstruct(&Field::beyond_the_uplink(), Obstacle::Lossy, wait)?;
            }
            Fault::UplinkSlow => {
                self.on_node(&format!("tc qdisc add dev uplink root {SLOW}"))?;
                wait();
                self.on_node("tc qdisc del dev uplink root")?;
            }
            Fault::DnsStopped => {
                lock(&field.dns).signal(Signal::STOP)?;
                wait();
                lock(&field.dns).signal(Signal::CONT)?;
            }
            Fault::DnsKilled => {
                lock(&field.dns).stop()?;
                wait();
                lock(&field.dns).start_again()?;
            }
            Fault::AddressesChanged(at) => {
                lock(self.timeline).publish(now_us(), [at]);
                lock(&field.dns).set_addresses(&[LOAD_BALANCERS[at]])?;
                wait();
                lock(self.timeline).publish(now_us(), [0, 1]);
                lock(&field.dns).set_addresses(&LOAD_BALANCERS)?;
            }
            Fault::RoutesChanged => {
                self.change_routes(step)?;
                wait();
            }
            Fault::GuestReplaced => {
                self.replace_guest(step)?;
                wait();
            }
            Fault::DiskFull => self.fill_disk(step, wait)?,
            Fault::Tenant(attack) => self.attack(attack, wait)?,
        }
        Ok(true)
    }

    fn apply_to_agent(self, fault: Fault, wait: &dyn Fn()) -> Result<bool> {
        let mut agent = lock(&self.field.agent);
        match fault {
            Fault::AgentStopped => {
                agent.signal(Signal::STOP)?;
                wait();
                agent.signal(Signal::CONT)?;
                self.field.rig.node.cli(&self.field.binary, &["route", "list"])?;
                return Ok(true);
            }
            Fault::AgentUpgraded => drop(agent.sigterm()?),
            Fault::AgentCrashLoop => {
                for _ in 0..CRASHES.0 {
                    agent.relaunch()?;
                    thread::sleep(CRASHES.1);
                    agent.sigkill()?;
                }
            }
            Fault::AgentWithoutMemory => {
                limit_memory(&agent)?;
                wait();
                // It ends or it continues; either way the next one has the memory back.
            }
            _ => {
                agent.sigkill()?;
                wait();
            }
        }
        agent.relaunch()?;
        self.await_ready(&mut agent)
    }

    /// Waits for READY=1, or until the next fault of the agent is due.
    fn await_ready(self, agent: &mut Agent) -> Result<bool> {
        let deadline = Instant::now() + LIMIT;
        loop {
            if agent.notifications()?.iter().any(|state| state == "READY=1") {
                return Ok(true);
            }
            if let Some(status) = agent.ended()? {
                anyhow::bail!("the agent ended: {status}\n{}", agent.log_tail());
            }
            if self.next_of_agent.is_some_and(|next| Instant::now() >= next) {
                return Ok(false);
            }
            ensure!(Instant::now() < deadline, "not ready after {LIMIT:?}\n{}", agent.log_tail());
            thread::sleep(Duration::from_millis(5));
        }
    }

    fn obstruct(
        self,
        addresses: &[std::net::Ipv4Addr],
        obstacle: Obstacle,
        wait: &dyn Fn(),
    ) -> Result<()> {
        let customer = &self.field.rig.customer;
        addresses.iter().try_for_each(|address| customer.obstruct(*address, obstacle))?;
        wait();
        addresses.iter().try_for_each(|address| customer.clear(*address, obstacle))
    }

    /// A route is live when the command returns, and gone when the next one returns.
    fn change_routes(self, step: &Step) -> Result<()> {
        let name = format!("route{}.internal.company.net", step.number);
        let port = format!("{PORT}");
        self.cli(&["route", "add", &name, "203.0.113.7", "--port", &port])?;
        let vip = self.field.vip(&name)?;
        self.connects(vip, PORT, &["lb1"])?;
        self.cli(&["route", "set", &name, "--destination", "203.0.113.8"])?;
        self.connects(vip, PORT, &["lb2"])?;
        self.is_refused(vip, UNLISTED)?;
        self.cli(&["route", "remove", &name])?;
        self.is_refused(vip, PORT)
    }

    fn cli(self, arguments: &[&str]) -> Result<()> {
        let done = self.field.rig.node.cli(&self.field.binary, arguments)?;
        done.success().with_context(|| format!("redirector {}", arguments.join(" ")))?;
        Ok(())
    }

    fn connects(self, vip: std::net::Ipv4Addr, port: u16, banners: &[&str]) -> Result<()> {
        let report = self.load(vip, port, banners)?;
        ensure!(report.flawless(), "{vip}:{port} does not lead to {banners:?}: {report:?}");
        Ok(())
    }

    fn is_refused(self, vip: std::net::Ipv4Addr, port: u16) -> Result<()> {
        let report = self.load(vip, port, &[])?;
        let refused = report.failed.get("ECONNREFUSED").or(report.failed.get("EPERM"));
        ensure!(refused == Some(&report.attempted), "{vip}:{port} is not refused: {report:?}");
        Ok(())
    }

    fn load(
        self,
        vip: std::net::Ipv4Addr,
        port: u16,
        banners: &[&str],
    ) -> Result<testbed::clients::LoadReport> {
        let options = LoadOptions {
            target: (vip, port).into(),
            rate: 10,
            seconds: 0.3,
            expect_peer: None,
            expect_banner: banners.iter().map(|&banner| banner.to_owned()).collect(),
        };
        LoadProcess::start(self.field.tenant.sandbox(), &options)?.report()
    }

    /// A guest appears while the agent runs: its names resolve and its connects arrive; then its
    /// interface disappears.
    fn replace_guest(self, step: &Step) -> Result<()> {
        let field = self.field;
        let name = format!("guest{}", step.number);
        let guest = field.rig.executor(field::options(&name, false, Network::Pod))?;
        let expected = field.vips.tenants.to_string();
        let ask = format!("dig +short +tries=1 +time=1 @{} {}", UPSTREAMS[0], field::TENANTS_NAME);
        process::until("a new guest's name to resolve", GUEST_LIMIT, || {
            Ok(guest.run(&ask, LIMIT)?.stdout.trim() == expected)
        })?;
        let line = format!("curl -sS --max-time 20 http://{expected}:{PORT}/");
        process::until("a new guest's connect", GUEST_LIMIT, || {
            Ok(guest.run(&line, LIMIT)?.stdout.starts_with("lb"))
        })
    }

    /// A full disk refuses changes and leaves everything else; afterwards changes are made.
    fn fill_disk(self, step: &Step, wait: &dyn Fn()) -> Result<()> {
        let fill = format!("dd if=/dev/zero of={STATE}/filler bs=4k 2>/dev/null; df {STATE}");
        self.field.rig.node.sandbox().run(&fill, LIMIT)?;
        wait();
        self.on_node(&format!("rm -f {STATE}/filler"))?;
        let away = lock(self.timeline).is_away();
        if !away {
            let name = format!("disk{}.internal.company.net", step.number);
            process::until("changes after a full disk", LIMIT, || {
                let added = ["route", "add", &name, "203.0.113.7"];
                let done = self.field.rig.node.cli(&self.field.binary, &added)?;
                Ok(done.status.success() || lock(self.timeline).is_away())
            })?;
            let removed = ["route", "remove", &name];
            self.field.rig.node.cli(&self.field.binary, &removed)?;
        }
        Ok(())
    }

    fn attack(self, attack: Attack, wait: &dyn Fn()) -> Result<()> {
        let observed = self.profile.tenant_connects();
        let mut running = Running::start(self.field, attack, observed)?;
        wait();
        ensure!(running.is_alive(), "the attack ended early: {attack}");
        Ok(())
    }

    fn on_node(self, line: &str) -> Result<()> {
        self.field
            .rig
            .node
            .sandbox()
            .run(line, LIMIT)?
            .success()
            .with_context(|| line.to_owned())?;
        Ok(())
    }
}

/// Lets the agent have no more address space than it has.
fn limit_memory(agent: &Agent) -> Result<()> {
    let pid = i32::try_from(agent.pid()).context("a pid out of range")?;
    let used = procfs::process::Process::new(pid)?.stat()?.vsize;
    let limit = Rlimit { current: Some(used), maximum: Some(used) };
    prlimit(Pid::from_raw(pid), Resource::As, limit)
        .context("failed to limit the agent's memory")?;
    Ok(())
}
