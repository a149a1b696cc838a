//! The redirector: an agent on the node, and a client in an attached cgroup.

use std::{
    fs,
    net::{Ipv4Addr, SocketAddrV4},
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result};
use serde_json::{Value, json};
use testbed::{Agent, AgentOptions, Executor, Sandbox, process, topology::DNS_ADDRESS};

use super::{
    bpf_maps,
    peer::{FIRST_VIP, Peer, RESTART_DELAY, Routes},
    site::Site,
};
use crate::lookup::name;

/// Longest time of a command: importing a full pool creates 65,534 leases, which takes a debug
/// build a minute.
const LIMIT: Duration = Duration::from_secs(180);

/// A client whose connects are redirected.
pub(crate) struct Redirector {
    port: u16,
    /// Addresses that the pool can lease.
    pool: u32,
    routes: u32,
    binary: PathBuf,
    files: PathBuf,
    node: Sandbox,
    agent: Agent,
    executor: Executor,
}

impl Redirector {
    /// Starts the agent, with a pool just large enough for so many routes. It must have the site's
    /// first executor.
    pub(crate) fn new(site: &Site, binary: &Path, routes: u32) -> Result<Self> {
        let executor = site.executor("ours")?;
        let size = (routes + 2).next_power_of_two().max(256);
        // No program looks at the packets of the peers' interfaces.
        let config = format!(
            "[attach]\ncgroups = [\"kubepods/podours\"]\ninterfaces = [\"pod1\"]\n\
             [pool]\nipv4 = \"198.18.0.0/{}\"\n[dns]\nupstreams = [\"{DNS_ADDRESS}:53\"]\n",
            32 - size.trailing_zeros()
        );
        let agent = Agent::start(&site.rig.node, AgentOptions::with_config(binary, &config))?;
        Ok(Self {
            port: site.port,
            pool: size - 2,
            routes: 0,
            binary: binary.to_owned(),
            files: site.rig.files().to_owned(),
            node: site.rig.node.sandbox().clone(),
            agent,
            executor,
        })
    }

    fn run(&self, arguments: &[&str]) -> Result<String> {
        let mut command = self.node.command(&self.binary);
        command.args(arguments);
        Ok(process::finish(command, LIMIT)?
            .success()
            .with_context(|| format!("failed to run `redirector {}`", arguments.join(" ")))?
            .stdout)
    }

    fn vip(&self, number: u32) -> Result<Ipv4Addr> {
        let shown = self.run(&["route", "show", &name(number), "-o", "json"])?;
        let route: Value = serde_json::from_str(&shown).context("failed to parse a route")?;
        route["route"]["vip"]["ipv4"]
            .as_str()
            .and_then(|vip| vip.parse().ok())
            .with_context(|| format!("the route {number} has no address: {route}"))
    }
}

impl Peer for Redirector {
    fn label(&self) -> &'static str {
        "redirector"
    }

    fn sandbox(&self) -> &Sandbox {
        self.executor.sandbox()
    }

    /// More than one route fill the pool, so that every address has one.
    fn load(&mut self, routes: Routes) -> Result<()> {
        self.routes = if routes.count > 1 { self.pool } else { 1 };
        let list: Vec<Value> = (0..self.routes)
            .map(|number| json!({ "source": name(number), "destination": routes.backends }))
            .collect();
        let file = self.files.join("peer-routes.json");
        fs::write(&file, json!({ "routes": list }).to_string())
            .with_context(|| format!("failed to write {}", file.display()))?;
        let file = file.to_str().context("the path of a folder is not UTF-8")?;
        self.run(&["route", "import", "--replace", "-o", "json", file]).map(drop)
    }

    fn target(&self, number: u32) -> Result<SocketAddrV4> {
        Ok(SocketAddrV4::new(self.vip(number)?, self.port))
    }

    fn spread(&self) -> u32 {
        self.routes
    }

    fn first_target(&self) -> SocketAddrV4 {
        SocketAddrV4::new(FIRST_VIP, self.port)
    }

    /// Answered in the kernel, whichever resolver is asked.
    fn resolver(&self) -> Option<SocketAddrV4> {
        DNS_ADDRESS.parse().ok().map(|address| SocketAddrV4::new(address, 53))
    }

    fn change(&mut self, number: u32, backend: Ipv4Addr) -> Result<()> {
        let destination = backend.to_string();
        self.run(&["route", "set", &name(number), "--destination", &destination]).map(drop)
    }

    /// The service is restarted.
    fn upgrade(&mut self) -> Result<()> {
        self.agent.sigterm()?;
        self.agent.restart()
    }

    fn crash(&mut self) -> Result<()> {
        self.agent.sigkill()?;
        thread::sleep(RESTART_DELAY);
        self.agent.restart()
    }

    fn pids(&self) -> Vec<u32> {
        vec![self.agent.pid()]
    }

    fn map_bytes(&self) -> Result<u64> {
        bpf_maps::bytes_of_process(self.agent.pid())
    }
}
