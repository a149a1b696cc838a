//! A process that changes routes, leases and history is killed, at every system call that touches a
//! file and at random instants: afterwards completed changes are present, the interrupted one
//! is present completely or not at all, and no VIP has changed. For power cuts, which lose what was
//! not synced, the order of writes, syncs and renames is checked.

use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader, Write},
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

use redirector::{
    pool::Pool,
    route::{RawRoute, Route, RouteOrigin, RouteSet},
    state::Leases,
    state::{Change, OpenedState, State as Kept},
};

/// The environment variable with the directory of the child process.
const CHILD: &str = "REDIRECTOR_TEST_KILLED_IN";
/// The environment variable with the number of changes.
const CHANGES: &str = "REDIRECTOR_TEST_CHANGES";
/// The changes of a child that is killed at each of its system calls: routes are added, changed and
/// removed.
const FEW: usize = 8;
/// Kills at a random instant, at least; more until enough of them fall within a change.
const KILLS: usize = 150;
/// The number of sources.
const SOURCES: u32 = 8;

/// Source to destination, and source to index.
type State = (BTreeMap<String, String>, BTreeMap<String, u32>);

struct Files {
    kept: Kept,
    leases: Leases,
    routes: RouteSet,
}

impl Files {
    /// Opens the state like the agent. A warning would mean damage.
    fn open(folder: &Path) -> Self {
        let pool = Pool::new("198.18.0.0/24".parse().unwrap(), None, false).unwrap();
        let OpenedState { state: kept, leases, routes, warnings } =
            Kept::open(folder, &pool).unwrap();
        assert!(warnings.is_empty(), "{warnings:?}");
        let routes = RouteSet::new("redirector.toml".into(), pool, vec![], routes);
        Self { kept, leases, routes }
    }

    fn state(routes: &RouteSet, leases: &Leases) -> State {
        let destinations = routes
            .iter()
            .map(|entry| (entry.route.source.to_string(), entry.route.destination.to_string()))
            .collect();
        let indices = leases.iter().filter(|(source, _)| routes.get(source).is_some());
        (destinations, indices.map(|(source, index)| (source.to_string(), index)).collect())
    }

    /// Makes one change like the agent, which then releases unused leases.
    fn change(&mut self, next: RouteSet) {
        self.leases.lease_all(next.iter().map(|entry| &entry.route.source)).unwrap();
        announce("doing", &Self::state(&next, &self.leases));
        let change = Change { action: "changed", ..Change::default() };
        self.kept
            .commit(&change, &self.routes.edits(&next), self.routes.stored(), &mut self.leases)
            .unwrap();
        self.routes = next;
        announce("done", &Self::state(&self.routes, &self.leases));
        let unwanted: Vec<_> = self
            .leases
            .iter()
            .map(|(source, _)| source)
            .filter(|source| self.routes.get(source).is_none())
            .cloned()
            .collect();
        self.leases.release_all(&unwanted);
    }

    /// Compacts the journal like the agent.
    fn fold(&mut self) {
        self.kept.compact(self.routes.stored(), &mut self.leases).unwrap();
    }
}

fn announce(word: &str, state: &State) {
    // In one write, since the test harness may have begun a line.
    let line = format!("\n{word} {}\n", serde_json::to_string(state).unwrap());
    let mut out = std::io::stdout().lock();
    out.write_all(line.as_bytes()).unwrap();
    out.flush().unwrap();
}

fn route(number: u32, destination: u32) -> Route {
    let raw = serde_json::json!({
        "source": format!("host{number}.internal"),
        "destination": format!("203.0.113.{}", destination % 200 + 1),
    });
    Route::try_from(serde_json::from_value::<RawRoute>(raw).unwrap()).unwrap()
}

/// Changes routes until it is killed, or a given number of times.
fn child(folder: &Path) {
    let mut files = Files::open(folder);
    let few = std::env::var(CHANGES).ok().map(|text| text.parse::<u32>().unwrap());
    for n in 0..few.unwrap_or(u32::MAX) {
        let (number, destination) = if few.is_some() {
            (n % 3, n)
        } else {
            (rand::random::<u32>() % SOURCES, rand::random::<u32>())
        };
        let wanted = route(number, destination);
        let mut next = files.routes.clone();
        if next.get(&wanted.source).is_some() && destination % 3 == 0 {
            let edit = next.plan_remove(&wanted.source).unwrap();
            next.apply(edit);
        } else {
            next.import(vec![wanted], false).unwrap();
        }
        files.change(next);
        if n % 3 == 2 {
            files.fold();
        }
        assert!(files.routes.iter().all(|entry| entry.origin == RouteOrigin::Import));
    }
}

