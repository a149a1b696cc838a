//! What is on disk when something ends at the wrong instant, and what comes of files that somebody
//! has damaged.

use std::{fs, path::PathBuf};

use proptest::prelude::*;

use super::*;
use crate::{
    route::{RawRoute, Route, RouteOrigin, RouteSet, SourceName},
    state::{Author, journal, leased},
};

fn route(source: &str, destination: &str) -> Route {
    let raw = serde_json::json!({"source": source, "destination": destination});
    serde_json::from_value::<RawRoute>(raw).expect("a route").try_into().expect("a good one")
}

fn add(routes: &mut RouteSet, route: Route) {
    let edit = routes.plan_add(route, RouteOrigin::CommandLine).expect("a source without a route");
    routes.apply(edit);
}

fn remove(routes: &mut RouteSet, source: &str) {
    let edit = routes.plan_remove(&source.parse().expect("a source")).expect("a stored route");
    routes.apply(edit);
}

/// The agent's part: routes, and their changes.
struct Rig {
    directory: tempfile::TempDir,
    routes: RouteSet,
    leases: Leases,
    state: State,
    warnings: Vec<String>,
}

impl Rig {
    fn new() -> Self {
        Self::open(tempfile::tempdir().expect("a directory"))
    }

    fn open(directory: tempfile::TempDir) -> Self {
        let pool = Pool::new("198.18.0.0/16".parse().expect("a net"), None, false).expect("a pool");
        let OpenedState { mut state, mut leases, routes, warnings } =
            State::open(&directory.path().join("state"), &pool).expect("opened");
        let routes = RouteSet::new("f.toml".into(), pool, vec![route("file.a", "lb.file")], routes);
        // As an agent that starts.
        state.commit(&Change::default(), &[], routes.stored(), &mut leases).expect("saved");
        Self { directory, routes, leases, state, warnings }
    }

    /// As another agent finds it.
    fn reopened(self) -> Self {
        Self::open(self.directory)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join("state").join(name)
    }

    fn commit(&mut self, action: &str, undoes: Option<u64>, next: RouteSet) {
        self.leases.lease_all(next.iter().map(|entry| &entry.route.source)).expect("leased");
        let change = Change { by: Author::default(), action, undoes };
        self.state
            .commit(&change, &self.routes.edits(&next), self.routes.stored(), &mut self.leases)
            .expect("committed");
        self.routes = next;
        let unwanted = self
            .leases
            .iter()
            .map(|(source, _)| source)
            .filter(|source| self.routes.get(source).is_none());
        let unwanted: Vec<_> = unwanted.cloned().collect();
        self.leases.release_all(&unwanted);
    }

    fn change(&mut self, action: &str, change: impl FnOnce(&mut RouteSet)) {
        let mut next = self.routes.clone();
        change(&mut next);
        self.commit(action, None, next);
    }

    fn add(&mut self, source: &str) {
        self.change("added", |routes| add(routes, route(source, "lb")));
    }

    fn rollback(&mut self) -> Result<u64, UndoError> {
        let record = self.state.last()?;
        let mut next = self.routes.clone();
        record.undo(&mut next)?;
        self.commit("rolled_back", Some(record.number), next);
        Ok(record.number)
    }

    /// Routes, and the leases that these want.
    fn held(&self) -> (StoredRoutes, Vec<(SourceName, u32)>) {
        let wanted = self.leases.iter().filter(|(source, _)| self.routes.get(source).is_some());
        (
            self.routes.stored().clone(),
            wanted.map(|(source, index)| (source.clone(), index)).collect(),
        )
    }

    fn sources(&self) -> Vec<String> {
        self.routes.stored().keys().map(ToString::to_string).collect()
    }
}

