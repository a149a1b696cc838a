//! Ten clients make ten thousand changes at once. The history records the order in which the agent
//! made them. Replayed by an independent model, the records are consistent, match the replies to
//! the clients, and lead to the final state of the agent.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    },
    time::{Duration, Instant},
};

use redirector::{
    control::{
        Client, ClientError, ErrorCode,
        api::{ImportRequest, RollbackRequest},
    },
    route::{Field, RawDestination, RawRoute, RoutePatch, SourceName},
};
use serde_json::Value;

use crate::rig::Job;

const CLIENTS: u32 = 10;
const CHANGES: usize = 10_000;
const SOURCES: u32 = 40;
/// Most records that may be unread: the agent keeps a hundred.
const AHEAD: usize = 50;
/// Longest time for everything: on a busy machine each change takes tens of milliseconds.
const LIMIT: Duration = Duration::from_secs(900);
/// In memory: only the order matters, and a disk would take most of the time.
const STATE: &str = "/run/redirector-state";

/// A change that the agent has confirmed to a client.
#[derive(Debug)]
struct Confirmed {
    source: String,
    /// The port that identifies this change; none for a removal.
    port: Option<String>,
}

#[derive(Default)]
struct Storm {
    /// Changes that were started, and those seen in the history.
    begun: AtomicUsize,
    read: AtomicUsize,
    done: AtomicBool,
    /// Sources that probably have a route, so that most requests succeed.
    routed: Mutex<BTreeSet<u32>>,
    confirmed: Mutex<Vec<Confirmed>>,
    rollbacks: AtomicUsize,
}

fn name(number: u32) -> String {
    format!("storm{number}.internal.company.net")
}

/// A route with a unique port.
fn route(number: u32, id: usize) -> RawRoute {
    RawRoute {
        source: name(number),
        destination: RawDestination::Many(vec![format!("203.0.113.{}", id % 250 + 1)]),
        ports: Some(vec![(id + 1).to_string()]),
        ..RawRoute::default()
    }
}

