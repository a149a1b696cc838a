//! The place of a soak: a customer, a node with the agent, clients and tenants.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result};
use testbed::customer::{BannerServer, DnsServer, EchoServer, LoadBalancer, Resolver};
use testbed::topology::{INTERNAL_NAME, LOAD_BALANCERS, RESOLVER_ADDRESS};
use testbed::{Agent, AgentOptions, Executor, ExecutorOptions, Network, ResolvConf, Rig, process};

use crate::profile::Profile;

/// Longest time of a command on the node.
pub(crate) const LIMIT: Duration = Duration::from_secs(60);
/// The port of the load balancers' greeting.
pub(crate) const PORT: u16 = 8080;
/// Their port that leads to the server of kept connections.
pub(crate) const HELD: u16 = 443;
/// A port that no route lists.
pub(crate) const UNLISTED: u16 = 81;
/// The shim.
pub(crate) const SHIM: Ipv4Addr = Ipv4Addr::new(169, 254, 20, 53);
/// The shim's upstreams, of which the first is the clients' resolver.
pub(crate) const UPSTREAMS: [Ipv4Addr; 2] = [RESOLVER_ADDRESS, Ipv4Addr::new(203, 0, 113, 55)];
/// A resolver that never answers.
pub(crate) const SILENT: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 56);
/// A server that has nothing to do with any route.
pub(crate) const BYSTANDER: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 20);
/// The route that tenants use.
pub(crate) const TENANTS_NAME: &str = "code.internal.company.net";

/// The agent's state, in a file system that can be filled.
pub(crate) const STATE: &str = "/run/state";