#[test]
fn each_rollback_goes_one_change_further_back() {
    let mut rig = Rig::new();
    let mut states = vec![rig.routes.stored().clone()];
    rig.change("added", |routes| add(routes, route("a.b", "lb1")));
    states.push(rig.routes.stored().clone());
    rig.change("imported", |routes| {
        drop(
            routes
                .import(vec![route("a.b", "lb2"), route("file.a", "lb3")], false)
                .expect("imported"),
        )
    });
    states.push(rig.routes.stored().clone());
    rig.change("removed", |routes| remove(routes, "a.b"));
    assert_eq!(rig.rollback().expect("undone"), 3);
    assert_eq!(*rig.routes.stored(), states[2]);
    // Records of the journal and of folded ones are one history.
    let mut rig = rig.reopened();
    assert_eq!(rig.rollback().expect("undone"), 2);
    assert_eq!(*rig.routes.stored(), states[1]);
    // A new change is the last one then; the older ones stay reachable behind it.
    rig.change("added", |routes| add(routes, route("c.d", "lb4")));
    assert_eq!(rig.rollback().expect("undone"), 6);
    assert_eq!(rig.rollback().expect("undone"), 1);
    assert_eq!(*rig.routes.stored(), states[0]);
    assert!(matches!(rig.rollback(), Err(UndoError::Nothing)));
    assert_eq!(rig.reopened().state.records().len(), 8);
}

#[test]
fn the_last_hundred_are_kept_and_damage_hides_one_record() {
    let mut rig = Rig::new();
    for n in 0..KEPT + 5 {
        rig.add(&format!("h{n}.b"));
        if n % 30 == 0 {
            rig.state.compact(rig.routes.stored(), &mut rig.leases).expect("folded");
        }
    }
    let numbers =
        |rig: &Rig| rig.state.records().iter().map(|record| record.number).collect::<Vec<_>>();
    assert_eq!(numbers(&rig), (6..=105).rev().collect::<Vec<_>>());
    let log = rig.path("history/0000000061.log");
    let damaged = fs::read_to_string(&log).expect("read").replace("\"h50.b\"", "\"h51.b\"");
    fs::write(&log, damaged).expect("written");
    let rig = rig.reopened();
    assert_eq!(numbers(&rig), (5..=105).filter(|number| *number != 51).rev().collect::<Vec<_>>());
    assert!(!rig.path("history/0000000001.log").exists(), "it has none of the last hundred");
}

#[test]
fn a_rollback_is_refused_after_a_conflicting_change() {
    let mut rig = Rig::new();
    rig.add("a.b");
    remove(&mut rig.routes, "a.b");
    assert!(matches!(rig.rollback(), Err(UndoError::Differs { number: 1, .. })));
}

#[test]
fn state_of_an_earlier_version_is_read() {
    let directory = tempfile::tempdir().expect("a directory");
    let at = |name: &str| directory.path().join("state").join(name);
    fs::create_dir_all(at("history")).expect("made");
    let raw = r#"{"hand": "command_line", "route": {"source": "a.b", "destination": "lb"}}"#;
    fs::write(at("routes.json"), format!(r#"{{"version": 1, "routes": [{raw}]}}"#))
        .expect("written");
    let leases = r#"{"version": 1, "pool": {"ipv4": "198.18.0.0/16", "ipv6": null},
        "leases": {"a.b": 77}, "freed": []}"#;
    fs::write(at("leases.json"), leases).expect("written");
    let record = format!(
        r#"{{"version": 1, "number": 7, "at": "2026-11-24T10:00:00Z",
            "by": {{"uid": 0, "gid": 0, "pid": null}}, "did": "added",
            "changes": [{{"source": "a.b", "before": null, "after": {raw}}}]}}"#
    );
    fs::write(at("history/0000000007.json"), record).expect("written");
    let mut rig = Rig::open(directory);
    assert_eq!(
        (rig.sources(), rig.leases.get(&"a.b".parse().expect("a source"))),
        (vec!["a.b".to_owned()], Some(77))
    );
    assert!(rig.warnings.is_empty(), "{:?}", rig.warnings);
    rig.add("c.d");
    let mut rig = rig.reopened();
    assert_eq!(rig.state.records().iter().map(|record| record.number).collect::<Vec<_>>(), [8, 7]);
    assert_eq!(rig.rollback().expect("undone"), 8);
    assert_eq!(rig.rollback().expect("undone"), 7);
    assert!(rig.sources().is_empty());
}

