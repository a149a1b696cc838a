//! The server and the client over a real socket, with a fake event loop behind them.

mod reference;

use std::{
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{UnixListener, UnixStream},
    sync::mpsc,
    task::JoinHandle,
};
use tokio_util::sync::CancellationToken;

use super::*;

/// Longest wait for what must happen.
const PATIENCE: Duration = Duration::from_secs(60);

/// A served socket in a directory of its own, and the queue behind it.
struct Rig {
    directory: tempfile::TempDir,
    shutdown: CancellationToken,
    serving: JoinHandle<()>,
    queue: mpsc::Receiver<Command>,
}

impl Rig {
    async fn start(limits: Limits, timeout: Duration) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let server = Server::bind(&directory.path().join("control.sock"), limits)
            .await
            .expect("the socket binds");
        let (sender, queue) = mpsc::channel(16);
        let shutdown = CancellationToken::new();
        let serving = tokio::spawn(server.serve(Handle::new(sender, timeout), shutdown.clone()));
        Self { directory, shutdown, serving, queue }
    }

    async fn quick() -> Self {
        let limits = Limits {
            body: 1024,
            import: 4096,
            read: Duration::from_millis(300),
            connections: 8,
            connections_per_user: 6,
            drain: Duration::from_millis(200),
        };
        Self::start(limits, Duration::from_millis(500)).await
    }

    /// With room and time for every client of a test, on a busy machine too.
    async fn patient() -> Self {
        let limits = Limits { body: 1024, import: 4096, read: PATIENCE, ..Limits::default() };
        Self::start(limits, PATIENCE).await
    }

    /// The next command that a client sends.
    async fn command(&mut self) -> Command {
        let next = tokio::time::timeout(PATIENCE, self.queue.recv()).await;
        next.expect("a command in time").expect("a server")
    }

    fn socket(&self) -> PathBuf {
        self.directory.path().join("control.sock")
    }

    fn client(&self) -> Client {
        Client::new(self.socket())
    }

    /// Writes `request` verbatim and returns the whole answer.
    async fn raw(&self, request: &str) -> String {
        let mut stream = UnixStream::connect(self.socket()).await.expect("the socket accepts");
        stream.write_all(request.as_bytes()).await.expect("the request is written");
        let mut answer = String::new();
        let reading = stream.read_to_string(&mut answer);
        tokio::time::timeout(Duration::from_secs(5), reading)
            .await
            .expect("an answer in time")
            .expect("readable");
        answer
    }

    async fn post(&self, path: &str, body: &str) -> String {
        let length = body.len();
        self.raw(&format!(
            "POST {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: \
            {length}\r\n\r\n{body}"
        ))
        .await
    }
}

fn changed(source: &str) -> api::Changed {
    api::Changed {
        version: api::VERSION,
        change: api::ChangeKind::Added,
        source: source.parse().expect("a source"),
        route: None,
        warnings: vec![],
    }
}

fn raw_route(source: &str) -> crate::route::RawRoute {
    serde_json::from_value(serde_json::json!({"source": source, "destination": "lb.example.net"}))
        .expect("a route")
}

#[tokio::test]
async fn a_change_carries_the_callers_credentials_and_is_answered() {
    let mut rig = Rig::patient().await;
    let client = rig.client();
    let asking = tokio::spawn(async move { client.add(&raw_route("a.example.net")).await });
    let Command::Add(route, caller, reply) = rig.command().await else { panic!("another command") };
    assert_eq!(*route, raw_route("a.example.net"));
    assert_eq!(caller.pid, Some(std::process::id() as i32));
    assert_eq!(caller.uid, rustix::process::geteuid().as_raw());
    reply.send(Ok(changed("a.example.net"))).expect("the client waits");
    let answer = asking.await.expect("the client ends").expect("an answer");
    assert_eq!(answer, changed("a.example.net"));
}

