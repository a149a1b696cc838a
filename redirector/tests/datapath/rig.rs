//! The datapath on a rig, and what all tests use.

use std::{
    io::{BufRead as _, BufReader, Lines, Write as _},
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::PathBuf,
    process::{Child, ChildStdout, Stdio},
    time::Duration,
};

use redirector::{
    config::CgroupSpec,
    datapath::{self, Datapath, DatapathError, RouteBackend, RouteCounters, Settings},
    plan::{Change, PlannedRoute},
    pool::Pool,
    route::PortPair,
};
use testbed::{
    Executor, ExecutorOptions, Rig,
    clients::LoadProcess,
    clients::{LoadOptions, LoadReport},
    customer::BannerServer,
    process::Finished,
    topology::LOAD_BALANCERS,
};

/// The route that the tests use, and its VIP.
pub(crate) const INDEX: u32 = 7;
pub(crate) const VIP: &str = "198.18.0.7";
pub(crate) const VIP6: &str = "fd00:18::7";

/// The port that the customer's servers listen on.
pub(crate) const PORT: u16 = 8080;

/// The time limit of a client.
pub(crate) const LIMIT: Duration = Duration::from_secs(30);

/// A node with an executor, and a datapath attached to its pods.
pub(crate) struct Bed {
    // Before the rig: the namespaces live as long as their last user.
    pub(crate) datapath: Datapath,
    pub(crate) executor: Executor,
    pub(crate) rig: Rig,
}

impl Bed {
    /// Attached, without a route.
    pub(crate) fn new() -> Self {
        let rig = Rig::new().unwrap();
        let executor = rig.executor(ExecutorOptions::pod("job")).unwrap();
        let datapath = attached(&rig);
        Self { datapath, executor, rig }
    }

    /// Attached, with a route from [`VIP`] to two servers, `one` and `two`, on every port.
    pub(crate) fn with_two_servers() -> (Self, BannerServer, BannerServer) {
        let mut bed = Self::new();
        let (one, two) = (bed.server(0, "one"), bed.server(1, "two"));
        bed.put(&[], &LOAD_BALANCERS);
        (bed, one, two)
    }

    /// A server at the address of load balancer `number` (0 or 1).
    pub(crate) fn server(&self, number: usize, banner: &str) -> BannerServer {
        self.rig
            .customer
            .banner_server(SocketAddr::from((LOAD_BALANCERS[number], PORT)), banner)
            .unwrap()
    }

    /// Puts the route of [`INDEX`].
    pub(crate) fn put(&mut self, ports: &[(u16, u16)], backends: &[Ipv4Addr]) {
        self.datapath.apply(&[put(ports, backends)]).unwrap();
    }

    pub(crate) fn counters(&self) -> RouteCounters {
        self.datapath.route_counters(INDEX).unwrap()
    }

    /// A line of shell in the executor.
    pub(crate) fn run(&self, line: &str) -> Finished {
        self.executor.run(line, LIMIT).unwrap()
    }

    /// The output of a Python script in the executor.
    pub(crate) fn python(&self, script: &str) -> String {
        python(&self.executor, script)
    }

    /// The output of a Java program's class in the executor, with the VIP as its argument.
    pub(crate) fn java(&self, class: &str, text: &str) -> String {
        let line = format!(
            "d=$(mktemp -d) && cat > $d/{class}.java <<'END' && java $d/{class}.java {VIP}; \
            rm -r $d\n{text}\nEND\n"
        );
        self.run(&line).success().unwrap().stdout
    }

    /// Connects to the VIP, and keeps the connection.
    pub(crate) fn hold(&self) -> HeldConnection {
        HeldConnection::open(&self.executor)
    }

    /// The greeting that a connect from the executor gets, or the name of its errno.
    pub(crate) fn greeting(&self, address: &str, port: u16) -> String {
        greeting(self.executor.sandbox(), address, port)
    }

    /// Connects to the VIP, `rate` a second.
    pub(crate) fn load(&self, rate: u32, seconds: f64, banners: &[&str]) -> LoadProcess {
        let target = SocketAddr::new(VIP.parse().unwrap(), PORT);
        let options = LoadOptions::greeted_by(banners, target, rate, seconds);
        LoadProcess::start(self.executor.sandbox(), &options).unwrap()
    }

