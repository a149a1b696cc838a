//! A customer, a resolver that is none of ours, and a node with the agent.

use std::net::Ipv4Addr;
use std::path::Path;
use std::time::Duration;

use testbed::agent::{Agent, AgentOptions};
use testbed::client_programs::{ClientPrograms, KINDS};
use testbed::clients::{LookupOptions, LookupReport, Mapped};
use testbed::customer::{DnsServer, LoadBalancer, Registry, Resolver};
use testbed::guests::{Guest, MicroVmOptions, Wiring};
use testbed::topology::{INTERNAL_NAME, LOAD_BALANCERS, RESOLVER_ADDRESS};
use testbed::{Executor, ExecutorOptions, Network, ResolvConf, Rig, binaries, process};

/// Longest time of a guest's command: some guests are emulated.
pub(crate) const LIMIT: Duration = Duration::from_secs(120);

/// The names that are mapped: two exact ones and one below a wildcard.
pub(crate) const MAPPED: [&str; 3] =
    [INTERNAL_NAME, "code.internal.company.net", "any.wild.company.net"];
/// Names that the resolver answers, one of them one label longer than a mapped name.
pub(crate) const UNRELATED: [&str; 3] =
    ["www.example.test", "artifactory.internal.company.net.example.test", "does-not.exist.test"];