#[tokio::test]
async fn changes_of_many_clients_are_serialised_and_none_is_lost() {
    let mut rig = Rig::patient().await;
    let clients: Vec<_> = (0..10)
        .map(|client_number| {
            let client = rig.client();
            tokio::spawn(async move {
                for n in 0..20 {
                    client
                        .add(&raw_route(&format!("r{n}.c{client_number}.example.net")))
                        .await
                        .expect("an answer");
                }
            })
        })
        .collect();
    let mut per_client = [0; 10];
    for _ in 0..200 {
        let Command::Add(route, _, reply) = rig.command().await else { panic!("another command") };
        let source = serde_json::to_value(&*route).expect("json")["source"]
            .as_str()
            .expect("a text")
            .to_owned();
        let mut labels = source.split('.').map(|label| label[1..].parse::<usize>());
        let (Some(Ok(n)), Some(Ok(client))) = (labels.next(), labels.next()) else {
            panic!("{source}")
        };
        assert_eq!(per_client[client], n, "client {client}'s changes come in its order");
        per_client[client] += 1;
        reply.send(Ok(changed(&source))).expect("the client waits");
    }
    for client in clients {
        client.await.expect("every client got its answers");
    }
    assert_eq!(per_client, [20; 10]);
}

#[tokio::test]
async fn invalid_requests_are_refused_in_json_before_the_queue() {
    let mut rig = Rig::patient().await;
    let large = format!("{{\"source\": \"{}\"}}", "a".repeat(2000));
    for (answer, status, code, message) in [
        (rig.post("/v1/routes", "{\"source\"").await, 400, "bad_request", "EOF while parsing"),
        (rig.post("/v1/routes", "").await, 400, "bad_request", "EOF while parsing"),
        (
            rig.post(
                "/v1/routes",
                "{\"source\": \"a.b\", \"destination\": \"c.d\", \"prots\": []}",
            )
            .await,
            422,
            "invalid",
            "prots",
        ),
        (rig.post("/v1/routes", &large).await, 413, "too_large", "1024 bytes"),
        (rig.post("/v1/import", &"x".repeat(5000)).await, 413, "too_large", "4096 bytes"),
        (rig.post("/v2/routes", "{}").await, 404, "not_found", "/v2/routes"),
        (rig.post("/v1/routes/a.b", "{}").await, 405, "method_not_allowed", "POST"),
        (
            rig.raw("DELETE /v1/routes/a..b HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
                .await,
            422,
            "invalid",
            "a..b",
        ),
    ] {
        let (head, body) = answer.split_once("\r\n\r\n").expect("a head and a body");
        assert!(head.starts_with(&format!("HTTP/1.1 {status} ")), "{answer}");
        let body: serde_json::Value = serde_json::from_str(body).expect("JSON");
        assert_eq!(body["error"]["code"], code, "{answer}");
        assert!(body["error"]["message"].as_str().expect("a text").contains(message), "{answer}");
    }
    assert!(rig.queue.try_recv().is_err(), "nothing was queued");
}

#[tokio::test]
async fn a_refusal_arrives_verbatim() {
    let mut rig = Rig::patient().await;
    let client = rig.client();
    let asking =
        tokio::spawn(
            async move { client.route(&"*.example.net".parse().expect("a source")).await },
        );
    let Command::Route(source, reply) = rig.command().await else { panic!("another command") };
    assert_eq!(source.to_string(), "*.example.net");
    let refusal = ApiError::no_route(&source);
    reply.send(Err(refusal.clone())).expect("the client waits");
    match asking.await.expect("the client ends") {
        Err(ClientError::Refused(error)) => assert_eq!(error, refusal),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_client_that_leaves_within_its_body_changes_nothing() {
    let mut rig = Rig::quick().await;
    let mut stream = UnixStream::connect(rig.socket()).await.expect("the socket accepts");
    let part = "POST /v1/routes HTTP/1.1\r\nhost: x\r\ncontent-length: \
        60\r\n\r\n{\"source\": \"a.b\", \"destination\": \"c.d\"}";
    stream.write_all(part.as_bytes()).await.expect("the part is taken");
    drop(stream);
    let nothing = tokio::time::timeout(Duration::from_millis(500), rig.queue.recv()).await;
    assert!(nothing.is_err(), "a command came: {nothing:?}");
}

#[tokio::test]
async fn a_client_that_leaves_after_its_body_does_not_stop_the_change() {
    let mut rig = Rig::patient().await;
    let mut stream = UnixStream::connect(rig.socket()).await.expect("the socket accepts");
    let body = "{\"source\": \"a.b\", \"destination\": \"c.d\"}";
    let whole = format!(
        "POST /v1/routes HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(whole.as_bytes()).await.expect("the request is written");
    let Command::Add(_, _, reply) = rig.command().await else { panic!("another command") };
    drop(stream);
    tokio::time::sleep(Duration::from_millis(50)).await;
    // Whether or not anybody waits, the owner has the whole command and can carry it out.
    let _ = reply.send(Ok(changed("a.b")));
}

#[tokio::test]
async fn a_body_that_does_not_arrive_times_out() {
    let rig = Rig::quick().await;
    let answer =
        rig.raw("POST /v1/routes HTTP/1.1\r\nhost: x\r\ncontent-length: 60\r\n\r\n{").await;
    assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
    assert!(answer.contains("\"timeout\""), "{answer}");
}

#[tokio::test]
async fn a_head_that_does_not_arrive_times_out() {
    let rig = Rig::quick().await;
    let before = std::time::Instant::now();
    rig.raw("POST /v1/routes HTTP/1.1\r\nhost:").await;
    assert!(
        before.elapsed() < Duration::from_secs(4),
        "the connection was closed after {:?}",
        before.elapsed()
    );
}

/// Once further clients waited for the idle ones, 10 s each.
#[tokio::test]
async fn idle_connections_keep_no_client_out() {
    let limits = Limits { connections: 8, connections_per_user: 6, ..Limits::default() };
    let rig = Rig::start(Limits { read: PATIENCE, ..limits }, PATIENCE).await;
    let mut idle = Vec::new();
    for _ in 0..200 {
        let mut stream = UnixStream::connect(rig.socket()).await.expect("the socket accepts");
        stream.write_all(b"GET /v1/status HTTP/1.1\r\n").await.expect("written");
        idle.push(stream);
    }
    let answer = rig.raw("GET /v1/nothing HTTP/1.1\r\nhost: x\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 4"), "{answer}");
}

/// A client whose request is under way is not cut off for a new one.
#[tokio::test]
async fn requests_beyond_the_limit_wait_and_then_are_refused() {
    let mut rig = Rig::start(
        Limits { connections: 2, connections_per_user: 2, ..Limits::default() },
        Duration::from_secs(20),
    )
    .await;
    let mut asking = Vec::new();
    for _ in 0..4 {
        let client = rig.client();
        asking.push(tokio::spawn(async move { client.routes().await }));
    }
    let mut replies = Vec::new();
    for _ in 0..2 {
        let Command::Routes(reply) = rig.command().await else { panic!("another command") };
        replies.push(reply);
    }
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert!(rig.queue.try_recv().is_err(), "two wait");
    let answer = rig.raw("GET /v1/status HTTP/1.1\r\nhost: x\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 429 ") && answer.contains("too_many"), "{answer}");
    for _ in 0..4 {
        let reply = match replies.pop() {
            Some(reply) => reply,
            None => match rig.command().await {
                Command::Routes(reply) => reply,
                other => panic!("{other:?}"),
            },
        };
        reply.send(Err(ApiError::new(ErrorCode::Conflict, "reached"))).expect("waits");
    }
    for asking in asking {
        let error = asking.await.expect("ends").expect_err("refused");
        assert!(matches!(error, ClientError::Refused(ref error) if error.message == "reached"));
    }
}

#[tokio::test]
async fn a_silent_or_absent_event_loop_is_an_error() {
    let rig = Rig::quick().await;
    match rig.client().status().await {
        Err(ClientError::Refused(error)) => assert_eq!(error.code, ErrorCode::NoAnswer),
        other => panic!("{other:?}"),
    }
    let Rig { queue, directory, .. } = rig;
    drop(queue);
    match Client::new(directory.path().join("control.sock")).status().await {
        Err(ClientError::Refused(error)) => assert_eq!(error.code, ErrorCode::ShuttingDown),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn the_socket_is_for_owner_and_group_and_removed_at_the_end() {
    let rig = Rig::quick().await;
    let mode = std::fs::metadata(rig.socket()).expect("the socket").permissions().mode();
    assert_eq!(mode & 0o777, 0o660);
    rig.shutdown.cancel();
    tokio::time::timeout(Duration::from_secs(2), rig.serving)
        .await
        .expect("ends in time")
        .expect("ends well");
    let left: Vec<_> = std::fs::read_dir(rig.directory.path()).expect("the directory").collect();
    assert!(left.is_empty(), "{left:?}");
    match Client::new(rig.directory.path().join("control.sock")).status().await {
        Err(ClientError::Unreachable { .. }) => {}
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn only_a_dead_agents_socket_is_replaced() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("control.sock");
    drop(UnixListener::bind(&path).expect("the dead agent's socket"));
    assert!(path.exists(), "a socket file outlives its listener");
    let first = Server::bind(&path, Limits::default()).await.expect("the dead agent's is replaced");
    assert!(matches!(bind_error(&path).await, SocketError::InUse { .. }));
    drop(first);
    std::fs::write(&path, "").expect("a file");
    assert!(matches!(bind_error(&path).await, SocketError::NotASocket { .. }));
}

async fn bind_error(path: &Path) -> SocketError {
    Server::bind(path, Limits::default()).await.expect_err("the path is taken")
}

#[tokio::test]
async fn another_version_of_the_api_is_reported_with_both() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("control.sock");
    let listener = UnixListener::bind(&path).expect("bound");
    let old = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.expect("a client");
        let _ = stream.read(&mut [0; 4096]).await;
        let body = r#"{"version": 7, "routes": "of another shape"}"#;
        let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len());
        stream.write_all(answer.as_bytes()).await.expect("written");
    });
    let error = Client::new(&path).routes().await.expect_err("another version");
    assert!(matches!(error, ClientError::OtherVersion { found: 7, .. }), "{error:?}");
    assert!(
        error.to_string().contains("version 7") && error.to_string().contains("version 1"),
        "{error}"
    );
    old.await.expect("ends well");
}

/// Requests the status as another user. Returns the HTTP status.
fn status_for(socket: &Path, uid: u32, gid: u32, groups: &str) -> String {
    let mut command = std::process::Command::new("setpriv");
    let identity = [
        format!("--reuid={uid}"),
        format!("--regid={gid}"),
        if groups.is_empty() { "--clear-groups".into() } else { format!("--groups={groups}") },
    ];
    command.args(identity).args([
        "curl",
        "-s",
        "--max-time",
        "5",
        "-o",
        "/dev/stderr",
        "-w",
        "%{http_code}",
        "--unix-socket",
    ]);
    let output = command
        .arg(socket)
        .arg("http://x/v1/status")
        .output()
        .expect("setpriv and curl are installed");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// A wider mode of the socket gives no permission.
#[tokio::test(flavor = "multi_thread")]
async fn only_root_and_the_sockets_group_have_permission() {
    const GROUP: u32 = 54321;
    let mut rig = Rig::patient().await;
    let socket = rig.socket();
    let open = |path: &Path, mode| {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).expect("changed")
    };
    open(rig.directory.path(), 0o755);
    open(&socket, 0o666);
    std::os::unix::fs::chown(&socket, None, Some(GROUP)).expect("these tests need root");
    let event_loop = tokio::spawn(async move {
        let mut answered = 0;
        while let Some(command) = rig.queue.recv().await {
            let Command::Status(reply) = command else { panic!("{command:?}") };
            reply
                .send(Err(ApiError::new(ErrorCode::Conflict, "reached the event loop")))
                .expect("the client waits");
            answered += 1;
            if answered == 3 {
                break;
            }
        }
        rig
    });
    let statuses = tokio::task::spawn_blocking(move || {
        [
            (65534, 65534, ""),
            (65534, GROUP, ""),
            (65534, 65534, "54321"),
            (65534, 65534, "54320"),
            (0, 0, ""),
        ]
        .map(|(uid, gid, groups)| status_for(&socket, uid, gid, groups))
    });
    assert_eq!(statuses.await.expect("no panic"), ["403", "409", "409", "403", "409"]);
    event_loop.await.expect("three had permission");
}
