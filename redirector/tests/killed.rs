//! A process that changes routes, leases and history is killed, at every system call that touches a file and at random instants: what it had
//! finished is there afterwards, what it was doing is there whole or not at all, and no virtual address has changed. For the power, which takes
//! what was not synced with it, the order of writes, syncs and renames is looked at.

use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader, Write},
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

use redirector::{
    route::{Author, Hand, History, RawRoute, Route, RouteSet, Store},
    vip::{Leases, Pool},
};

/// Names the folder to the child that this test starts of itself.
const CHILD: &str = "REDIRECTOR_TEST_KILLED_IN";
/// Tells the child how many changes to make.
const CHANGES: &str = "REDIRECTOR_TEST_CHANGES";
/// Changes of a child that is killed at each of its system calls: routes come, change and go.
const FEW: usize = 8;
const KILLS: usize = 150;
/// Sources that come and go.
const SOURCES: u32 = 8;

/// Source to destination, and source to index.
type State = (BTreeMap<String, String>, BTreeMap<String, u32>);

struct Files {
    store: Store,
    leases: Leases,
    history: History,
    routes: RouteSet,
}

impl Files {
    /// As the agent does it. A warning would be damage.
    fn open(folder: &Path) -> Self {
        let pool = Pool::new("198.18.0.0/24".parse().unwrap(), None, false).unwrap();
        let opened = Store::open(folder.join("routes.json")).unwrap();
        assert_eq!(opened.warning, None);
        let leases = Leases::open(folder.join("leases.json"), &pool).unwrap();
        assert!(leases.warnings().is_empty(), "{:?}", leases.warnings());
        let history = History::open(folder.join("history"), &opened.routes).unwrap();
        let routes = RouteSet::new("redirector.toml".into(), pool, vec![], opened.routes);
        Self { store: opened.store, leases, history, routes }
    }

    fn state(routes: &RouteSet, leases: &Leases) -> State {
        let destinations = routes.iter().map(|entry| (entry.route.source.to_string(), entry.route.destination.to_string())).collect();
        let indices = leases.iter().filter(|(source, _)| routes.get(source).is_some());
        (destinations, indices.map(|(source, index)| (source.to_string(), index)).collect())
    }

    /// One change in the agent's order: leases, history, routes, then what is not wanted any more.
    fn change(&mut self, next: RouteSet) {
        self.leases.lease_all(next.iter().map(|entry| &entry.route.source)).unwrap();
        announce("doing", &Self::state(&next, &self.leases));
        self.history.record(Author::default(), "changed", None, self.routes.stored(), next.stored()).unwrap();
        self.store.save(next.stored()).unwrap();
        self.routes = next;
        announce("done", &Self::state(&self.routes, &self.leases));
        let unwanted: Vec<_> =
            self.leases.iter().map(|(source, _)| source).filter(|source| self.routes.get(source).is_none()).cloned().collect();
        self.leases.release_all(&unwanted).unwrap();
    }
}

fn announce(word: &str, state: &State) {
    let mut out = std::io::stdout().lock();
    writeln!(out, "\n{word} {}", serde_json::to_string(state).unwrap()).unwrap();
    out.flush().unwrap();
}

fn route(number: u32, destination: u32) -> Route {
    let raw =
        serde_json::json!({"source": format!("host{number}.internal"), "destination": format!("203.0.113.{}", destination % 200 + 1)});
    Route::try_from(serde_json::from_value::<RawRoute>(raw).unwrap()).unwrap()
}

/// Changes routes until it is killed; the same few changes when it is told how many.
fn child(folder: &Path) {
    let mut files = Files::open(folder);
    let few = std::env::var(CHANGES).ok().map(|text| text.parse::<u32>().unwrap());
    for n in 0..few.unwrap_or(u32::MAX) {
        let (number, destination) = if few.is_some() { (n % 3, n) } else { (rand::random::<u32>() % SOURCES, rand::random::<u32>()) };
        let wanted = route(number, destination);
        let mut next = files.routes.clone();
        if next.get(&wanted.source).is_some() && destination % 3 == 0 {
            next.remove(&wanted.source).unwrap();
        } else {
            next.import(vec![wanted], false).unwrap();
        }
        files.change(next);
        assert!(files.routes.iter().all(|entry| entry.hand == Hand::Import));
    }
}

/// The states that may be found after a child that said this, begun in `last`: that after its last change, and that of the one under way.
fn possible(said: &[String], last: &State) -> Vec<State> {
    let told = |line: &String| serde_json::from_str::<State>(line.split_once(' ').unwrap().1).unwrap();
    let mut possible = vec![said.iter().rev().find(|line| line.starts_with("done ")).map_or(last.clone(), told)];
    if let Some(doing) = said.last().filter(|line| line.starts_with("doing ")) {
        possible.push(told(doing));
    }
    possible
}

