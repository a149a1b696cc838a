//! Everything that can be configured, and its defaults.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    time::Duration,
};

use ipnet::IpNet;

use super::{pod_selector::PodSelector, preset::Preset};
use crate::{
    pool::Pool,
    route::{Route, SourceName},
};

/// Everything that can be configured.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Config {
    /// The directories and the admin listener of the agent.
    pub agent: Agent,
    /// Whose connects are redirected.
    pub attach: Attach,
    /// Where virtual addresses come from.
    pub pool: Pool,
    /// The DNS shim.
    pub dns: Dns,
    /// When a backend counts as down, and when it is tried again.
    pub health: Health,
    /// The programs in the kernel.
    pub datapath: DatapathSettings,
    /// The file's routes, with distinct sources, in the file's order.
    pub routes: Vec<Route>,
    /// Sources of the file that were written as `*.zone` and are read as `**.zone`, since the file
    /// does not state what `*` means.
    pub old_wildcards: Vec<SourceName>,
}

/// The directories and the admin listener of the agent.
#[derive(Clone, Debug, PartialEq)]
pub struct Agent {
    /// VIP leases, routes made by the command line, last known addresses; absolute.
    pub state_dir: PathBuf,
    /// The directory of the control socket; absolute.
    pub run_dir: PathBuf,
    /// The directory of pinned programs and maps; absolute.
    pub bpffs: PathBuf,
    /// Where metrics and health are shown; `None`: nowhere.
    pub admin: Option<SocketAddr>,
}

/// Whose connects are redirected.
#[derive(Clone, Debug, PartialEq)]
pub struct Attach {
    /// The cgroups to attach at; at least one.
    pub cgroups: Vec<CgroupSpec>,
    /// Which pods below the cgroups of [`Preset::Kubernetes`], where the API server can be asked.
    pub pods: PodSelector,
    /// The interfaces whose packets are answered and redirected; none: no packet is looked at.
    pub interfaces: Vec<InterfaceSpec>,
}

/// Which cgroups to attach at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CgroupSpec {
    /// Every preset that exists here, else the root.
    Auto,
    /// Those of a product.
    Preset(Preset),
    /// A path or a glob, absolute or below the cgroup2 mount, without `..`.
    Pattern(String),
}

/// Which interfaces are executors'.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum InterfaceSpec {
    /// Those of containers and virtual machines, by kind and name.
    Auto,
    /// Those whose name matches this glob, of any kind.
    Pattern(String),
    /// None whose name matches this glob.
    Except(String),
}

/// The DNS shim.
#[derive(Clone, Debug, PartialEq)]
pub struct Dns {
    /// The addresses to answer at; none: no shim. Port 0 lets the system choose.
    pub listen: Vec<SocketAddr>,
    /// Who answers everything else; at least one.
    pub upstreams: Vec<Upstream>,
    /// How the DNS of executors is intercepted.
    pub intercept: Intercept,
    /// The resolvers whose queries [`Intercept::Sockets`] takes to the shim; none: those of the
    /// host's resolv.conf.
    pub intercept_resolvers: Vec<IpAddr>,
    /// Whose queries are answered; those of all others are refused.
    pub clients: Vec<DnsClients>,
    /// Client networks that get the real address, since no hook sees them.
    pub real_address_clients: Vec<IpNet>,
    /// The time to live of our answers, in seconds.
    pub ttl: u32,
}

/// Who answers what is not ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Upstream {
    /// The servers of the host's resolv.conf, but never ourselves.
    System,
    /// This server.
    Server(SocketAddr),
}

/// Whose queries the shim answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DnsClients {
    /// This host, the networks that it reaches without a gateway, and every private address (RFC
    /// 1918, RFC 6598, link-local, unique local).
    Local,
    /// This network.
    Network(IpNet),
}

/// How the DNS of executors is intercepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Intercept {
    /// Mapped names are answered by packet wherever an interface carries the executors' DNS. If
    /// this kernel refuses the programs, the agent reports it and serves without them.
    Auto,
    /// The same, but the agent does not start if this kernel refuses the programs.
    Packets,
    /// At the sockets of executors: their queries to [`Dns::intercept_resolvers`] go to the shim.
    Sockets,
    /// Not at all.
    Off,
}

impl Intercept {
    /// The word in the file.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Packets => "packets",
            Self::Sockets => "sockets",
            Self::Off => "off",
        }
    }

    /// Whether names are answered by packet.
    pub fn answers_packets(self) -> bool {
        matches!(self, Self::Auto | Self::Packets)
    }
}

/// When a backend counts as down, and when it is tried again.
#[derive(Clone, Debug, PartialEq)]
pub struct Health {
    /// How long a connect may take when the route has other backends to offer.
    pub connect_timeout: Duration,
    /// How often an ejected backend is probed.
    pub probe_interval: Duration,
    /// Whether a backend that accepts connects and resets the connections is ejected.
    pub eject_on_reset: bool,
}

/// The programs in the kernel.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct DatapathSettings {
    /// Whether the file asks for programs that log each decision.
    pub debug_log: bool,
    /// Whether the command line does, whatever the file says.
    pub debug_flag: bool,
}

impl DatapathSettings {
    /// Whether the programs are to log each decision.
    pub fn logs_decisions(&self) -> bool {
        self.debug_log || self.debug_flag
    }
}

impl Agent {
    /// The socket through which commands reach the agent.
    pub fn control_socket(&self) -> PathBuf {
        control_socket(&self.run_dir)
    }
}

/// The control socket in an agent's `run_dir`.
pub(super) fn control_socket(run_dir: &Path) -> PathBuf {
    run_dir.join("control.sock")
}

impl Default for Agent {
    fn default() -> Self {
        Self {
            state_dir: "/var/lib/redirector".into(),
            run_dir: "/run/redirector".into(),
            bpffs: "/sys/fs/bpf/redirector".into(),
            admin: Some((Ipv4Addr::LOCALHOST, 9464).into()),
        }
    }
}

impl Default for Attach {
    fn default() -> Self {
        Self {
            cgroups: vec![CgroupSpec::Auto],
            pods: PodSelector::default(),
            interfaces: vec![InterfaceSpec::Auto],
        }
    }
}

impl Default for Dns {
    fn default() -> Self {
        Self {
            listen: vec![(Ipv4Addr::new(169, 254, 20, 53), 53).into()],
            upstreams: vec![Upstream::System],
            intercept: Intercept::Auto,
            intercept_resolvers: Vec::new(),
            clients: vec![DnsClients::Local],
            real_address_clients: Vec::new(),
            ttl: 30,
        }
    }
}

impl Default for Health {
    fn default() -> Self {
        Self {
            connect_timeout: Duration::from_secs(3),
            probe_interval: Duration::from_secs(5),
            eject_on_reset: true,
        }
    }
}
