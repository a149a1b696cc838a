//! The configuration as it is written: which keys there are and of which type, nothing about what
//! they mean.

use serde::Serialize;

use super::settings::{CgroupSpec, Config, DnsClients, InterfaceSpec, Upstream};
use crate::{
    route::{RawRoute, Route},
    spanned::{DocumentReader, Spanned, TableReader, scalar::format_duration},
};

/// The file's shape. It is written by serde, but read key by key, since serde stops at the first
/// problem.
#[derive(Debug, Default, Serialize)]
pub(super) struct RawConfig {
    /// What `*` means in sources.
    pub(super) wildcards: Option<String>,
    pub(super) agent: RawAgent,
    pub(super) attach: RawAttach,
    pub(super) pool: RawPool,
    pub(super) dns: RawDns,
    pub(super) health: RawHealth,
    pub(super) datapath: RawDatapath,
    /// Only for writing: routes are read by [`crate::route`].
    routes: Vec<RawRoute>,
}

#[derive(Debug, Default, Serialize)]
pub(super) struct RawAgent {
    pub(super) state_dir: Option<String>,
    pub(super) run_dir: Option<String>,
    pub(super) bpffs: Option<String>,
    pub(super) admin: Option<String>,
}

#[derive(Debug, Default, Serialize)]
pub(super) struct RawAttach {
    pub(super) cgroups: Option<Vec<String>>,
    pub(super) namespaces: Option<Vec<String>>,
    pub(super) pod_names: Option<Vec<String>>,
    pub(super) pod_labels: Option<Vec<String>>,
    pub(super) interfaces: Option<RawInterfaces>,
}

#[derive(Debug, Serialize)]
#[serde(untagged)]
pub(super) enum RawInterfaces {
    Word(String),
    Patterns(Vec<String>),
}

#[derive(Debug, Default, Serialize)]
pub(super) struct RawPool {
    pub(super) ipv4: Option<String>,
    pub(super) ipv6: Option<String>,
    pub(super) guard: Option<bool>,
}

#[derive(Debug, Default, Serialize)]
pub(super) struct RawDns {
    pub(super) listen: Option<Vec<String>>,
    pub(super) upstreams: Option<Vec<String>>,
    pub(super) intercept: Option<RawIntercept>,
    pub(super) intercept_resolvers: Option<Vec<String>>,
    pub(super) clients: Option<Vec<String>>,
    pub(super) real_address_clients: Option<Vec<String>>,
    pub(super) ttl: Option<i64>,
}

/// A list is what the key took before `intercept_resolvers` existed; it has an error of its own.
#[derive(Debug, Serialize)]
#[serde(untagged)]
pub(super) enum RawIntercept {
    Word(String),
    Resolvers(Vec<String>),
}

#[derive(Debug, Default, Serialize)]
pub(super) struct RawHealth {
    pub(super) connect_timeout: Option<String>,
    pub(super) probe_interval: Option<String>,
    pub(super) eject_on_reset: Option<bool>,
}

#[derive(Debug, Default, Serialize)]
pub(super) struct RawDatapath {
    pub(super) debug_log: Option<bool>,
}

/// Takes every key out of a document; the routes are returned as they stand, with their paths.
pub(super) fn read(
    root: Spanned,
    reader: &mut DocumentReader<'_>,
) -> (RawConfig, Vec<(String, Spanned)>) {
    let mut root = reader.root(root);
    let mut config =
        RawConfig { wildcards: root.text("wildcards", "`\"one_label\"`"), ..RawConfig::default() };

    let mut agent = agent_table(&mut root);
    config.agent = agent_paths(&mut agent);
    config.agent.admin = agent.text("admin", "`\"127.0.0.1:9464\"` or `\"off\"`");
    agent.finish();

    let mut attach = root.section("attach").overridden_by("REDIRECTOR_ATTACH");
    config.attach.cgroups = attach.texts("cgroups", "`[\"auto\"]`");
    config.attach.namespaces = attach.texts("namespaces", "`[\"!kube-system\"]`");
    config.attach.pod_names = attach.texts("pod_names", "`[\"sg-executor-job-*\"]`");
    config.attach.pod_labels = attach.texts("pod_labels", "`[\"app=executor\"]`");
    config.attach.interfaces = attach
        .text_or_texts("interfaces", "`[\"auto\"]`")
        .map(|value| value.map_or_else(RawInterfaces::Patterns, RawInterfaces::Word));
    attach.finish();

    let mut pool = root.section("pool").overridden_by("REDIRECTOR_POOL");
    config.pool.ipv4 = pool.text("ipv4", "`\"198.18.0.0/16\"`");
    config.pool.ipv6 = pool.text("ipv6", "`\"fd00:198:18::/112\"`");
    config.pool.guard = pool.boolean("guard");
    pool.finish();

    let mut dns = root.section("dns").overridden_by("REDIRECTOR_DNS");
    config.dns.listen = dns.texts("listen", "`[\"169.254.20.53:53\"]`");
    config.dns.upstreams = dns.texts("upstreams", "`[\"system\"]`");
    config.dns.intercept = dns
        .text_or_texts("intercept", "`\"auto\"`")
        .map(|value| value.map_or_else(RawIntercept::Resolvers, RawIntercept::Word));
    config.dns.intercept_resolvers = dns.texts("intercept_resolvers", "`[\"10.96.0.10\"]`");
    config.dns.clients = dns.texts("clients", "`[\"local\"]`");
    config.dns.real_address_clients = dns.texts("real_address_clients", "`[\"10.61.0.0/16\"]`");
    config.dns.ttl = dns.integer("ttl", "`30`, in seconds");
    dns.finish();

    let mut health = root.section("health").overridden_by("REDIRECTOR_HEALTH");
    config.health.connect_timeout = health.text("connect_timeout", "`\"3s\"`");
    config.health.probe_interval = health.text("probe_interval", "`\"5s\"`");
    config.health.eject_on_reset = health.boolean("eject_on_reset");
    health.finish();

    let mut datapath = root.section("datapath").overridden_by("REDIRECTOR_DATAPATH");
    config.datapath.debug_log = datapath.boolean("debug_log");
    datapath.finish();

    let routes = root.tables("routes");
    root.finish();
    (config, routes)
}

