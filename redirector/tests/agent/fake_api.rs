//! An API server of Kubernetes on the node, as far as an agent uses it: the pods and the taints of
//! one node, route slices and the node's report, over TLS, for one token.

use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use parking_lot::Mutex;
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use serde_json::{Value, json};
use testbed::Rig;

use crate::stage::{Tls, certified};

/// The agent's node.
pub(crate) const NODE: &str = "node1";
const TOKEN: &str = "a-token";
/// Where the kubelet mounts it.
const ACCOUNT: &str = "/run/secrets/kubernetes.io/serviceaccount";

const PODS: &str = "/api/v1/pods";
const SLICES: &str = "/apis/redirector.dev/v1alpha1/namespaces/kube-system/redirectrouteslices";
const REPORT: &str = "/apis/redirector.dev/v1alpha1/namespaces/kube-system/redirectnodes/node1";

type Session = StreamOwned<ServerConnection, TcpStream>;

#[derive(Default)]
struct State {
    version: u64,
    pods: BTreeMap<String, Value>,
    slices: BTreeMap<String, Value>,
    /// What watches of a kind send, with the version from which on it is new.
    events: Vec<(u64, &'static str, Value)>,
    /// What the agent has reported, the last one last.
    reports: Vec<Value>,
    taints: Vec<Value>,
    patches: usize,
}

/// The server; it stops when dropped.
pub(crate) struct FakeApi {
    state: Arc<Mutex<State>>,
    down: Arc<AtomicBool>,
    silent: Arc<AtomicBool>,
    stopped: Arc<AtomicBool>,
    port: u16,
    thread: Option<thread::JoinHandle<()>>,
}

impl FakeApi {
    /// Starts it on the node, and puts the token and the authority where the agent looks for them.
    pub(crate) fn start(rig: &Rig) -> Self {
        let (config, authority) = certified(&Tls::of("127.0.0.1"));
        let listener = rig.node.sandbox().namespaces().run(|| {
            std::fs::create_dir_all(ACCOUNT).unwrap();
            std::fs::write(Path::new(ACCOUNT).join("ca.crt"), &authority).unwrap();
            std::fs::write(Path::new(ACCOUNT).join("token"), TOKEN).unwrap();
            std::fs::write(Path::new(ACCOUNT).join("namespace"), "kube-system").unwrap();
            TcpListener::bind("127.0.0.1:0").unwrap()
        });
        let listener = listener.unwrap();
        let port = listener.local_addr().unwrap().port();
        listener.set_nonblocking(true).unwrap();
        let state = Arc::new(Mutex::new(State { version: 1, ..State::default() }));
        let (down, stopped) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
        let silent = Arc::new(AtomicBool::new(false));
        let (shared, is_down, is_stopped) =
            (Arc::clone(&state), Arc::clone(&down), Arc::clone(&stopped));
        let is_silent = Arc::clone(&silent);
        let thread = thread::spawn(move || {
            let mut unanswered = Vec::new();
            while !is_stopped.load(Ordering::Relaxed) {
                let Ok((stream, _)) = listener.accept() else {
                    thread::sleep(Duration::from_millis(5));
                    continue;
                };
                let (config, state) = (Arc::clone(&config), Arc::clone(&shared));
                let ends = [Arc::clone(&is_down), Arc::clone(&is_stopped)];
                if is_silent.load(Ordering::Relaxed) {
                    unanswered.push(stream);
                } else if !is_down.load(Ordering::Relaxed) {
                    thread::spawn(move || serve(stream, config, &state, &ends));
                }
            }
        });
        Self { state, down, silent, stopped, port, thread: Some(thread) }
    }