/// The states that are valid after a child with this output that began in `last`: after its last
/// change, or after the interrupted one.
fn possible(said: &[String], last: &State) -> Vec<State> {
    let parse =
        |line: &String| serde_json::from_str::<State>(line.split_once(' ').unwrap().1).unwrap();
    let mut possible =
        vec![said.iter().rev().find(|line| line.starts_with("done ")).map_or(last.clone(), parse)];
    if let Some(doing) = said.last().filter(|line| line.starts_with("doing ")) {
        possible.push(parse(doing));
    }
    possible
}

/// Opens the state that a killed child left: one of these states, and without damage.
fn assert_found(folder: &Path, possible: &[State]) -> State {
    let found = Files::open(folder);
    let state = Files::state(&found.routes, &found.leases);
    assert!(possible.contains(&state), "found {state:?}\nexpected one of {possible:?}");
    for record in found.kept.records() {
        assert!(record.number > 0 && !record.sources().is_empty());
    }
    state
}

/// Runs a child of [`FEW`] changes under strace with these arguments, in its own directory; returns
/// its output, and whether it completed.
fn traced(arguments: &[&str], folder: &Path) -> (Vec<String>, bool) {
    let output = testbed::packages::tool("strace")
        .unwrap()
        .args(["-f", "-qq"])
        .args(arguments)
        .arg(std::env::current_exe().unwrap())
        // One thread: strace counts calls by thread.
        .args([
            "--exact",
            "killed_at_every_system_call_that_touches_a_file",
            "--nocapture",
            "--test-threads=1",
        ])
        .env(CHILD, folder)
        .env(CHANGES, FEW.to_string())
        .output()
        .unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    (
        said.lines()
            .filter(|line| line.starts_with("do") && line.ends_with(']'))
            .map(str::to_owned)
            .collect(),
        output.status.success(),
    )
}

#[test]
fn killed_at_every_system_call_that_touches_a_file() {
    if let Some(folder) = std::env::var_os(CHILD) {
        return child(Path::new(&folder));
    }
    let mut kills = 0;
    let mut unfinished = 0;
    for call in [
        "openat",
        "write",
        "pwrite64",
        "fsync",
        "fdatasync",
        "rename,renameat,renameat2",
        "unlink,unlinkat",
        "mkdir,mkdirat",
        "close",
    ] {
        for n in 1.. {
            let folder = tempfile::tempdir().unwrap();
            let (trace, inject) =
                (format!("trace={call}"), format!("inject={call}:signal=KILL:when={n}"));
            let (said, ended) =
                traced(&["-o", "/dev/null", "-e", &trace, "-e", &inject], folder.path());
            let possible = possible(&said, &State::default());
            assert_found(folder.path(), &possible);
            if ended {
                assert_eq!(said.len(), 2 * FEW, "{call}: {said:?}");
                break;
            }
            kills += 1;
            unfinished += usize::from(possible.len() == 2);
            assert!(n < 500, "{call} has no end");
        }
    }
    println!("{kills} kills, {unfinished} of them in the midst of a change");
    // A change is a write and a sync; compacting takes many more calls.
    assert!(
        kills > 10 * FEW && unfinished >= 2 * FEW,
        "{kills} kills, {unfinished} in the midst of a change"
    );
}

/// The calls of a child of [`FEW`] changes in `state` that write, sync and rename.
fn written_by_a_child(state: &Path, log: &Path) -> Vec<String> {
    let calls = "trace=write,pwrite64,fsync,fdatasync,rename,renameat,renameat2,mkdir,mkdirat";
    let (_, ended) =
        traced(&["-y", "-s", "16", "-e", calls, "-o", &log.display().to_string()], state);
    assert!(ended);
    std::fs::read_to_string(log).unwrap().lines().map(str::to_owned).collect()
}

/// Whether a line of the trace is this call for this file: strace shows the file of a descriptor.
fn is_call(line: &str, name: &str, path: &Path) -> bool {
    line.contains(&format!(" {name}(")) && line.contains(&format!("<{}>", path.display()))
}

