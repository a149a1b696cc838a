//! The fixture: a node with the agent, clients in cgroups of their own, and the server at the other
//! end of their veth pair.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use testbed::service::Service;
use testbed::{Agent, AgentOptions, Executor, ExecutorOptions, Rig, Sandbox, packages, process};

use super::{
    baseline::Baseline,
    bpf,
    client::{self, Client, configuration, source},
    variants::ClientKind,
};
use crate::{
    options::FULL_POOL,
    peers::cgroup_programs::{Attached, attach_empty, cgroup},
    worker::{self, Worker},
};

/// The first leased address of the pool. The nftables peer translates it too.
pub(super) const FIRST_VIP: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 1);
/// The number of the route with two backends.
const TWO_BACKENDS: u32 = 1;
/// Where HAProxy listens beside its client.
const PROXY: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::LOCALHOST, 18_000);
/// Longest time of a command: importing a full pool creates 65,534 leases, which takes a debug
/// build a minute.
const IMPORT_LIMIT: Duration = Duration::from_secs(180);

/// Everything that runs during the measurements. Fields are dropped in this order.
pub(super) struct Fixture {
    /// No program attached.
    bare: Client,
    /// Programs that do nothing.
    empty: Client,
    /// As `empty`, but with socket storage made at each connect.
    storage: Client,
    /// As `storage`, but with an entry of a hash table.
    hash_entry: Client,
    /// The redirector; the route has one backend.
    ours: Client,
    /// The redirector, with a route of two backends; it has none before the pool is full.
    two: Client,
    /// The kernel's own address translation, by nftables.
    dnat: Client,
    /// A proxy beside the client.
    proxy: Client,
    /// Another build, if the run compares with one.
    baseline: Option<Baseline>,
    _server: Worker,
    _haproxy: Service,
    _attached: [Attached; 3],
    _agent: Agent,
    _executors: [Executor; 3],
    files: std::path::PathBuf,
    binary: std::path::PathBuf,
    rig: Rig,
}

impl Fixture {
    /// Starts everything with one route; measured processes run on `core`.
    pub(super) fn new(binary: &Path, baseline: Option<&Path>, core: usize) -> Result<Self> {
        let rig = Rig::new()?;
        client::prepare_node(&rig)?;
        let [first, second, third] =
            ["ours", "dnat", "proxy"].map(|name| rig.executor(ExecutorOptions::pod(name)));
        let executors = [first?, second?, third?];
        let (server, port) = Worker::server(rig.node.sandbox(), core)?;
        let agent = Agent::start(&rig.node, AgentOptions::with_config(binary, &configuration()))?;
        let files = rig.files().to_owned();
        let at = |number: u8| SocketAddrV4::new(Ipv4Addr::new(10, 61, number, 1), port);

        // The clients of different cgroups share one namespace.
        client::prohibit_port(&executors[0])?;
        let beside = |name: &str| executors[0].beside(&format!("kubepods/pod{name}"));
        let (bare, empty) = (beside("bare")?, beside("empty")?);
        let (storage, hash_entry) = (beside("storage")?, beside("hashentry")?);
        let attached = [
            attach_empty(&cgroup(&empty)?)?,
            bpf::attach_storage(&cgroup(&storage)?)?,
            bpf::attach_hash_entry(&cgroup(&hash_entry)?)?,
        ];

        translate(executors[1].sandbox(), at(2))?;
        let haproxy = haproxy(executors[2].outside(), at(3), core)?;
        let translated = SocketAddrV4::new(FIRST_VIP, port);
        let client =
            |sandbox: &Sandbox, server, indirect| Client::start(sandbox, core, server, indirect);
        let own = SocketAddrV4::new(vip(&rig, binary, 0)?, port);
        Ok(Self {
            bare: client(&bare, at(1), at(1))?,
            empty: client(&empty, at(1), at(1))?,
            storage: client(&storage, at(1), at(1))?,
            hash_entry: client(&hash_entry, at(1), at(1))?,
            ours: client(executors[0].sandbox(), at(1), own)?,
            two: client(executors[0].sandbox(), at(1), own)?,
            dnat: client(executors[1].sandbox(), at(2), translated)?,
            proxy: client(executors[2].sandbox(), at(3), PROXY)?,
            baseline: baseline.map(|binary| Baseline::new(binary, core)).transpose()?,
            _server: server,
            _haproxy: haproxy,
            _attached: attached,
            _agent: agent,
            _executors: executors,
            files,
            binary: binary.to_owned(),
            rig,
        })
    }