#[test]
fn a_damaged_line_costs_no_other_change() {
    // In the midst, and at the end.
    for damaged in ["b.b", "c.b"] {
        let mut rig = Rig::new();
        for source in ["a.b", "b.b", "c.b"] {
            rig.add(source);
        }
        let path = rig.path("journal");
        let text =
            fs::read_to_string(&path).expect("read").replace(&format!("\"{damaged}\""), "\"x.b\"");
        fs::write(&path, &text).expect("written");
        let rig = rig.reopened();
        let expected: Vec<_> =
            ["a.b", "b.b", "c.b"].into_iter().filter(|source| *source != damaged).collect();
        assert_eq!(rig.sources(), expected);
        let [warning] = &rig.warnings[..] else { panic!("{:?}", rig.warnings) };
        assert!(
            warning.contains("checksum mismatch") && warning.contains("2 of its changes were kept"),
            "{warning}"
        );
        assert_eq!(fs::read_to_string(rig.path("journal.damaged-1")).expect("kept"), text);
        assert!(rig.reopened().warnings.is_empty(), "it is reported once");
    }
}

#[test]
fn a_truncated_line_is_neither_damage_nor_a_change() {
    let mut rig = Rig::new();
    for source in ["a.b", "b.b"] {
        rig.add(source);
    }
    let rig = rig;
    let whole = fs::read(rig.path("journal")).expect("read");
    let end = whole.iter().position(|byte| *byte == 0).expect("room");
    let last = whole[..end - 1].iter().rposition(|byte| *byte == b'\n').expect("two lines") + 1;
    let torn = |range: std::ops::Range<usize>| {
        let mut bytes = whole.clone();
        bytes[range].fill(0);
        fs::write(rig.path("journal"), bytes).expect("written");
    };
    // From some byte on nothing was written; or up to it, as a disk may that writes its sectors as
    // it likes.
    for range in (last..end).map(|cut| cut..end).chain((last + 1..end).map(|cut| last..cut)) {
        torn(range.clone());
        let found = journal::read(&rig.path("journal")).expect("read");
        assert_eq!((found.entries.len(), found.damage), (1, None), "{range:?}");
    }
    torn(end - 30..end);
    let rig = rig.reopened();
    assert_eq!((rig.sources(), &rig.warnings), (vec!["a.b".to_owned()], &vec![]));
}

#[test]
fn a_journal_of_a_newer_version_is_left_alone() {
    let rig = Rig::new();
    let text = r#"{"version":3,"shape":"unknown"}"#;
    let line = format!("{:08x} {text}\n", crc32fast::hash(text.as_bytes()));
    fs::write(rig.path("journal"), &line).expect("written");
    let pool = Pool::default();
    assert!(matches!(
        State::open(&rig.directory.path().join("state"), &pool),
        Err(StateError::Journal(JournalError::Newer { found: 3, .. }))
    ));
    assert_eq!(fs::read_to_string(rig.path("journal")).expect("read"), line);
}

#[test]
fn a_failed_write_changes_nothing_and_the_next_one_works() {
    let mut rig = Rig::new();
    rig.add("a.b");
    rig.state.journal.make_unwritable();
    let mut next = rig.routes.clone();
    add(&mut next, route("c.d", "lb"));
    rig.leases.lease_all(next.iter().map(|entry| &entry.route.source)).expect("leased");
    let change = Change { action: "added", ..Change::default() };
    rig.state
        .commit(&change, &rig.routes.edits(&next), rig.routes.stored(), &mut rig.leases)
        .expect_err("the file can't be written");
    assert!(!rig.leases.pending().is_empty(), "the lease is still to be kept");
    rig.add("e.f");
    let rig = rig.reopened();
    assert_eq!(rig.sources(), ["a.b", "e.f"]);
    assert_eq!(rig.state.records().iter().map(|record| record.number).collect::<Vec<_>>(), [2, 1]);
}

