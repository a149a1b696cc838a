//! A process that changes routes, leases and history is killed at random instants: what it had finished is there afterwards, what it was doing is
//! there whole or not at all, and no virtual address has changed.

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

/// Changes routes until it is killed.
fn child(folder: &Path) -> ! {
    let mut files = Files::open(folder);
    loop {
        let (number, destination) = (rand::random::<u32>() % SOURCES, rand::random::<u32>());
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

#[test]
fn killed_at_any_instant_no_route_is_lost_and_no_virtual_address_changes() {
    if let Some(folder) = std::env::var_os(CHILD) {
        child(Path::new(&folder));
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
        let told = |line: &String| serde_json::from_str::<State>(line.split_once(' ').unwrap().1).unwrap();
        let mut possible = vec![said.iter().rev().find(|line| line.starts_with("done ")).map_or(last.clone(), told)];
        if let Some(doing) = said.last().filter(|line| line.starts_with("doing ")) {
            possible.push(told(doing));
        }
        changes += said.iter().filter(|line| line.starts_with("done ")).count();

        let found = Files::open(folder.path());
        let state = Files::state(&found.routes, &found.leases);
        assert!(possible.contains(&state), "found {state:?}\nexpected one of {possible:?}");
        between += usize::from(possible.len() == 2);
        for record in found.history.records() {
            assert!(record.number > 0 && !record.sources().is_empty());
        }
        last = state;
    }
    assert!(changes > 0 && between > KILLS / 10, "{changes} changes, {between} kills in the midst of one: too few to mean anything");
}
