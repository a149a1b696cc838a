//! An upgrade that is killed at each of its steps: connects are redirected as before, and the next
//! start completes it.

use std::{
    fmt,
    process::Command,
    sync::atomic::{AtomicUsize, Ordering},
};

use redirector::{
    config::CgroupSpec,
    datapath::{self, Datapath, Version},
};
use redirector_common::{abi, names};
use testbed::{process, topology::LOAD_BALANCERS};
use tracing::{Event, Subscriber};
use tracing_subscriber::{Layer, layer::Context, prelude::*};

use crate::{
    rig::{Bed, INDEX, LIMIT, on_node, settings},
    upgrade::{newer, open, pinned, served_by},
};

/// The environment variable with the step at which the child process dies.
const CHILD: &str = "REDIRECTOR_TEST_UPGRADE_DIES_AT";
const TEST_NAME: &str = "upgrade_killed::an_upgrade_killed_at_any_step_costs_no_connect";
/// More steps than an upgrade has.
const MAX_STEPS: usize = 200;

/// Kills this process at the given step. Each change of pins or links emits a log event.
struct KillAtStep {
    at: usize,
    steps: AtomicUsize,
}

impl<S: Subscriber> Layer<S> for KillAtStep {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        if !event.metadata().target().starts_with("redirector::datapath") {
            return;
        }
        let mut fields = String::new();
        event.record(&mut |field: &tracing::field::Field, value: &dyn fmt::Debug| {
            fields += &format!("{}={value:?} ", field.name())
        });
        println!("step {fields}");
        if self.steps.fetch_add(1, Ordering::Relaxed) + 1 == self.at {
            rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL)
                .unwrap();
        }
    }
}

/// A newer version whose upgrade takes every path: maps that are shared, maps that are not, and old
/// programs that stay.
fn new() -> Version {
    newer(1, &[names::ORIGINS, names::BACKEND_STATS])
}

fn child(at: usize) {
    tracing_subscriber::registry().with(KillAtStep { at, steps: AtomicUsize::new(0) }).init();
    let mut datapath = Datapath::open_as(&settings(), &new()).unwrap();
    datapath.attach(&datapath::cgroups(&[CgroupSpec::Auto]).unwrap()).unwrap();
}

/// Runs the upgrade on the node until step `at`; returns its steps, and whether it completed.
fn upgrade(bed: &Bed, at: usize) -> (Vec<String>, bool) {
    let mut command: Command = bed.rig.node.command(std::env::current_exe().unwrap());
    command.args(["--exact", TEST_NAME, "--nocapture"]).env(CHILD, at.to_string());
    let ended = process::finish(command, LIMIT).unwrap();
    let steps = ended
        .stdout
        .lines()
        .filter_map(|line| line.split_once("step "))
        .map(|(_, step)| step.to_owned())
        .collect();
    assert!(ended.status.success() || ended.status.code().is_none(), "{}", ended.text());
    (steps, ended.status.success())
}

#[test]
fn an_upgrade_killed_at_any_step_costs_no_connect() {
    if let Ok(at) = std::env::var(CHILD) {
        return child(at.parse().unwrap());
    }
    let (mut bed, _one, _two) = served_by(&Version::own());
    let mut started = bed.counters().started;
    let mut at = 1;
    let mut last = Vec::new();
    loop {
        let (steps, completed) = upgrade(&bed, at);
        if completed {
            break;
        }
        assert!(steps.len() == at && at < MAX_STEPS, "{steps:#?}");
        last = steps;
        // The programs in place redirect, restore the peer, and count.
        assert!(bed.connects(20).flawless(), "killed after {last:#?}");
        let (_, finished) = upgrade(&bed, 0);
        assert!(finished);
        assert_eq!(pinned(&bed.rig, "."), [format!("v{}", abi::ABI + 1)], "killed after {last:#?}");
        assert!(bed.connects(20).flawless(), "killed after {last:#?}");
        let newer_datapath = open(&bed.rig, &new()).unwrap();
        let counters = newer_datapath.route_counters(INDEX).unwrap();
        assert_eq!(
            (counters.started, counters.established),
            (started + 40, started + 40),
            "killed after {last:#?}"
        );
        drop(newer_datapath);
        // Back to the old binary, which creates its maps again.
        on_node(&bed.rig, || datapath::unload(&settings().bpffs)).unwrap();
        bed.datapath = open(&bed.rig, &Version::own()).unwrap();
        bed.put(&[], &LOAD_BALANCERS);
        crate::upgrade::attach(&bed.rig, &mut bed.datapath);
        started = 0;
        at += if at < names::MAPS.len() { 4 } else { 1 };
    }
    println!("{at} steps: {last:#?}");
    assert!(at > names::MAPS.len() + 2 * names::PROGRAMS.len(), "{last:#?}");
}
