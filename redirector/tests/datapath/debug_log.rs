//! The programs that log each decision: what they log, switching between them and the plain ones,
//! and what is missing where they can't run.

use std::{
    collections::HashSet,
    fmt,
    sync::{Arc, Mutex},
    time::Duration,
};

use redirector::{
    config::CgroupSpec,
    datapath::{self, Datapath, DecisionLog, Outcome, Settings},
};
use redirector_common::names;
use rustix::thread::CapabilitySet;
use testbed::{Rig, topology::LOAD_BALANCERS};
use tracing::{Event, Subscriber, field::Field};
use tracing_subscriber::{Layer, layer::Context, prelude::*};

use crate::rig::{Bed, INDEX, PORT, VIP, attach, attached, on_node, open, settings};

fn logging() -> Settings {
    Settings { debug_log: true, ..settings() }
}

/// Attaches the logging programs on the rig's node.
fn attached_logging(rig: &Rig) -> (Datapath, DecisionLog) {
    let mut datapath = on_node(rig, || Datapath::open(&logging())).unwrap();
    attach(rig, &mut datapath);
    let log = datapath.take_decision_log().expect("the logging programs");
    (datapath, log)
}

/// The messages of this process with the target of the decision log.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<String>>>);

impl Lines {
    fn take(&self) -> Vec<String> {
        std::mem::take(&mut self.0.lock().unwrap())
    }
}

impl<S: Subscriber> Layer<S> for Lines {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        if event.metadata().target() == "redirector::datapath::log" {
            event.record(&mut |_: &Field, value: &dyn fmt::Debug| {
                self.0.lock().unwrap().push(format!("{value:?}"));
            });
        }
    }
}

/// The lines of `log`.
fn lines(log: &mut DecisionLog) -> Vec<String> {
    let lines = Lines::default();
    let subscriber = tracing_subscriber::registry().with(lines.clone());
    tracing::subscriber::with_default(subscriber, || log.forward());
    lines.take()
}

#[test]
fn a_connect_logs_its_route_backend_and_verdict() {
    let (mut bed, _one, _two) = Bed::with_two_servers();
    bed.put(&[(80, PORT)], &LOAD_BALANCERS[..1]);
    let (datapath, mut log) = attached_logging(&bed.rig);
    bed.datapath = datapath;
    assert_eq!(bed.greeting(VIP, 80), "one");
    assert_eq!(bed.greeting(VIP, 81), "ECONNREFUSED");
    let lines = lines(&mut log);
    let has = |expected: &str| lines.iter().any(|line| line == expected);
    let backend = format!("[::ffff:{}]:{PORT}", LOAD_BALANCERS[0]);
    for verdict in ["redirected", "established"] {
        let expected = format!("route={INDEX} vip={VIP}:80 backend={backend} verdict={verdict}");
        assert!(has(&expected), "{expected} in {lines:#?}");
    }
    let denied =
        format!("route={INDEX} vip={VIP}:81 backend=none verdict=denied reason=port_not_listed");
    assert!(has(&denied), "{lines:#?}");
    let counters = bed.counters();
    assert_eq!((counters.established, counters.denied), (1, 1), "{counters:?}");
}

#[test]
fn switching_the_log_on_and_off_loses_no_connect() {
    let (mut bed, _one, _two) = Bed::with_two_servers();
    let load = bed.load(1000, 4.0, &["one", "two"]);
    let mut verdicts = HashSet::new();
    for _ in 0..3 {
        let (datapath, mut log) = attached_logging(&bed.rig);
        bed.datapath = datapath;
        std::thread::sleep(Duration::from_millis(100));
        verdicts.extend(
            lines(&mut log)
                .iter()
                .filter_map(|line| Some(line.rsplit_once("verdict=")?.1.to_owned())),
        );
        // The log is closed, as when the agent ends: the programs keep redirecting.
        drop(log);
        std::thread::sleep(Duration::from_millis(100));
        bed.datapath = attached(&bed.rig);
        assert!(bed.datapath.take_decision_log().is_none(), "the plain programs");
    }
    let report = load.report().unwrap();
    assert!(report.flawless(), "{report:?}");
    assert!(verdicts.contains("redirected") && verdicts.contains("established"), "{verdicts:?}");
    let counters = bed.counters();
    assert_eq!((counters.started, counters.established), (4000, 4000), "{counters:?}");
}

#[test]
fn unload_removes_the_logging_programs_and_their_maps() {
    let (bed, _one, _two) = Bed::with_two_servers();
    let (datapath, log) = attached_logging(&bed.rig);
    drop((bed.datapath, datapath, log));
    assert_eq!(crate::rig::greeting(bed.executor.sandbox(), VIP, PORT).len(), 3);
    let removed = on_node(&bed.rig, || datapath::unload(&settings().bpffs)).unwrap();
    assert_eq!((removed.links, removed.maps), (names::PROGRAMS.len(), names::MAPS.len()));
    assert!(!on_node(&bed.rig, || settings().bpffs.exists()));
    drop(open(&bed.rig).unwrap());
}

/// The row of `redirector check` about the debug log, for a thread with these capabilities.
fn check_row(
    rig: &Rig,
    settings: &Settings,
    capabilities: CapabilitySet,
) -> Option<datapath::Check> {
    let checks = on_node(rig, || {
        let mut sets = rustix::thread::capabilities(None).unwrap();
        sets.effective = sets.permitted & capabilities;
        rustix::thread::set_capabilities(None, sets).unwrap();
        datapath::preflight(settings, &[CgroupSpec::Auto])
    });
    checks.into_iter().find(|check| check.name == "debug_log")
}

#[test]
fn check_names_what_the_logging_programs_lack() {
    let bed = Bed::new();
    assert_eq!(check_row(&bed.rig, &settings(), CapabilitySet::all()), None, "not requested");
    let all = check_row(&bed.rig, &logging(), CapabilitySet::all()).unwrap();
    assert_eq!(all.outcome, Outcome::Ok, "{all:?}");
    let none = check_row(&bed.rig, &logging(), CapabilitySet::empty()).unwrap();
    assert_eq!(none.outcome, Outcome::Failed, "{none:?}");
    assert!(none.detail.contains("CAP_BPF") && none.remedy.is_some(), "{none:?}");
    // From 6.17 on the verifier accepts them without CAP_PERFMON.
    let of_the_agent = CapabilitySet::BPF | CapabilitySet::NET_ADMIN;
    let few = check_row(&bed.rig, &logging(), of_the_agent).unwrap();
    assert!(few.outcome == Outcome::Ok || few.detail.contains("CAP_PERFMON"), "{few:?}");
}