    /// `count` connects, a thousand a second.
    pub(crate) fn connects(&self, count: u32) -> LoadReport {
        self.load(1000, f64::from(count) / 1000.0, &[]).report().unwrap()
    }
}

/// The backend of that route at `address` and [`PORT`].
pub(crate) fn backend(address: Ipv4Addr) -> RouteBackend {
    RouteBackend { index: INDEX, address: address.into(), port: PORT }
}

/// A change that puts a route at [`INDEX`].
pub(crate) fn put(ports: &[(u16, u16)], backends: &[Ipv4Addr]) -> Change {
    let ports =
        ports.iter().map(|&(client, destination)| PortPair { client, destination }).collect();
    let backends = Some(backends.iter().copied().map(IpAddr::from).collect());
    Change::Put { index: INDEX, route: PlannedRoute { ports, backends, ..PlannedRoute::default() } }
}

pub(crate) fn settings() -> Settings {
    let pool =
        Pool::new("198.18.0.0/16".parse().unwrap(), Some("fd00:18::/112".parse().unwrap()), true)
            .unwrap();
    Settings { bpffs: PathBuf::from("/sys/fs/bpf/redirector"), pool, debug_log: false }
}

/// Runs `action` where the agent would run: in the node's namespaces.
pub(crate) fn on_node<T: Send>(rig: &Rig, action: impl FnOnce() -> T + Send) -> T {
    rig.node.sandbox().namespaces().run(action).unwrap()
}

/// Opens the datapath on the rig's node.
pub(crate) fn open(rig: &Rig) -> Result<Datapath, DatapathError> {
    on_node(rig, || Datapath::open(&settings()))
}

/// Attaches to what `auto` finds on the rig's node: its `kubepods`.
pub(crate) fn attach(rig: &Rig, datapath: &mut Datapath) {
    let attachments =
        on_node(rig, || datapath.attach(&datapath::cgroups(&[CgroupSpec::Auto]).unwrap()).unwrap());
    assert_eq!(attachments.len(), 1, "{attachments:?}");
    assert_eq!(
        attachments[0].programs.len(),
        redirector_common::names::PROGRAMS.len(),
        "{attachments:?}"
    );
}

pub(crate) fn attached(rig: &Rig) -> Datapath {
    let mut datapath = open(rig).unwrap();
    attach(rig, &mut datapath);
    datapath
}

/// The greeting that a connect from the sandbox gets, or the name of its errno.
pub(crate) fn greeting(sandbox: &testbed::Sandbox, address: &str, port: u16) -> String {
    let script = format!(
        "import errno, socket, sys\n\
         try: s = socket.create_connection(('{address}', {port}), 10)\n\
         except OSError as e: print(errno.errorcode.get(e.errno, e)); sys.exit()\n\
         print(s.makefile().read().split()[-1])"
    );
    let mut command = sandbox.command("/usr/bin/python3");
    command.args(["-c", &script]);
    testbed::process::finish(command, LIMIT).unwrap().success().unwrap().stdout.trim().to_owned()
}

/// The output of a Python script in an executor.
pub(crate) fn python(executor: &Executor, script: &str) -> String {
    let mut command = executor.command("/usr/bin/python3");
    command.args(["-c", script]);
    testbed::process::finish(command, LIMIT).unwrap().success().unwrap().stdout
}

/// A connection to the VIP from a process of its own.
pub(crate) struct HeldConnection {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl HeldConnection {
    fn open(executor: &Executor) -> Self {
        let script = format!(
            "import socket\ns = socket.create_connection(('{VIP}', {PORT}))\n\
            print('up', flush=True); input(); print(s.getpeername()); s.close()"
        );
        let mut command = executor.command("/usr/bin/python3");
        command.args(["-c", &script]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        assert_eq!(lines.next().unwrap().unwrap(), "up");
        Self { child, lines }
    }

    /// Asserts that its peer is still the VIP, and closes it.
    #[track_caller]
    pub(crate) fn assert_peer_and_close(mut self) {
        self.child.stdin.as_mut().unwrap().write_all(b"\n").unwrap();
        let peer = self.lines.next().unwrap().unwrap();
        assert_eq!(peer, format!("('{VIP}', {PORT})"), "a connection keeps its peer");
        assert!(self.child.wait().unwrap().success());
    }
}