/// A power cut loses what was not synced: so a file is synced before it is renamed, and its
/// directory after that; and a new directory is synced into its parent.
#[test]
fn files_are_synced_before_a_rename_and_directories_after() {
    let folder = tempfile::tempdir().unwrap();
    let lines = written_by_a_child(&folder.path().join("state"), &folder.path().join("trace"));
    let (mut renames, mut folders) = (0, 0);
    for (at, line) in lines.iter().enumerate() {
        let paths: Vec<&Path> = line.split('"').skip(1).step_by(2).map(Path::new).collect();
        // The next output or write relies on it.
        let before_the_next = |path: &Path| {
            let after = &lines[at + 1..];
            let synced =
                after.iter().position(|line| is_call(line, "fsync", path)).unwrap_or(after.len());
            !after[..synced].iter().any(|line| {
                line.contains(" rename") || line.contains(" pwrite64(") || line.contains("\"\\ndo")
            })
        };
        if line.contains(" rename") {
            let [from, to] = paths[..] else { panic!("{line}") };
            let before = &lines[..at];
            let written = before
                .iter()
                .rposition(|line| is_call(line, "write", from))
                .unwrap_or_else(|| panic!("never written: {line}"));
            assert!(
                before[written..].iter().any(|line| is_call(line, "fsync", from)),
                "not synced before: {line}"
            );
            assert!(before_the_next(to.parent().unwrap()), "not synced after: {line}");
            renames += 1;
        } else if line.contains(" mkdir") && line.ends_with(" = 0") {
            assert!(before_the_next(paths[0].parent().unwrap()), "not synced after: {line}");
            folders += 1;
        }
    }
    // The start, and compacting after every third change.
    assert!(renames >= 3 * (1 + FEW / 3) && folders == 2, "{lines:#?}");
}

#[test]
fn a_change_is_one_write_and_one_sync_of_the_journal() {
    let folder = tempfile::tempdir().unwrap();
    let state = folder.path().join("state");
    let lines = written_by_a_child(&state, &folder.path().join("trace"));
    let said = |what: &str| {
        lines
            .iter()
            .enumerate()
            .filter(|(_, line)| line.contains(&format!("\"\\n{what} ")))
            .map(|(at, _)| at)
            .collect::<Vec<_>>()
    };
    let (doing, done) = (said("doing"), said("done"));
    assert_eq!((doing.len(), done.len()), (FEW, FEW), "{lines:#?}");
    // The first change of a new state directory makes the files.
    for (from, to) in doing.into_iter().zip(done).skip(1) {
        let [write, sync] = &lines[from + 1..to] else { panic!("{:#?}", &lines[from..=to]) };
        let journal = state.join("journal");
        assert!(
            is_call(write, "pwrite64", &journal) && is_call(sync, "fdatasync", &journal),
            "{write}\n{sync}"
        );
    }
}

#[test]
fn killed_at_any_instant_no_route_or_vip_is_lost() {
    if let Some(folder) = std::env::var_os(CHILD) {
        return child(Path::new(&folder));
    }
    let folder = tempfile::tempdir().unwrap();
    let mut last: State = State::default();
    let (mut changes, mut between) = (0_usize, 0_usize);
    let mut kills = 0;
    while kills < KILLS || between <= KILLS / 10 {
        assert!(
            kills < 10 * KILLS,
            "{kills} kills, {changes} changes, {between} kills in the midst of one: too few to \
                mean anything"
        );
        kills += 1;
        let mut process = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "killed_at_any_instant_no_route_or_vip_is_lost", "--nocapture"])
            .env(CHILD, folder.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let output = process.stdout.take().unwrap();
        let (began, begun) = std::sync::mpsc::channel();
        let reader = std::thread::spawn(move || {
            let lines = BufReader::new(output)
                .lines()
                .map_while(Result::ok)
                .filter(|line| line.starts_with("do"));
            lines.inspect(|_| began.send(()).unwrap_or_default()).collect::<Vec<_>>()
        });
        // From its first change on; before that it starts.
        begun.recv_timeout(Duration::from_secs(30)).unwrap();
        std::thread::sleep(Duration::from_micros(rand::random::<u64>() % 60_000));
        process.kill().unwrap();
        process.wait().unwrap();
        let said = reader.join().unwrap();
        let possible = possible(&said, &last);
        changes += said.iter().filter(|line| line.starts_with("done ")).count();
        let state = assert_found(folder.path(), &possible);
        between += usize::from(possible.len() == 2);
        last = state;
    }
    assert!(changes > 0, "no change in {kills} kills");
}
