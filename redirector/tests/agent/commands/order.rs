//! The order in which names and routes are written: no client gets a virtual address that the
//! kernel can't translate. The agent's log has each write.

use testbed::process;

use crate::rig::{Job, LIMIT};

const CONFIG: &str = "\
[[routes]]
source = \"artifactory.internal.company.net\"
destination = \"203.0.113.7\"
";
const SOURCE: &str = "git.internal.company.net";

/// A write that concerns [`SOURCE`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Write {
    /// Its name is answered, with a virtual address or, while that is pending, by SERVFAIL.
    Name { is_pending: bool },
    /// Its name is left alone.
    NoName,
    /// Its route.
    Route,
    /// No route.
    NoRoute,
}

/// The writes in this part of the log; `index` is that of the source's virtual address.
fn writes(log: &str, index: u64) -> Vec<Write> {
    let (name, route) =
        (format!("\"{SOURCE}\""), [format!("index: {index},"), format!("index: {index} ")]);
    let is_ours = |line: &str| route.iter().any(|route| line.contains(route));
    let write = |line: &str| match line {
        _ if line.contains("wrote names") && line.contains(&name) => {
            Some(if line.contains("Remove {") {
                Write::NoName
            } else {
                Write::Name { is_pending: line.contains("pending: true") }
            })
        }
        _ if line.contains("wrote routes") && is_ours(line) => {
            Some(if line.contains("Withdraw {") { Write::NoRoute } else { Write::Route })
        }
        _ => None,
    };
    log.lines().filter_map(write).collect()
}

struct Log {
    job: Job,
    read: usize,
}

impl Log {
    /// The writes since the last call, once the last one expected is among them.
    #[track_caller]
    fn writes(&mut self, index: u64, last: Write) -> Vec<Write> {
        let mut seen = Vec::new();
        let is_over = || {
            seen = writes(&self.job.agent.log()[self.read..], index);
            Ok(seen.contains(&last))
        };
        if let Err(error) = process::until("the writes", LIMIT, is_over) {
            panic!("{error}: {seen:?}\n{}", self.job.agent.log_tail());
        }
        self.read = self.job.agent.log().len();
        seen
    }

    fn index(&self) -> u64 {
        let shown = self.job.json(&["route", "show", SOURCE]);
        shown["route"]["vip"]["index"].as_u64().unwrap_or_else(|| panic!("{shown}"))
    }
}

/// Routes before names, and names away before routes.
#[track_caller]
fn assert_in_order(added: &[Write], removed: &[Write]) {
    let at = |all: &[Write], write| all.iter().position(|found| *found == write);
    let live = Write::Name { is_pending: false };
    assert!(at(added, Write::Route) < at(added, live), "{added:?}");
    assert!(at(removed, Write::NoName) < at(removed, Write::NoRoute), "{removed:?}");
    assert!(!removed.contains(&live) && !added.contains(&Write::NoRoute), "{added:?} {removed:?}");
}

#[test]
fn names_are_written_after_routes_and_removed_before() {
    let mut log = Log { job: Job::with_debug_log(CONFIG), read: 0 };
    let live = Write::Name { is_pending: false };
    // One route, by a command.
    let run = |log: &Log, arguments: &[&str]| {
        let done = log.job.cli(arguments);
        assert!(done.status.success(), "{}", done.text());
    };
    run(&log, &["route", "add", SOURCE, "203.0.113.8"]);
    let index = log.index();
    let added = log.writes(index, live);
    run(&log, &["route", "remove", SOURCE]);
    assert_in_order(&added, &log.writes(index, Write::NoRoute));
    // All routes, by a new configuration.
    let with =
        format!("{CONFIG}[[routes]]\nsource = \"{SOURCE}\"\ndestination = \"203.0.113.8\"\n");
    log.job.agent.write_config(&with).unwrap();
    log.job.agent.sighup().unwrap();
    process::until("the route", LIMIT, || {
        Ok(log.job.cli(&["route", "show", SOURCE]).status.success())
    })
    .unwrap();
    let index = log.index();
    let added = log.writes(index, live);
    log.job.agent.write_config(CONFIG).unwrap();
    log.job.agent.sighup().unwrap();
    assert_in_order(&added, &log.writes(index, Write::NoRoute));
}
