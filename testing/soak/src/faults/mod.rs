//! Plays a step of the schedule: causes the fault, waits, and undoes it.

mod agent;
mod changes;

use std::net::Ipv4Addr;
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rustix::process::Signal;
use testbed::clients::now_us;
use testbed::customer::Obstacle;
use testbed::topology::LOAD_BALANCERS;

use crate::fault::{Attack, Condition, Fault};
use crate::field::{Field, SHIM, UPSTREAMS, lock};
use crate::profile::Profile;
use crate::schedule::Step;
use crate::tenants::Running;
use crate::timeline::Timeline;

/// How the link is slowed down: at this rate packets of the clients queue.
const SLOW: &str = "tbf rate 2mbit burst 16kb latency 200ms";

/// What a step needs to be played.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stage<'a> {
    pub(crate) field: &'a Field,
    pub(crate) timeline: &'a Mutex<Timeline>,
    pub(crate) profile: Profile,
    /// When the next fault of the agent begins; an agent may be killed while it starts.
    pub(crate) next_of_agent: Option<Instant>,
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
            | Fault::AgentWithoutMemory => {
                let note_end = || {
                    let text = "an agent of the crash loop ends".to_owned();
                    lock(self.timeline).begin(now_us(), Some(Condition::AgentAway), text);
                };
                return agent::apply(field, step.fault, self.next_of_agent, wait, &note_end);
            }
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
                field.on_node(&format!("tc qdisc add dev uplink root {SLOW}"))?;
                wait();
                field.on_node("tc qdisc del dev uplink root")?;
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
                changes::change_routes(field, step)?;
                wait();
            }
            Fault::GuestReplaced => {
                changes::replace_guest(field, step)?;
                wait();
            }
            Fault::DiskFull => changes::fill_disk(field, self.timeline, step, wait)?,
            Fault::PinsRemoved => {
                changes::remove_pins(
                    field,
                    "find /sys/fs/bpf/redirector -type f -delete",
                    "true",
                    wait,
                )?;
            }
            Fault::BpffsUnmounted => {
                let mount = "mount -t bpf -o mode=0700 bpf /sys/fs/bpf";
                changes::remove_pins(field, "umount -l /sys/fs/bpf", mount, wait)?;
            }
            Fault::ShimAddressRemoved => {
                field.on_node(&format!("ip addr del {SHIM}/32 dev lo"))?;
                changes::until_on_node(field, &format!("ip addr show dev lo | grep -q {SHIM}/32"))?;
            }
            Fault::Tenant(attack) => self.attack(attack, wait)?,
        }
        Ok(true)
    }

    fn obstruct(self, addresses: &[Ipv4Addr], obstacle: Obstacle, wait: &dyn Fn()) -> Result<()> {
        let customer = &self.field.rig.customer;
        addresses.iter().try_for_each(|address| customer.obstruct(*address, obstacle))?;
        wait();
        addresses.iter().try_for_each(|address| customer.clear(*address, obstacle))
    }

    fn attack(self, attack: Attack, wait: &dyn Fn()) -> Result<()> {
        let observed = self.profile.tenant_connects();
        let mut running = Running::start(self.field, attack, observed)?;
        wait();
        ensure!(running.is_alive(), "the attack ended early: {attack}");
        Ok(())
    }
}
