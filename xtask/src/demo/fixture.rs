//! The fixture of the steps: a rig with every server, one executor and the agent.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::Value;
use testbed::{
    Agent, AgentOptions, Executor, ExecutorOptions, Rig,
    customer::{DnsServer, LoadBalancer, Registry},
    process, sample_artifacts,
    topology::INTERNAL_NAME,
    workspace,
};

use super::transcript::Transcript;

/// Everything that runs while the steps are played. Fields are dropped in this order.
pub(super) struct Fixture {
    /// The agent.
    pub(super) agent: Agent,
    /// The job.
    pub(super) executor: Executor,
    /// The two load balancers.
    pub(super) balancers: [LoadBalancer; 2],
    /// The registry behind them.
    pub(super) registry: Registry,
    _dns: DnsServer,
    /// The binary of the command line.
    binary: PathBuf,
    /// The identity of the image in the executor's `image` folder.
    pub(super) image: String,
    /// The rig that holds them.
    pub(super) rig: Rig,
}

impl Fixture {
    /// Starts everything, with a line for each part.
    pub(super) fn start(transcript: &Transcript, binary: &Path, config: &str) -> Result<Self> {
        let mut rig =
            transcript.prepare("namespaces, cgroup and links of node and customer", Rig::new)?;
        let dns = transcript.prepare(
            "customer: nsd answers artifactory.public.company.net with 203.0.113.7 and .8",
            || rig.customer.dns_server(),
        )?;
        let registry = transcript.prepare(
            "customer: docker-registry and pypiserver behind nginx with TLS, own CA",
            || rig.customer.registry(),
        )?;
        let balancers = transcript.prepare(
            "customer: two HAProxy pass-through load balancers that admit 198.51.100.1 and .2",
            || Ok([rig.customer.load_balancer(1)?, rig.customer.load_balancer(2)?]),
        )?;
        let folder = binary.parent().context("the binary has no folder")?;
        rig.node.sandbox_mut().add_to_path(folder);
        let agent = transcript.prepare(
            "node: redirector run, as root with CAP_BPF, CAP_NET_ADMIN, CAP_NET_BIND_SERVICE only",
            || Agent::start(&rig.node, AgentOptions::with_config(binary, config)),
        )?;
        let (executor, image) = transcript.prepare(
            "node: an executor, cgroup kubepods/podjob, own network, resolver 169.254.20.53",
            || {
                let executor = rig.executor(ExecutorOptions::pod("job"))?;
                let image = sample_artifacts::image(&executor.sandbox().home().join("image"))?;
                Ok((executor, image))
            },
        )?;
        Ok(Self {
            agent,
            executor,
            balancers,
            registry,
            _dns: dns,
            binary: binary.to_owned(),
            image,
            rig,
        })
    }

    /// The route, from `redirector route show -o json`.
    pub(super) fn route(&self) -> Result<Value> {
        let shown = self.rig.node.cli_json(&self.binary, &["route", "show", INTERNAL_NAME])?;
        Ok(shown["route"].clone())
    }

    /// The route's virtual address.
    pub(super) fn vip(&self) -> Result<Ipv4Addr> {
        let route = self.route()?;
        let text = route["vip"]["ipv4"]
            .as_str()
            .with_context(|| format!("the route has no virtual address: {route}"))?;
        text.parse().with_context(|| format!("failed to parse the virtual address {text}"))
    }

    /// The virtual address with a port.
    pub(super) fn vip_at(&self, port: u16) -> Result<SocketAddr> {
        Ok(SocketAddr::from((self.vip()?, port)))
    }

    /// Whether the kernel has ejected this backend.
    pub(super) fn is_ejected(&self, address: Ipv4Addr) -> Result<bool> {
        let route = self.route()?;
        let backends = route["backends"].as_array().into_iter().flatten();
        let state = backends
            .filter(|backend| backend["address"] == address.to_string())
            .map(|backend| backend["state"] == "ejected" || backend["ejections"].is_array())
            .next();
        state.with_context(|| format!("the route has no backend {address}: {route}"))
    }

    /// Waits until this backend is eligible again.
    pub(super) fn wait_eligible(&self, address: Ipv4Addr, limit: Duration) -> Result<()> {
        process::until(&format!("{address} is eligible again"), limit, || {
            std::thread::sleep(Duration::from_millis(100));
            Ok(!self.is_ejected(address)?)
        })
    }
}

/// The binary to demonstrate.
pub(super) fn find_binary(named: Option<&Path>) -> Result<PathBuf> {
    let path = named.map(Path::to_owned).unwrap_or_else(workspace::release_binary);
    path.canonicalize()
        .with_context(|| format!("failed to find {}: `cargo xtask build` makes it", path.display()))
}