/// Takes the agent's directories out of a document, and nothing else.
pub(super) fn read_agent_paths(root: Spanned, reader: &mut DocumentReader<'_>) -> RawAgent {
    agent_paths(&mut agent_table(&mut reader.root(root)))
}

fn agent_table<'r, 'a>(root: &'r mut TableReader<'_, 'a>) -> TableReader<'r, 'a> {
    root.section("agent").overridden_by("REDIRECTOR_AGENT")
}

fn agent_paths(agent: &mut TableReader<'_, '_>) -> RawAgent {
    RawAgent {
        state_dir: agent.text("state_dir", "`\"/var/lib/redirector\"`"),
        run_dir: agent.text("run_dir", "`\"/run/redirector\"`"),
        bpffs: agent.text("bpffs", "`\"/sys/fs/bpf/redirector\"`"),
        admin: None,
    }
}

impl Config {
    /// The configuration in effect as a TOML file, every default written out. Reading it gives the
    /// same configuration.
    pub fn effective_toml(&self) -> String {
        toml::to_string(&RawConfig::from(self)).expect("texts, numbers and lists of them are TOML")
    }
}

impl From<&Config> for RawConfig {
    fn from(config: &Config) -> Self {
        let Config { agent, attach, pool, dns, health, datapath, routes, old_wildcards: _ } =
            config;
        let path = |path: &std::path::Path| Some(path.to_string_lossy().into_owned());
        Self {
            wildcards: Some("one_label".into()),
            agent: RawAgent {
                state_dir: path(&agent.state_dir),
                run_dir: path(&agent.run_dir),
                bpffs: path(&agent.bpffs),
                admin: Some(agent.admin.map_or_else(|| "off".into(), |admin| admin.to_string())),
            },
            attach: RawAttach {
                cgroups: Some(attach.cgroups.iter().map(cgroup).collect()),
                namespaces: Some(attach.pods.namespaces.clone()),
                pod_names: Some(attach.pods.names.clone()),
                pod_labels: Some(attach.pods.labels.clone()),
                interfaces: Some(interfaces(&attach.interfaces)),
            },
            pool: RawPool {
                ipv4: Some(pool.ipv4.to_string()),
                ipv6: pool.ipv6.map(|ipv6| ipv6.to_string()),
                guard: Some(pool.guard),
            },
            dns: RawDns {
                listen: Some(dns.listen.iter().map(ToString::to_string).collect()),
                upstreams: Some(dns.upstreams.iter().map(upstream).collect()),
                intercept: Some(RawIntercept::Word(dns.intercept.as_str().into())),
                intercept_resolvers: Some(
                    dns.intercept_resolvers.iter().map(ToString::to_string).collect(),
                ),
                clients: Some(dns.clients.iter().map(clients).collect()),
                real_address_clients: Some(
                    dns.real_address_clients.iter().map(ToString::to_string).collect(),
                ),
                ttl: Some(dns.ttl.into()),
            },
            health: RawHealth {
                connect_timeout: Some(format_duration(health.connect_timeout)),
                probe_interval: Some(format_duration(health.probe_interval)),
                eject_on_reset: Some(health.eject_on_reset),
            },
            datapath: RawDatapath { debug_log: Some(datapath.debug_log) },
            routes: routes.iter().map(|route: &Route| route.into()).collect(),
        }
    }
}

fn cgroup(spec: &CgroupSpec) -> String {
    match spec {
        CgroupSpec::Auto => "auto".into(),
        CgroupSpec::Preset(preset) => preset.to_string(),
        CgroupSpec::Pattern(pattern) => pattern.clone(),
    }
}

fn interfaces(specs: &[InterfaceSpec]) -> RawInterfaces {
    let text = |spec: &InterfaceSpec| match spec {
        InterfaceSpec::Auto => "auto".into(),
        InterfaceSpec::Pattern(pattern) => pattern.clone(),
        InterfaceSpec::Except(pattern) => format!("!{pattern}"),
    };
    match specs {
        [] => RawInterfaces::Word("off".into()),
        specs => RawInterfaces::Patterns(specs.iter().map(text).collect()),
    }
}

fn upstream(upstream: &Upstream) -> String {
    match upstream {
        Upstream::System => "system".into(),
        Upstream::Server(server) => server.to_string(),
    }
}

fn clients(clients: &DnsClients) -> String {
    match clients {
        DnsClients::Local => "local".into(),
        DnsClients::Network(network) => network.to_string(),
    }
}