/// Only the packet datapath and the cgroup datapath: nobody's resolver is the shim.
pub(crate) const CONFIG: &str = "\
wildcards = \"one_label\"
[dns]
listen = []
intercept = \"packets\"
[health]
probe_interval = \"1s\"
[[routes]]
source = \"artifactory.internal.company.net\"
destination = \"artifactory.public.company.net\"
[[routes]]
source = \"code.internal.company.net\"
destination = [\"203.0.113.7\", \"203.0.113.8\"]
[[routes]]
source = \"*.wild.company.net\"
destination = [\"203.0.113.7\", \"203.0.113.8\"]
";

/// The binary under test.
pub(crate) fn binary() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_redirector"))
}

/// A running field.
pub(crate) struct Field {
    agent: Option<Agent>,
    pub(crate) balancers: [LoadBalancer; 2],
    pub(crate) resolver: Resolver,
    /// Where guests ask it.
    pub(crate) nameserver: Ipv4Addr,
    _registry: Option<Registry>,
    _dns: DnsServer,
    // Last, as the namespaces must outlive their users.
    pub(crate) rig: Rig,
}

impl Field {
    /// Without a registry: connects are answered with the load balancer's name.
    pub(crate) fn new() -> Self {
        Self::prepared(CONFIG, false)
    }

    /// As [`Field::new`], with virtual addresses of both families.
    pub(crate) fn with_ipv6() -> Self {
        Self::prepared(&format!("{CONFIG}[pool]\nipv6 = \"fd00:198:18::/112\"\n"), false)
    }

    /// With the registry, for clients that speak TLS.
    pub(crate) fn with_registry() -> Self {
        Self::prepared(CONFIG, true)
    }

    fn prepared(config: &str, registry: bool) -> Self {
        let rig = Rig::new().unwrap();
        let dns = rig.customer.dns_server().unwrap();
        let resolver = rig.customer.resolver().unwrap();
        let registry = registry.then(|| rig.customer.registry().unwrap());
        let balancers = [1, 2].map(|number| rig.customer.load_balancer(number).unwrap());
        let agent = Agent::start(&rig.node, AgentOptions::with_config(binary(), config)).unwrap();
        Self {
            agent: Some(agent),
            balancers,
            resolver,
            nameserver: RESOLVER_ADDRESS,
            _registry: registry,
            _dns: dns,
            rig,
        }
    }

    /// Gives the agent away to a test that kills it.
    pub(crate) fn take_agent(&mut self) -> Agent {
        self.agent.take().unwrap()
    }

    /// The last lines of the agent's log.
    pub(crate) fn log_tail(&self) -> String {
        self.agent.as_ref().map(Agent::log_tail).unwrap_or_default()
    }

    /// A pod whose sockets no cgroup program sees.
    pub(crate) fn guest_pod(&self, name: &str) -> Executor {
        let options = ExecutorOptions {
            cgroup: Some(format!("system.slice/{name}.service")),
            resolv: resolv(),
            ..ExecutorOptions::pod(name)
        };
        self.with_programs(self.rig.executor(options).unwrap())
    }

    /// A pod in an attached cgroup.
    pub(crate) fn executor(&self, name: &str) -> Executor {
        let options = ExecutorOptions { resolv: resolv(), ..ExecutorOptions::pod(name) };
        self.with_programs(self.rig.executor(options).unwrap())
    }

    /// A process of the node's network in an attached cgroup.
    pub(crate) fn host_executor(&self, name: &str, resolv: ResolvConf) -> Executor {
        let network = Network::Host;
        let options = ExecutorOptions { resolv, network, ..ExecutorOptions::pod(name) };
        self.rig.executor(options).unwrap()
    }

    /// Waits until the agent has attached its programs to the interfaces of the node that are up,
    /// which takes it some milliseconds after an interface appears.
    #[track_caller]
    pub(crate) fn with_programs<T>(&self, guest: T) -> T {
        const WITHOUT: &str = "for i in $(ip -o link show up | cut -d: -f1); do \
            ls /sys/fs/bpf/redirector/v*/interfaces/$i/* >/dev/null 2>&1 || ip -o link show | \
            grep ^$i: ; done";
        let mut without = String::new();
        let node = self.rig.node.sandbox();
        let attached = process::until("programs on every interface", LIMIT, || {
            without = node.run(WITHOUT, LIMIT)?.stdout;
            Ok(without.is_empty())
        });
        attached.unwrap_or_else(|error| panic!("{error}: {without}\n{}", self.log_tail()));
        guest
    }

    /// The VIP of a mapped name, as the agent lists it.
    pub(crate) fn vip(&self, name: &str) -> Ipv4Addr {
        let listed = self.rig.node.cli_json(binary(), &["route", "list"]).unwrap();
        let source =
            name.strip_prefix("any.").map_or(name.to_owned(), |suffix| format!("*.{suffix}"));
        let routes = listed["routes"].as_array().unwrap_or_else(|| panic!("{listed}"));
        let route = routes.iter().find(|route| route["source"] == source.as_str());
        let vip = route.and_then(|route| route["vip"]["ipv4"].as_str());
        vip.unwrap_or_else(|| panic!("no VIP of {source}: {listed}")).parse().unwrap()
    }

    /// Look-ups of all names, mapped and unrelated, at `server`.
    pub(crate) fn lookups(&self, server: Ipv4Addr, rate: u32, seconds: f64) -> LookupOptions {
        let mapped =
            MAPPED.map(|name| Mapped { name: name.to_owned(), address: self.vip(name) }).to_vec();
        let unrelated = UNRELATED.map(str::to_owned).to_vec();
        LookupOptions { server: (server, 53).into(), rate, seconds, mapped, unrelated }
    }

    /// Asserts that the resolver was never asked for a mapped name, but was for others, and that no
    /// packet to the pool has left the node.
    #[track_caller]
    pub(crate) fn assert_contained(&self) {
        let names = self.resolver.names();
        for name in MAPPED {
            assert!(!names.contains_key(name), "the resolver was asked for {name}: {names:?}");
        }
        assert!(names.contains_key(UNRELATED[0]), "no other name passed: {names:?}");
        assert_eq!(self.rig.customer.leaked_packets().unwrap(), 0, "packets to the pool leaked");
    }

    /// Asserts that a guest is served: by every client of [`KINDS`] its names resolve, and its TLS
    /// connections carry the internal name. Then [`Field::assert_reaches`].
    #[track_caller]
    pub(crate) fn assert_serves(&mut self, guest: &dyn Guest, way: Way) {
        self.with_programs(());
        let programs = ClientPrograms::prepare(&self.rig.files().join("clients")).unwrap();
        let line = programs.line(INTERNAL_NAME, self.rig.customer.ca_path());
        let vip = self.vip(INTERNAL_NAME).to_string();
        let seen = self.run(guest, &line);
        let lines: Vec<&str> = seen.lines().collect();
        for kind in KINDS {
            let expected = match kind {
                "go" => format!("go {INTERNAL_NAME} 201"),
                _ => format!("{kind} {vip} 200"),
            };
            assert!(lines.contains(&expected.as_str()), "no `{expected}` in: {seen}");
        }
        self.assert_reaches(guest, way);
    }

    /// Asserts that all names have their answers, that connects reach a load balancer while the
    /// other one refuses or is silent, and that nothing of it has gone elsewhere.
    #[track_caller]
    pub(crate) fn assert_reaches(&mut self, guest: &dyn Guest, way: Way) {
        let report = look_up(guest, &self.lookups(self.nameserver, 60, 1.0));
        assert!(report.flawless(), "{report:?}\n{}", self.log_tail());
        self.assert_fails_over(guest, way);
        // A probe of the agent has no name.
        let admitted = self.balancers.iter().flat_map(|balancer| balancer.admitted());
        for name in admitted.filter_map(|connection| connection.server_name) {
            assert_eq!(name, INTERNAL_NAME);
        }
        self.assert_contained();
    }

    #[track_caller]
    fn assert_fails_over(&mut self, guest: &dyn Guest, way: Way) {
        // The load balancer's resets, then no answer at all.
        self.balancers[0].stop().unwrap();
        self.assert_connects(guest, way, "lb2");
        self.balancers[0].start_again().unwrap();
        self.await_eligible();
        self.rig.customer.silence(LOAD_BALANCERS[1]).unwrap();
        self.assert_connects(guest, way, "lb1");
        self.rig.customer.unsilence(LOAD_BALANCERS[1]).unwrap();
    }

    /// Waits until the agent has attached its programs to a cgroup of the node.
    #[track_caller]
    pub(crate) fn await_attached(&self, cgroup: &str) {
        let is_attached = || {
            let status = self.rig.node.cli_json(binary(), &["status"])?;
            let mut attachments =
                status["datapath"]["attachments"].as_array().into_iter().flatten();
            let path = format!("/sys/fs/cgroup/{cgroup}");
            Ok(attachments.any(|at| at["cgroup"] == path.as_str()))
        };
        process::until(cgroup, LIMIT, is_attached)
            .unwrap_or_else(|error| panic!("{error:#}\n{}", self.log_tail()));
    }

    /// Waits until the agent's probes have brought every backend back.
    #[track_caller]
    pub(crate) fn await_eligible(&self) {
        let all_eligible = || {
            let listed = self.rig.node.cli_json(binary(), &["route", "list"])?;
            let routes = listed["routes"].as_array().into_iter().flatten();
            let mut backends = routes.filter_map(|route| route["backends"].as_array()).flatten();
            Ok(backends.all(|backend| backend["state"] == "eligible"))
        };
        process::until("every backend to be eligible", LIMIT, all_eligible).unwrap();
    }

    /// Asserts that connects to the one load balancer that works are greeted by it.
    #[track_caller]
    fn assert_connects(&self, guest: &dyn Guest, way: Way, banner: &str) {
        let once = format!("curl -sS --max-time 20 http://{INTERNAL_NAME}:8080/");
        // A process whose connect is rewritten sees the failure of the backend that it was given.
        let once = match way {
            Way::Packet => once,
            Way::Cgroup => format!("{once} || {once} || {once}"),
        };
        let seen = self.run(guest, &format!("for i in 1 2 3 4 5 6; do {once}; done"));
        let greeted = seen.lines().filter(|line| *line == banner).count();
        assert_eq!(greeted, 6, "{seen}\n{}", self.log_tail());
        let errors = seen.lines().filter(|line| line.starts_with("curl:")).count();
        assert!(errors == 0 || way == Way::Cgroup, "{seen}");
    }

    /// Runs a line of shell in a guest; returns what it printed, whether it failed or not.
    #[track_caller]
    pub(crate) fn run(&self, guest: &dyn Guest, line: &str) -> String {
        guest.run(line, LIMIT).unwrap().text()
    }
}

/// What redirects a guest's connects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// The programs of its interface.
    Packet,
    /// The programs of its cgroup.
    Cgroup,
}

/// The guests' resolver.
pub(crate) fn resolv() -> ResolvConf {
    ResolvConf::of(&RESOLVER_ADDRESS.to_string())
}

/// A micro-VM behind a bridge, with busybox alone.
pub(crate) fn bare_vm() -> MicroVmOptions {
    MicroVmOptions {
        number: 2,
        resolv: resolv(),
        ca_pem: String::new(),
        programs: Vec::new(),
        wiring: Wiring::Bridge,
    }
}

/// The path of the test bed's client, or its name where it is installed.
pub(crate) fn client() -> String {
    binaries::client().unwrap().display().to_string()
}

/// Runs a load of look-ups in a guest.
#[track_caller]
pub(crate) fn look_up(guest: &dyn Guest, options: &LookupOptions) -> LookupReport {
    let limit = LIMIT + Duration::from_secs_f64(options.seconds);
    let finished = guest.run(&format!("{} {}", client(), options.arguments()), limit).unwrap();
    serde_json::from_str(&finished.stdout)
        .unwrap_or_else(|error| panic!("{error}: {}", finished.text()))
}