    /// Where it listens, on the node's 127.0.0.1.
    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// What the kubelet puts into the agent's environment.
    pub(crate) fn environment(&self) -> Vec<(String, String)> {
        [
            ("KUBERNETES_SERVICE_HOST", "127.0.0.1".to_owned()),
            ("KUBERNETES_SERVICE_PORT", self.port.to_string()),
            ("NODE_NAME", NODE.to_owned()),
            ("REDIRECTOR_STARTUP_TAINT", "remove".to_owned()),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .into()
    }

    /// A pod was assigned to the node, or changed.
    pub(crate) fn put_pod(&self, uid: &str, namespace: &str, name: &str, address: &str) {
        let mut state = self.state.lock();
        state.version += 1;
        let pod = json!({
            "metadata": {
                "uid": uid,
                "name": name,
                "namespace": namespace,
                "resourceVersion": state.version.to_string(),
            },
            "spec": {"nodeName": NODE},
            "status": {"podIP": address},
        });
        let version = state.version;
        state.pods.insert(uid.to_owned(), pod.clone());
        state.events.push((version, PODS, json!({"type": "ADDED", "object": pod})));
    }

    /// The controller has written a slice with these routes, by the names of their RedirectRoutes.
    pub(crate) fn put_slice(&self, name: &str, revision: i64, routes: &[(&str, Value)]) {
        let mut state = self.state.lock();
        state.version += 1;
        let routes: Vec<_> = routes
            .iter()
            .map(|(name, route)| {
                json!({"name": name, "generation": 1, "revision": revision, "route": route})
            })
            .collect();
        let slice = json!({
            "apiVersion": "redirector.dev/v1alpha1",
            "kind": "RedirectRouteSlice",
            "metadata": {"name": name, "resourceVersion": state.version.to_string()},
            "spec": {"revision": revision, "reportWithinSeconds": 1, "routes": routes},
        });
        let version = state.version;
        state.slices.insert(name.to_owned(), slice.clone());
        state.events.push((version, SLICES, json!({"type": "MODIFIED", "object": slice})));
    }

    /// The last report of the node.
    pub(crate) fn report(&self) -> Option<Value> {
        self.state.lock().reports.last().cloned()
    }

    /// The version that watches know is too old from now on.
    pub(crate) fn expire(&self) {
        let mut state = self.state.lock();
        state.version += 1;
        let status = json!({"kind": "Status", "code": 410, "message": "too old resource version"});
        let version = state.version;
        state.events.push((version, PODS, json!({"type": "ERROR", "object": status})));
    }

    /// Ends every connection, and accepts no other one.
    pub(crate) fn set_down(&self, down: bool) {
        self.down.store(down, Ordering::Relaxed);
    }

    /// Accepts connections from now on, and never answers on them.
    pub(crate) fn set_silent(&self) {
        self.silent.store(true, Ordering::Relaxed);
    }

    pub(crate) fn set_taints(&self, taints: Vec<Value>) {
        self.state.lock().taints = taints;
    }

    /// The node's taints, and how often they were changed.
    pub(crate) fn taints(&self) -> (Vec<Value>, usize) {
        let state = self.state.lock();
        (state.taints.clone(), state.patches)
    }
}

impl Drop for FakeApi {
    fn drop(&mut self) {
        self.stopped.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// One request.
fn serve(
    stream: TcpStream,
    config: Arc<ServerConfig>,
    state: &Mutex<State>,
    ends: &[Arc<AtomicBool>; 2],
) {
    stream.set_nonblocking(false).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    let session = StreamOwned::new(ServerConnection::new(config).unwrap(), stream);
    let mut session = BufReader::new(session);
    let mut head = Vec::new();
    loop {
        let mut line = String::new();
        match session.read_line(&mut line) {
            Ok(length) if length > 2 => head.push(line.trim().to_owned()),
            Ok(_) => break,
            Err(_) => return,
        }
    }
    let header = |name: &str| {
        head.iter().find_map(|line| {
            let (key, value) = line.split_once(':')?;
            key.eq_ignore_ascii_case(name).then(|| value.trim().to_owned())
        })
    };
    let length = header("content-length").and_then(|text| text.parse().ok()).unwrap_or(0);
    let mut body = vec![0; length];
    if session.read_exact(&mut body).is_err() || head.is_empty() {
        return;
    }
    let authorized = header("authorization").as_deref() == Some(&format!("Bearer {TOKEN}"));
    let request = head[0].clone();
    let mut session = session.into_inner();
    if !authorized {
        return reply(&mut session, 401, &json!({"message": "no such token"}));
    }
    let mut words = request.split(' ');
    let (method, target) = (words.next().unwrap(), words.next().unwrap());
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let parameter =
        |name: &str| query.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='));
    match (method, path) {
        ("GET", PODS) if parameter("fieldSelector") != Some(&format!("spec.nodeName%3D{NODE}")) => {
            reply(&mut session, 403, &json!({"message": "only the pods of one node"}));
        }
        ("GET", PODS) if parameter("watch") == Some("true") => {
            let from = parameter("resourceVersion").unwrap().parse().unwrap();
            watch(&mut session, state, (PODS, from), ends);
        }
        ("GET", PODS) => {
            let list = list(&state.lock(), |state| &state.pods);
            reply(&mut session, 200, &list);
        }
        ("GET", SLICES) if parameter("watch") == Some("true") => {
            let from = parameter("resourceVersion").unwrap().parse().unwrap();
            watch(&mut session, state, (SLICES, from), ends);
        }
        ("GET", SLICES) => {
            let list = list(&state.lock(), |state| &state.slices);
            reply(&mut session, 200, &list);
        }
        ("PATCH", REPORT) => {
            let report: Value = serde_json::from_slice(&body).unwrap();
            state.lock().reports.push(report.clone());
            reply(&mut session, 200, &report);
        }
        ("GET", "/api/v1/nodes/node1") => {
            let taints = state.lock().taints.clone();
            let node = json!({"metadata": {"resourceVersion": "5"}, "spec": {"taints": taints}});
            reply(&mut session, 200, &node);
        }
        ("PATCH", "/api/v1/nodes/node1") => {
            let patch: Value = serde_json::from_slice(&body).unwrap();
            let mut state = state.lock();
            state.patches += 1;
            // Another writer was faster, once.
            let is_first = state.patches == 1;
            if !is_first {
                state.taints = patch["spec"]["taints"].as_array().unwrap().clone();
            }
            drop(state);
            let status = if is_first { 409 } else { 200 };
            reply(&mut session, status, &json!({"message": "the object has been modified"}));
        }
        _ => reply(&mut session, 404, &json!({"message": "no such path"})),
    }
}

fn list(state: &State, objects: fn(&State) -> &BTreeMap<String, Value>) -> Value {
    let items: Vec<_> = objects(state).values().cloned().collect();
    json!({"metadata": {"resourceVersion": state.version.to_string()}, "items": items})
}

fn reply(session: &mut Session, status: u16, body: &Value) {
    let body = body.to_string();
    let head = format!(
        "HTTP/1.1 {status} -\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\
            connection: close\r\n\r\n",
        body.len()
    );
    let _ = session.write_all(head.as_bytes());
    let _ = session.write_all(body.as_bytes());
    let _ = session.flush();
}

/// Sends what is newer than `from` of a kind, until the server ends.
fn watch(
    session: &mut Session,
    state: &Mutex<State>,
    (kind, mut from): (&'static str, u64),
    ends: &[Arc<AtomicBool>; 2],
) {
    let head = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";
    let mut write =
        |text: String| session.write_all(text.as_bytes()).and_then(|()| session.flush()).is_ok();
    let mut alive = write(head.to_owned());
    while alive && !ends.iter().any(|end| end.load(Ordering::Relaxed)) {
        let new: Vec<_> = {
            let state = state.lock();
            let of_kind = state.events.iter().filter(|(_, of, _)| *of == kind);
            of_kind.filter(|(version, ..)| *version > from).cloned().collect()
        };
        for (version, _, event) in new {
            let line = format!("{event}\n");
            alive = alive && write(format!("{:x}\r\n{line}\r\n", line.len()));
            from = version;
        }
        thread::sleep(Duration::from_millis(10));
    }
}
