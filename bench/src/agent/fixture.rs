//! The fixture: a node with the agent, an executor that connects, and a server on the node.

use std::{
    fs,
    io::{Read, Write},
    net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4, TcpStream},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use testbed::{Agent, AgentOptions, Executor, ExecutorOptions, Rig, customer::DnsServer, process};

use super::cgroups::{self, FOLDER};
use crate::{
    host,
    worker::{Batch, Operation, Worker},
};

/// Longest time of a command: importing a full pool creates 65,534 leases.
const IMPORT_LIMIT: Duration = Duration::from_secs(120);
/// Within this time after a command the agent is idle and has returned free memory.
const SETTLED: Duration = Duration::from_secs(3);
/// The agent's admin listener, in the node's namespace.
const ADMIN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 9464);

/// A node with the agent, an executor that connects, and a server on the node.
pub(super) struct Fixture {
    client: Worker,
    vip: Ipv4Addr,
    port: u16,
    pub(super) agent: Agent,
    _server: Worker,
    _executor: Executor,
    _dns: DnsServer,
    files: PathBuf,
    binary: PathBuf,
    rig: Rig,
}

impl Fixture {
    /// An agent with one route, whose state is on the disk of temporary files, or in memory.
    pub(super) fn new(binary: &Path, on_disk: bool) -> Result<Self> {
        let rig = Rig::new()?;
        let state = if on_disk {
            rig.files().join("state")
        } else {
            PathBuf::from("/run/redirector-state")
        };
        let state = state.display();
        // The upstream must answer: a silent one would be retried all the time.
        let dns = rig.customer.dns_server()?;
        let executor = rig.executor(ExecutorOptions::pod("job"))?;
        let (server, port) = Worker::server(rig.node.sandbox(), 0)?;
        // The benchmark changes overrides of routes.
        let config = format!(
            "[agent]\nstate_dir = \"{state}\"\n[attach]\ncgroups = [\"auto\", \
                \"{FOLDER}/*\"]\n[dns]\nupstreams = [\"203.0.113.53:53\"]\n"
        );
        let agent = Agent::start(&rig.node, AgentOptions::with_config(binary, &config))?;
        let client = Worker::client(executor.sandbox(), 0)?;
        let files = rig.files().to_owned();
        let mut fixture = Self {
            client,
            vip: Ipv4Addr::UNSPECIFIED,
            port,
            agent,
            _server: server,
            _executor: executor,
            _dns: dns,
            files,
            binary: binary.to_owned(),
            rig,
        };
        fixture.fill(1)?;
        let route = fixture.rig.node.cli_json(binary, &["route", "show", &source(0)])?;
        let vip = route["route"]["vip"]["ipv4"]
            .as_str()
            .with_context(|| format!("the route has no address: {route}"))?;
        fixture.vip = vip.parse().with_context(|| format!("failed to parse the address {vip}"))?;
        Ok(fixture)
    }

    /// How soon single cgroups are attached: see [`cgroups::attach_times`].
    pub(super) fn attach_times(&self, count: usize) -> Result<Vec<f64>> {
        cgroups::attach_times(self.rig.node.sandbox(), count)
    }

    /// How soon many cgroups are attached: see [`cgroups::burst_time`].
    pub(super) fn burst_time(&self, count: usize) -> Result<f64> {
        cgroups::burst_time(self.rig.node.sandbox(), count)
    }

    /// Replaces all routes with `number` new ones.
    pub(super) fn fill(&self, number: u32) -> Result<()> {
        let routes: Vec<Value> = (0..number)
            .map(|number| json!({ "source": source(number), "destination": ["10.61.1.1"] }))
            .collect();
        let file = self.files.join("routes.json");
        fs::write(&file, json!({ "routes": routes }).to_string())
            .with_context(|| format!("failed to write {}", file.display()))?;
        let mut import = self.rig.node.command(&self.binary);
        import.args(["route", "import", "--replace", "-o", "json"]).arg(&file);
        process::finish(import, IMPORT_LIMIT)?
            .success()
            .with_context(|| format!("failed to import {number} routes"))?;
        Ok(())
    }