/// Opens what a killed child left, which must be one of these states and without damage.
fn assert_found(folder: &Path, possible: &[State]) -> State {
    let found = Files::open(folder);
    let state = Files::state(&found.routes, &found.leases);
    assert!(possible.contains(&state), "found {state:?}\nexpected one of {possible:?}");
    for record in found.history.records() {
        assert!(record.number > 0 && !record.sources().is_empty());
    }
    state
}

/// A child of [`FEW`] changes under strace with these arguments, in a folder of its own; what it said, and whether it ended by itself.
fn traced(arguments: &[&str], folder: &Path) -> (Vec<String>, bool) {
    let output = xtask::testbed::packages::tool("strace")
        .unwrap()
        .args(["-f", "-qq"])
        .args(arguments)
        .arg(std::env::current_exe().unwrap())
        // One thread: strace counts the calls of each.
        .args(["--exact", "killed_at_every_system_call_that_touches_a_file", "--nocapture", "--test-threads=1"])
        .env(CHILD, folder)
        .env(CHANGES, FEW.to_string())
        .output()
        .unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    (said.lines().filter(|line| line.starts_with("do") && line.ends_with(']')).map(str::to_owned).collect(), output.status.success())
}

#[test]
fn killed_at_every_system_call_that_touches_a_file() {
    if let Some(folder) = std::env::var_os(CHILD) {
        return child(Path::new(&folder));
    }
    let mut kills = 0;
    let mut unfinished = 0;
    for call in ["openat", "write", "fsync", "rename,renameat,renameat2", "unlink,unlinkat", "mkdir,mkdirat", "close"] {
        for n in 1.. {
            let folder = tempfile::tempdir().unwrap();
            let (trace, inject) = (format!("trace={call}"), format!("inject={call}:signal=KILL:when={n}"));
            let (said, ended) = traced(&["-o", "/dev/null", "-e", &trace, "-e", &inject], folder.path());
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
    assert!(kills > 20 * FEW && unfinished > 10 * FEW, "{kills} kills, {unfinished} in the midst of a change");
}

/// What a power cut takes is what was not synced: so a file is synced before it is renamed into its place, and its folder before the change is done.
#[test]
fn files_are_synced_before_they_take_their_place_and_folders_before_a_change_is_done() {
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("trace");
    let state = folder.path().join("state");
    let (_, ended) =
        traced(&["-y", "-s", "16", "-e", "trace=write,fsync,rename,renameat,renameat2", "-o", &log.display().to_string()], &state);
    assert!(ended);
    let text = std::fs::read_to_string(&log).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    // Behind a descriptor strace names its file.
    let call = |line: &str, name: &str, path: &str| line.contains(&format!(" {name}(")) && line.contains(&format!("<{path}>"));
    let mut renames = 0;
    for (at, line) in lines.iter().enumerate().filter(|(_, line)| line.contains(" rename")) {
        let paths: Vec<&str> = line.split('"').skip(1).step_by(2).collect();
        let [from, to] = paths[..] else { panic!("{line}") };
        let before = &lines[..at];
        let written = before.iter().rposition(|line| call(line, "write", from)).unwrap_or_else(|| panic!("never written: {line}"));
        assert!(before[written..].iter().any(|line| call(line, "fsync", from)), "not synced before: {line}");
        let into = Path::new(to).parent().unwrap().display().to_string();
        let done = lines[at..].iter().position(|line| line.contains("\"\\ndone ")).map_or(lines.len(), |length| at + length);
        assert!(lines[at..done].iter().any(|line| call(line, "fsync", &into)), "{into} is not synced after: {line}");
        renames += 1;
    }
    assert!(renames >= 2 * FEW, "{text}");
}

#[test]
fn killed_at_any_instant_no_route_is_lost_and_no_virtual_address_changes() {
    if let Some(folder) = std::env::var_os(CHILD) {
        return child(Path::new(&folder));
    }
    let folder = tempfile::tempdir().unwrap();
    let mut last: State = State::default();
    let (mut changes, mut between) = (0_usize, 0_usize);
    for _ in 0..KILLS {
        let mut process = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "killed_at_any_instant_no_route_is_lost_and_no_virtual_address_changes", "--nocapture"])
            .env(CHILD, folder.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let output = process.stdout.take().unwrap();
        let (began, begun) = std::sync::mpsc::channel();
        let reader = std::thread::spawn(move || {
            let lines = BufReader::new(output).lines().map_while(Result::ok).filter(|line| line.starts_with("do"));
            lines.inspect(|_| began.send(()).unwrap_or_default()).collect::<Vec<_>>()
        });
        // From its first change on: what comes before is the start.
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
    assert!(changes > 0 && between > KILLS / 10, "{changes} changes, {between} kills in the midst of one: too few to mean anything");
}