const ROUTES: &str = "\
[health]
probe_interval = \"1s\"
[[routes]]
source = \"artifactory.internal.company.net\"
destination = \"artifactory.public.company.net\"
resolver = \"203.0.113.53:53\"
ports = [\"8080\", \"443\"]
[[routes]]
source = \"code.internal.company.net\"
destination = [\"203.0.113.7\", \"203.0.113.8\"]
ports = [\"8080\"]
";

/// Thousands of connects a second through one address translation would use up its ports, and the
/// servers' sockets that wait for late segments would refuse a port that is used again.
///
/// The node drops false source addresses: otherwise its connection tracking takes later connects of
/// a guest for invalid whose address a tenant has used, redirected or not.
const NODE_SETTINGS: &str = "sysctl -qw net.netfilter.nf_conntrack_tcp_timeout_time_wait=5 \
    net.netfilter.nf_conntrack_tcp_timeout_close=5 net.netfilter.nf_conntrack_udp_timeout=5 \
    net.ipv4.ip_local_port_range='1024 65535' net.ipv4.tcp_tw_reuse=1 \
    net.ipv4.conf.all.rp_filter=1 && \
    mkdir -p /run/state && mount -t tmpfs -o size=4m,mode=0755 soak /run/state";

/// A place to connect and to look names up from.
#[derive(Debug)]
pub(crate) struct Place {
    pub(crate) name: &'static str,
    pub(crate) executor: Executor,
    /// Whether it is in an attached cgroup.
    pub(crate) attached: bool,
}

/// The VIPs of a field's routes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Vips {
    /// Of the route under observation.
    pub(crate) observed: Ipv4Addr,
    /// Of the tenants'.
    pub(crate) tenants: Ipv4Addr,
}

/// The place of a soak. What faults change is locked; the schedule lets no two faults use one thing
/// at a time.
#[derive(Debug)]
pub(crate) struct Field {
    pub(crate) agent: Mutex<Agent>,
    pub(crate) balancers: [Mutex<LoadBalancer>; 2],
    pub(crate) dns: Mutex<DnsServer>,
    pub(crate) clients: Vec<Place>,
    /// A pod in an attached cgroup.
    pub(crate) tenant: Executor,
    /// A pod that no cgroup program sees.
    pub(crate) stranger: Executor,
    /// A process of the node's network.
    pub(crate) neighbour: Executor,
    pub(crate) binary: PathBuf,
    /// The VIPs of both routes, which never change.
    pub(crate) vips: Vips,
    _upstreams: [Resolver; 2],
    _bystander: BannerServer,
    _echo: EchoServer,
    // Last, as the namespaces must outlive their users.
    pub(crate) rig: Rig,
}

impl Field {
    /// Makes it, and starts everything but the clients.
    pub(crate) fn new(profile: Profile, binary: &Path) -> Result<Self> {
        let rig = Rig::new()?;
        rig.node.sandbox().run(NODE_SETTINGS, LIMIT)?.success().context("on the node")?;
        let more = [UPSTREAMS[1], BYSTANDER, SILENT]
            .map(|address| format!("ip addr add {address}/24 dev public"));
        let settings = "sysctl -qw net.ipv4.tcp_max_tw_buckets=0 net.core.somaxconn=8192";
        let line = format!("{} && {settings}", more.join(" && "));
        rig.customer.sandbox().run(&line, LIMIT)?.success().context("at the customer's")?;
        rig.customer.silence(SILENT)?;
        let upstreams =
            [rig.customer.resolver_at(UPSTREAMS[0])?, rig.customer.resolver_at(UPSTREAMS[1])?];
        let bystander = rig.customer.banner_server((BYSTANDER, PORT).into(), "bystander")?;
        let echo = rig.customer.echo_server()?;
        let dns = Mutex::new(rig.customer.dns_server()?);
        let balancers = [
            Mutex::new(rig.customer.load_balancer(1)?),
            Mutex::new(rig.customer.load_balancer(2)?),
        ];
        let clients = places(profile, &rig)?;
        let pod = |name: &str| rig.executor(options(name, true, Network::Pod));
        let (tenant, neighbour) =
            (pod("tenant")?, rig.executor(options("neighbour", true, Network::Host))?);
        let stranger = rig.executor(options("stranger", false, Network::Pod))?;
        // As systemd does.
        let options = AgentOptions {
            keeps_sockets: true,
            ..AgentOptions::with_config(binary, &config(profile))
        };
        let agent = Agent::start(&rig.node, options)?;
        let mut field = Self {
            agent: Mutex::new(agent),
            balancers,
            dns,
            clients,
            tenant,
            stranger,
            neighbour,
            binary: binary.to_owned(),
            vips: Vips { observed: Ipv4Addr::UNSPECIFIED, tenants: Ipv4Addr::UNSPECIFIED },
            _upstreams: upstreams,
            _bystander: bystander,
            _echo: echo,
            rig,
        };
        field.await_serving()?;
        field.vips = Vips { observed: field.vip(OBSERVED)?, tenants: field.vip(TENANTS_NAME)? };
        Ok(field)
    }

    /// The VIP of a route.
    pub(crate) fn vip(&self, source: &str) -> Result<Ipv4Addr> {
        let listed = self.route(source)?;
        let vip = listed["vip"]["ipv4"].as_str().with_context(|| format!("no VIP: {listed}"))?;
        vip.parse().with_context(|| format!("no address: {vip}"))
    }

    /// A route, as `redirector route list -o json` shows it.
    pub(crate) fn route(&self, source: &str) -> Result<serde_json::Value> {
        let listed = self.rig.node.cli_json(&self.binary, &["route", "list"])?;
        let routes = listed["routes"].as_array().into_iter().flatten();
        routes
            .into_iter()
            .find(|route| route["source"] == source)
            .cloned()
            .with_context(|| format!("no route {source}: {listed}"))
    }

    /// Runs `redirector` on the node, which must succeed.
    pub(crate) fn cli(&self, arguments: &[&str]) -> Result<()> {
        let done = self.rig.node.cli(&self.binary, arguments)?;
        done.success().with_context(|| format!("redirector {}", arguments.join(" ")))?;
        Ok(())
    }

    /// Runs a line of shell on the node, which must succeed.
    pub(crate) fn on_node(&self, line: &str) -> Result<()> {
        let done = self.rig.node.sandbox().run(line, LIMIT)?;
        done.success().with_context(|| line.to_owned())?;
        Ok(())
    }

    /// The address of an executor's own interface.
    pub(crate) fn address(executor: &Executor) -> Result<Ipv4Addr> {
        let line = "ip -4 -o addr show dev eth0 | awk '{ sub(\"/.*\", \"\", $4); print $4 }'";
        let shown = executor.run(line, LIMIT)?.success()?.stdout;
        shown.trim().parse().with_context(|| format!("no address: {shown}"))
    }

    /// Every server that is beyond the uplink.
    pub(crate) fn beyond_the_uplink() -> Vec<Ipv4Addr> {
        let dns = Ipv4Addr::new(203, 0, 113, 53);
        [&LOAD_BALANCERS[..], &UPSTREAMS[..], &[dns, BYSTANDER]].concat()
    }

    /// The last lines of the agent's log.
    pub(crate) fn log_tail(&self) -> String {
        self.agent.lock().map(|agent| agent.log_tail()).unwrap_or_default()
    }

    /// Waits until `status` is healthy and each client's place is served.
    pub(crate) fn await_serving(&self) -> Result<()> {
        let mut last = String::new();
        let healthy = process::until("a healthy status", LIMIT, || {
            let status = self.rig.node.cli_json(&self.binary, &["status"])?;
            last = status["problems"].to_string();
            Ok(status["state"] == "ok" && !status["routes"].to_string().contains("\"ejected\""))
        });
        healthy.with_context(|| format!("{last}\n{}", self.log_tail()))
    }
}

/// Locks what no panic leaves in disorder.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The clients' places: a pod in an attached cgroup, one that no cgroup program sees, and a process
/// of the node's network.
fn places(profile: Profile, rig: &Rig) -> Result<Vec<Place>> {
    let mut places = Vec::new();
    for (name, attached, network) in
        [("pod", true, Network::Pod), ("guest", false, Network::Pod), ("host", true, Network::Host)]
    {
        // Interception at sockets serves attached cgroups only.
        if attached || !profile.at_sockets() {
            let executor = rig.executor(options(name, attached, network))?;
            places.push(Place { name, executor, attached });
        }
    }
    Ok(places)
}

pub(crate) fn options(name: &str, attached: bool, network: Network) -> ExecutorOptions {
    ExecutorOptions {
        resolv: ResolvConf::of(&RESOLVER_ADDRESS.to_string()),
        network,
        cgroup: (!attached).then(|| format!("system.slice/{name}.service")),
        ..ExecutorOptions::pod(name)
    }
}

fn config(profile: Profile) -> String {
    let upstreams = UPSTREAMS.map(|address| format!("\"{address}:53\"")).join(", ");
    let intercept = if profile.at_sockets() {
        format!(
            "intercept = \"sockets\"\nintercept_resolvers = [\"{}\", \"{SILENT}\"]\n",
            UPSTREAMS[0]
        )
    } else {
        String::new()
    };
    format!(
        "wildcards = \"one_label\"\n[agent]\nstate_dir = \"{STATE}\"\n\
         [dns]\nupstreams = [{upstreams}]\n{intercept}{ROUTES}"
    )
}

/// The server and port of the shim.
pub(crate) fn shim() -> SocketAddr {
    (SHIM, 53).into()
}

/// The name whose route is under observation.
pub(crate) const OBSERVED: &str = INTERNAL_NAME;