    /// The client of this kind.
    pub(super) fn client(&mut self, kind: ClientKind) -> Result<&mut Client> {
        Ok(match kind {
            ClientKind::Bare => &mut self.bare,
            ClientKind::Empty => &mut self.empty,
            ClientKind::Storage => &mut self.storage,
            ClientKind::HashEntry => &mut self.hash_entry,
            ClientKind::Redirector => &mut self.ours,
            ClientKind::TwoBackends => &mut self.two,
            ClientKind::Dnat => &mut self.dnat,
            ClientKind::Proxy => &mut self.proxy,
            ClientKind::Baseline => {
                &mut self.baseline.as_mut().context("there is no baseline")?.client
            }
        })
    }

    /// Fills the pool with routes: one of two backends, the others of one.
    pub(super) fn fill(&mut self) -> Result<()> {
        let addresses = ["10.61.1.1", "10.61.2.1"];
        let destination = |number| &addresses[..if number == TWO_BACKENDS { 2 } else { 1 }];
        let routes: Vec<Value> = (0..FULL_POOL)
            .map(|number| json!({ "source": source(number), "destination": destination(number) }))
            .collect();
        let file = self.files.join("routes.json");
        std::fs::write(&file, json!({ "routes": routes }).to_string())
            .with_context(|| format!("failed to write {}", file.display()))?;
        let mut import = self.rig.node.command(&self.binary);
        import.args(["route", "import", "--replace", "-o", "json"]).arg(&file);
        process::finish(import, IMPORT_LIMIT)?
            .success()
            .context("failed to fill the pool with routes")?;
        let last = vip(&self.rig, &self.binary, FULL_POOL - 1)?;
        ensure!(
            last != *self.ours.indirect.ip(),
            "two of {FULL_POOL} routes have one address, {last}"
        );
        self.two.indirect.set_ip(vip(&self.rig, &self.binary, TWO_BACKENDS)?);
        Ok(())
    }
}

/// The address of a route.
fn vip(rig: &Rig, binary: &Path, number: u32) -> Result<Ipv4Addr> {
    let route = rig.node.cli_json(binary, &["route", "show", &source(number)])?["route"].clone();
    let text = route["vip"]["ipv4"]
        .as_str()
        .with_context(|| format!("the route {number} has no address: {route}"))?;
    text.parse().with_context(|| format!("failed to parse the address {text}"))
}

/// Translates connects to the pool's first address in the client's namespace, as the service proxy
/// of a Kubernetes node does.
fn translate(sandbox: &Sandbox, server: SocketAddrV4) -> Result<()> {
    let rules = format!(
        "table ip peer {{ chain output {{ type nat hook output priority -100; ip daddr \
            {FIRST_VIP} tcp dport {} dnat to {server}\n }}\n }}\n",
        server.port()
    );
    let mut nft = sandbox.command(packages::path_of("nft")?);
    nft.args(["-f", "-"]);
    process::finish_with_input(nft, rules.as_bytes(), IMPORT_LIMIT)?
        .success()
        .context("failed to set up nftables")?;
    Ok(())
}

fn haproxy(sandbox: &Sandbox, server: SocketAddrV4, core: usize) -> Result<Service> {
    let config = sandbox.home().join("haproxy.cfg");
    let text = format!(
        "global\n  maxconn 4000\n  nbthread 1\n\
         defaults\n  mode tcp\n\
         \u{20} timeout connect 3s\n  timeout client 60s\n  timeout server 60s\n\
         listen peer\n  bind {PROXY}\n  server one {server}\n"
    );
    std::fs::write(&config, text)
        .with_context(|| format!("failed to write {}", config.display()))?;
    let mut command = sandbox.command(packages::path_of("haproxy")?);
    command.arg("-db").arg("-f").arg(&config);
    worker::pin(&mut command, core);
    let mut service = Service::start("haproxy", &sandbox.home().join("haproxy.log"), command)?;
    service.wait_ready(Duration::from_secs(10), || {
        sandbox.namespaces().run(|| {
            std::net::TcpStream::connect_timeout(&PROXY.into(), Duration::from_millis(500)).is_ok()
        })
    })?;
    Ok(service)
}