#[test]
fn offline_reading_gives_what_the_agent_reads() {
    let mut rig = Rig::new();
    for source in ["a.b", "b.b", "c.b"] {
        rig.add(source);
    }
    rig.state.compact(rig.routes.stored(), &mut rig.leases).expect("folded");
    rig.change("removed", |routes| remove(routes, "a.b"));
    rig.add("d.b");
    let found = leased(&rig.directory.path().join("state"));
    let expected = rig.leases.iter().map(|(source, index)| (index, source.clone())).collect();
    assert_eq!(found, expected);
}

/// What happens in [`any_instant`].
#[derive(Clone, Debug)]
enum Step {
    /// A route gets this destination, or goes.
    Change(u8, Option<u8>),
    Compact,
    Reopen,
}

fn step() -> impl Strategy<Value = Step> {
    let change = (0u8..6, proptest::option::weighted(0.7, 0u8..4))
        .prop_map(|(source, destination)| Step::Change(source, destination));
    prop_oneof![8 => change, 1 => Just(Step::Compact), 1 => Just(Step::Reopen)]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    /// A fold that ends between any two of its files, and one whose journal comes back after it,
    /// leave what there was.
    #[test]
    fn any_instant(steps in prop::collection::vec(step(), 1..40)) {
        let mut rig = Rig::new();
        for step in steps {
            match step {
                Step::Change(source, destination) => rig.change("changed", |routes| {
                    let source = format!("h{source}.b");
                    match destination {
                        Some(to) => {
                            let imported = vec![route(&source, &format!("lb{to}"))];
                            drop(routes.import(imported, false).expect("imported"))
                        }
                        None if routes.stored().contains_key(&source.parse().expect("one")) => {
                            remove(routes, &source)
                        }
                        None => {}
                    }
                }),
                Step::Compact => {
                    rig.state.compact(rig.routes.stored(), &mut rig.leases).expect("compacted")
                }
                Step::Reopen => {
                    let (held, records) = (rig.held(), rig.state.records());
                    let names = ["routes.json", "leases.json", "journal"];
                    let before: Vec<_> =
                        names.iter().map(|name| fs::read(rig.path(name)).ok()).collect();
                    // Opening folds. Then some files are put back as if that had not come so far.
                    for until in 0..names.len() {
                        rig = rig.reopened();
                        prop_assert_eq!(&rig.warnings, &Vec::<String>::new());
                        prop_assert_eq!((&rig.held(), &rig.state.records()), (&held, &records));
                        let files = names.iter().zip(&before).skip(until);
                        let present =
                            files.filter_map(|(name, bytes)| Some((name, bytes.as_ref()?)));
                        for (name, bytes) in present {
                            fs::write(rig.path(name), bytes).expect("written");
                        }
                    }
                    rig = rig.reopened();
                    prop_assert_eq!((&rig.held(), &rig.state.records()), (&held, &records));
                }
            }
        }
    }

    /// A journal of any bytes is read, quarantined or refused; never a panic, never lost.
    #[test]
    fn any_journal_is_read_without_panic(
        bytes in prop::collection::vec(
            prop_oneof![Just(0u8), Just(b'\n'), any::<u8>()],
            0..200,
        ),
    ) {
        let rig = Rig::new();
        fs::write(rig.path("journal"), &bytes).expect("written");
        let rig = rig.reopened();
        if !rig.warnings.is_empty() {
            prop_assert_eq!(fs::read(rig.path("journal.damaged-1")).expect("kept"), bytes);
        }
    }
}
