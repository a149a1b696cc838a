//! An upgrade that is killed at each of its steps: connects go on as if nothing had happened, and
//! the next start finishes what was begun.

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
    upgrade::{open, pinned, served_by, younger},
};

/// Tells the child that this test starts of itself at which step it is to die.
const CHILD: &str = "REDIRECTOR_TEST_UPGRADE_DIES_AT";
const NAME: &str =
    "upgrade_killed::killed_at_any_step_an_upgrade_costs_no_connect_and_the_next_start_finishes_it";
/// More steps than there are.
const MOST: usize = 200;

/// Kills this process at the given step. Each change of pins or links is followed by an event.
struct Death {
    at: usize,
    steps: AtomicUsize,
}

impl<S: Subscriber> Layer<S> for Death {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        if !event.metadata().target().starts_with("redirector::datapath") {
            return;
        }
        let mut words = String::new();
        event.record(&mut |field: &tracing::field::Field, value: &dyn fmt::Debug| {
            words += &format!("{}={value:?} ", field.name())
        });
        println!("step {words}");
        if self.steps.fetch_add(1, Ordering::Relaxed) + 1 == self.at {
            rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL)
                .unwrap();
        }
    }
}

/// What the younger binary has that makes an upgrade go all its ways: tables that are shared,
/// others that are not, and followers that stay.
fn new() -> Version {
    younger(1, &[names::ORIGINS, names::BACKEND_STATS])
}

fn child(at: usize) {
    tracing_subscriber::registry().with(Death { at, steps: AtomicUsize::new(0) }).init();
    let mut datapath = Datapath::open_as(&settings(), &new()).unwrap();
    datapath.attach(&datapath::cgroups(&[CgroupSpec::Auto]).unwrap()).unwrap();
}

/// Starts the upgrade on the node, to die at step `at`; the steps that it took, and whether it
/// lived.
fn upgrade(bed: &Bed, at: usize) -> (Vec<String>, bool) {
    let mut command: Command = bed.rig.node.command(std::env::current_exe().unwrap());
    command.args(["--exact", NAME, "--nocapture"]).env(CHILD, at.to_string());
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
fn killed_at_any_step_an_upgrade_costs_no_connect_and_the_next_start_finishes_it() {
    if let Ok(at) = std::env::var(CHILD) {
        return child(at.parse().unwrap());
    }
    let (mut bed, _one, _two) = served_by(&Version::own());
    let mut started = bed.counters().started;
    let mut at = 1;
    let mut last = Vec::new();
    loop {
        let (steps, lived) = upgrade(&bed, at);
        if lived {
            break;
        }
        assert!(steps.len() == at && at < MOST, "{steps:#?}");
        last = steps;
        // Whatever was in place by then redirects, tells the peer, and counts.
        assert!(bed.connects(20).flawless(), "killed after {last:#?}");
        let (_, finished) = upgrade(&bed, 0);
        assert!(finished);
        assert_eq!(pinned(&bed.rig, "."), [format!("v{}", abi::ABI + 1)], "killed after {last:#?}");
        assert!(bed.connects(20).flawless(), "killed after {last:#?}");
        let young = open(&bed.rig, &new()).unwrap();
        let counters = young.route_counters(INDEX).unwrap();
        assert_eq!(
            (counters.started, counters.established),
            (started + 40, started + 40),
            "killed after {last:#?}"
        );
        drop(young);
        // Back to the old binary, which makes its tables anew.
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