impl Storm {
    /// Runs one client until there are enough changes.
    async fn client(&self) {
        let client = Client::new("/run/redirector/control.sock");
        loop {
            let id = self.begun.fetch_add(1, SeqCst);
            if self.read.load(SeqCst) >= CHANGES || self.done.load(SeqCst) {
                return;
            }
            while id > self.read.load(SeqCst) + self.refused() + AHEAD && !self.done.load(SeqCst) {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            // The port is `id + 1`.
            assert!(id < 65_000, "too many refusals");
            self.change(&client, id).await;
        }
    }

    /// Changes that were started and have no record, roughly those that were refused.
    fn refused(&self) -> usize {
        let recorded = self.confirmed.lock().unwrap().len() + self.rollbacks.load(SeqCst);
        self.begun.load(SeqCst).saturating_sub(recorded + CLIENTS as usize)
    }

    async fn change(&self, client: &Client, id: usize) {
        let number = rand::random::<u32>() % SOURCES;
        let has_route = self.routed.lock().unwrap().contains(&number);
        let source: SourceName = name(number).parse().unwrap();
        match rand::random::<u32>() % 100 {
            0 => {
                if is_applied(client.rollback(&RollbackRequest::default()).await) {
                    self.rollbacks.fetch_add(1, SeqCst);
                }
            }
            1..=10 => {
                let routes = vec![route(number, id), route((number + 1) % SOURCES, id)];
                let request = ImportRequest { routes, replace: false, dry_run: false };
                if is_applied(client.import(&request).await) {
                    self.routed.lock().unwrap().extend([number, (number + 1) % SOURCES]);
                    self.confirm(number, Some(id));
                }
            }
            11..=35 if has_route => {
                if is_applied(client.remove(&source).await) {
                    self.routed.lock().unwrap().remove(&number);
                    self.confirm(number, None);
                }
            }
            _ if has_route => {
                let patch = RoutePatch {
                    ports: Field::Set(vec![(id + 1).to_string()]),
                    ..RoutePatch::default()
                };
                if is_applied(client.set(&source, &patch).await) {
                    self.confirm(number, Some(id));
                }
            }
            _ => {
                if is_applied(client.add(&route(number, id)).await) {
                    self.routed.lock().unwrap().insert(number);
                    self.confirm(number, Some(id));
                }
            }
        }
    }

    fn confirm(&self, number: u32, id: Option<usize>) {
        self.confirmed
            .lock()
            .unwrap()
            .push(Confirmed { source: name(number), port: id.map(|id| (id + 1).to_string()) });
    }

    /// Reads each record before the agent drops it, until the clients have ended.
    fn read_history(&self) -> BTreeMap<u64, Value> {
        let mut records = BTreeMap::new();
        let began = Instant::now();
        loop {
            let done = self.done.load(SeqCst);
            // The journal last: records that are compacted meanwhile are found at the next pass.
            let folder = std::fs::read_dir(format!("{STATE}/history"))
                .into_iter()
                .flatten()
                .map(|file| file.unwrap().path());
            for file in folder.chain([format!("{STATE}/journal").into()]) {
                for record in
                    std::fs::read_to_string(&file).unwrap_or_default().lines().filter_map(record)
                {
                    records.insert(record["number"].as_u64().unwrap(), record);
                }
            }
            self.read.store(records.len(), SeqCst);
            if done || began.elapsed() > LIMIT {
                self.done.store(true, SeqCst);
                return records;
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}

/// The record of a line (a checksum, a space, and JSON); none while the line is being written.
fn record(line: &str) -> Option<Value> {
    let entry: Value = serde_json::from_str(line.get(9..)?).ok()?;
    Some(entry["record"].clone()).filter(|record| !record.is_null())
}

/// Whether a change was made. A refusal because of another client's change is no failure.
#[track_caller]
fn is_applied<T>(answer: Result<T, ClientError>) -> bool {
    match answer {
        Ok(_) => true,
        Err(ClientError::Refused(error))
            if matches!(error.code, ErrorCode::Conflict | ErrorCode::NotFound) =>
        {
            // This reply follows a change that was made and recorded.
            error.message.contains("another caller has removed")
        }
        Err(error) => panic!("{error}"),
    }
}

/// Replays the records, each of which must start where the one before has ended. Returns the final
/// routes.
fn replay(records: &BTreeMap<u64, Value>) -> BTreeMap<String, Value> {
    let mut model: BTreeMap<String, Value> = BTreeMap::new();
    for ((number, record), expected) in records.iter().zip(1..) {
        assert_eq!(*number, expected, "a record is missing");
        for change in record["changes"].as_array().unwrap() {
            let source = change["source"].as_str().unwrap();
            assert_eq!(
                model.get(source),
                Some(&change["before"]).filter(|before| !before.is_null()),
                "change {number} of {source}"
            );
            if let Some(undoes) = record["undoes"].as_u64() {
                let undone = records[&undoes]["changes"]
                    .as_array()
                    .unwrap()
                    .iter()
                    .find(|undone| undone["source"] == source)
                    .unwrap();
                assert_eq!(change["after"], undone["before"], "change {number} undoes {undoes}");
            }
            match &change["after"] {
                Value::Null => drop(model.remove(source)),
                after => drop(model.insert(source.to_owned(), after.clone())),
            }
        }
    }
    model
}

#[test]
fn the_history_of_concurrent_changes_matches_a_model() {
    let mut job = Job::with_config(&format!(
        "[agent]\nstate_dir = \"{STATE}\"\n[dns]\nupstreams = [\"203.0.113.53:53\"]\n"
    ));
    let storm = Storm::default();
    let inside = job.rig.node.sandbox().namespaces();
    let records = std::thread::scope(|scope| {
        let reader = scope.spawn(|| inside.run(|| storm.read_history()).unwrap());
        let clients = (0..CLIENTS).map(|_| {
            scope.spawn(|| {
                let run = || {
                    tokio::runtime::Builder::new_current_thread()
                        .enable_all()
                        .build()
                        .unwrap()
                        .block_on(storm.client())
                };
                inside.run(run).unwrap();
            })
        });
        let ended: Vec<_> =
            clients.collect::<Vec<_>>().into_iter().map(|client| client.join()).collect();
        storm.done.store(true, SeqCst);
        let records = reader.join().unwrap();
        ended.into_iter().for_each(|client| client.unwrap());
        records
    });
    assert!(records.len() >= CHANGES, "{} changes in {LIMIT:?}", records.len());

    // Each confirmed change is recorded once.
    let confirmed = storm.confirmed.into_inner().unwrap();
    assert_eq!(records.len(), confirmed.len() + storm.rollbacks.into_inner());
    let mut recorded: BTreeMap<(&str, &str), usize> = BTreeMap::new();
    for change in records
        .values()
        .filter(|record| record["undoes"].is_null())
        .flat_map(|record| record["changes"].as_array().unwrap())
    {
        let port = change["after"]["route"]["ports"][0].as_str().unwrap_or("none");
        *recorded.entry((change["source"].as_str().unwrap(), port)).or_default() += 1;
    }
    let mut removed: BTreeMap<&str, usize> = BTreeMap::new();
    for Confirmed { source, port } in &confirmed {
        match port {
            Some(port) => assert_eq!(
                recorded.get(&(source.as_str(), port.as_str())),
                Some(&1),
                "{source} with port {port}"
            ),
            None => *removed.entry(source).or_default() += 1,
        }
    }
    for (source, times) in removed {
        assert_eq!(recorded.get(&(source, "none")), Some(&times), "removals of {source}");
    }

    // The final state matches the model: in the API, on disk, and after a SIGKILL.
    let model = replay(&records);
    let wanted: BTreeMap<String, Value> =
        model.iter().map(|(source, stored)| (source.clone(), stored["route"].clone())).collect();
    let vips = |job: &Job| -> BTreeMap<String, (Value, Value)> {
        let listed = job.json(&["route", "list"]);
        let routes = listed["routes"].as_array().unwrap().clone();
        routes
            .into_iter()
            .map(|route| {
                (
                    route["source"].as_str().unwrap().into(),
                    (route["definition"].clone(), route["vip"]["ipv4"].clone()),
                )
            })
            .collect()
    };
    let served = vips(&job);
    assert_eq!(
        served
            .iter()
            .map(|(source, (route, _))| (source.clone(), route.clone()))
            .collect::<BTreeMap<_, _>>(),
        wanted
    );
    assert_eq!(
        served.values().map(|(_, vip)| vip.to_string()).collect::<BTreeSet<_>>().len(),
        served.len(),
        "{served:?}"
    );
    job.agent.sigkill().unwrap();
    job.agent.restart().unwrap();
    assert_eq!(vips(&job), served);
    // At startup the journal was compacted into the file.
    let disk: Value =
        serde_json::from_str(&job.rig.node.sandbox().read(format!("{STATE}/routes.json")).unwrap())
            .unwrap();
    assert_eq!(disk["routes"].as_array().unwrap(), &model.into_values().collect::<Vec<_>>());
}