    /// Changes a route `count` times; returns the milliseconds of each command, from its start to
    /// its end. Each change allows a connect that was refused before, and the next connect must
    /// succeed.
    pub(super) fn changes(&mut self, count: usize) -> Result<Vec<f64>> {
        let mut times = Vec::with_capacity(count);
        for number in 0..count {
            let listed = 1000 + (number % 2) as u16;
            let mut change = self.rig.node.command(&self.binary);
            change.args(["route", "set", &source(0), "--port", &format!("{listed}:{}", self.port)]);
            let finished = process::finish(change, IMPORT_LIMIT)?
                .success()
                .context("failed to change a route")?;
            times.push(finished.took.as_secs_f64() * 1e3);
            let batch = Batch {
                operation: Operation::Tcp,
                count: 1,
                target: SocketAddrV4::new(self.vip, listed),
                spread: 1,
            };
            self.client.run(batch).context("the change was not live for the next connect")?;
        }
        Ok(times)
    }

    /// The result of `work`, and the agent's processor time for each of its `count` parts, in
    /// milliseconds.
    pub(super) fn with_cpu_time<T>(
        &mut self,
        count: usize,
        work: impl FnOnce(&mut Self) -> Result<T>,
    ) -> Result<(T, f64)> {
        let before = host::cpu_time(self.agent.pid())?;
        let result = work(self)?;
        let spent = host::cpu_time(self.agent.pid())? - before;
        Ok((result, spent / 1e3 / count as f64))
    }

    /// Milliseconds of the disk's part of a change: a line of the journal, written into a
    /// preallocated file, and synced.
    pub(super) fn sync_times(&self, count: usize) -> Result<Vec<f64>> {
        const LINE: [u8; 512] = [b'x'; 512];
        let path = self.files.join("journal");
        fs::write(&path, vec![0; LINE.len() * count])
            .with_context(|| format!("failed to write {}", path.display()))?;
        let file = fs::File::options()
            .write(true)
            .open(&path)
            .with_context(|| format!("failed to open {}", path.display()))?;
        file.sync_all().with_context(|| format!("failed to sync {}", path.display()))?;
        let timed = |number| {
            let began = Instant::now();
            let written = file
                .write_all_at(&LINE, (number * LINE.len()) as u64)
                .and_then(|()| file.sync_data());
            written.with_context(|| format!("failed to write and sync {}", path.display()))?;
            Ok(began.elapsed().as_secs_f64() * 1e3)
        };
        (0..count).map(timed).collect()
    }

    /// The share of a core that the idle agent uses, in percent.
    pub(super) fn idle_percent(&self, length: Duration) -> Result<f64> {
        thread::sleep(SETTLED);
        let before = host::cpu_time(self.agent.pid())?;
        let began = Instant::now();
        thread::sleep(length);
        let spent = host::cpu_time(self.agent.pid())? - before;
        Ok(spent / began.elapsed().as_micros() as f64 * 100.0)
    }

    /// Resident memory in MiB, after the agent has returned free memory to the kernel.
    pub(super) fn resident_mib(&self) -> f64 {
        thread::sleep(SETTLED);
        host::resident_kib(self.agent.pid()) as f64 / 1024.0
    }

    /// Milliseconds that each scrape took, from connect to the last byte.
    pub(super) fn scrapes(&mut self, count: usize) -> Result<Vec<f64>> {
        self.rig.node.sandbox().namespaces().run(|| (0..count).map(|_| scrape()).collect())?
    }
}

fn scrape() -> Result<f64> {
    let began = Instant::now();
    let mut stream =
        TcpStream::connect(ADMIN).context("failed to connect to the admin listener")?;
    stream
        .write_all(b"GET /metrics HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
        .context("failed to request metrics")?;
    let mut page = String::new();
    stream.read_to_string(&mut page).context("failed to read metrics")?;
    let took = began.elapsed().as_secs_f64() * 1e3;
    ensure!(
        page.ends_with("# EOF\n") && page.matches("redirector_route_live{").count() == 1000,
        "not the metrics of 1,000 routes: {page}"
    );
    Ok(took)
}

fn source(number: u32) -> String {
    format!("r{number}.internal.company.net")
}
