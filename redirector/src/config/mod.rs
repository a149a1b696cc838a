//! The configuration: one TOML file, strict, with every problem told at once.
//!
//! It is parsed twice. `raw` takes the keys out of the document by name and type; `resolve` turns
//! them into the form below, which has no `Option` but where absence means something.
//! `REDIRECTOR_<SECTION>_<KEY>` in the environment stands above the file, lists separated by
//! commas, and an empty variable counts as none. Other variables that begin with `REDIRECTOR_` are
//! not looked at, since Kubernetes makes some for every service that is called `redirector`.

mod raw;
mod resolve;

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    time::Duration,
};

use ipnet::IpNet;

pub use crate::{
    pool::Pool,
    spanned::{Place, Problem},
};
use crate::{
    route::Route,
    spanned::{Node, Reader},
};

/// Where the configuration is when nothing says otherwise.
pub const DEFAULT_PATH: &str = "/etc/redirector/redirector.toml";

/// Everything that can be configured.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Config {
    /// Where the agent keeps and shows things.
    pub agent: Agent,
    /// Whose connects are redirected.
    pub attach: Attach,
    /// Where virtual addresses come from.
    pub pool: Pool,
    /// The DNS shim.
    pub dns: Dns,
    /// When a backend counts as down, and when it is tried again.
    pub health: Health,
    /// The file's routes, with distinct sources, in the file's order.
    pub routes: Vec<Route>,
}

/// Where the agent keeps and shows things.
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
}

/// Which cgroups to attach at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CgroupSpec {
    /// Those that container runtimes use, else the root.
    Auto,
    /// A path or a glob, absolute or below the cgroup2 mount, without `..`.
    Pattern(String),
}

/// The DNS shim.
#[derive(Clone, Debug, PartialEq)]
pub struct Dns {
    /// The addresses to answer at; none: no shim. Port 0 lets the system choose.
    pub listen: Vec<SocketAddr>,
    /// Who answers everything else; at least one.
    pub upstreams: Vec<Upstream>,
    /// Whose DNS traffic is taken to the shim.
    pub intercept: Intercept,
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

/// Whose DNS traffic is taken to the shim.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Intercept {
    /// That of executors where we are attached below the root of the cgroups.
    Auto,
    /// That of executors, wherever we are attached.
    On,
    /// Nobody's.
    Off,
    /// That of executors to these resolvers; at least one.
    Resolvers(Vec<IpAddr>),
}

/// When a backend counts as down, and when it is tried again.
#[derive(Clone, Debug, PartialEq)]
pub struct Health {
    /// How long a connect may take when the route has other backends to offer.
    pub connect_timeout: Duration,
    /// How long a backend that was set aside waits for each probe.
    pub probe_interval: Duration,
}

/// Every problem of a configuration. Displayed as one line for each.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, thiserror::Error)]
pub struct ConfigErrors {
    /// The problems, those of the environment first, then those of the file from top to bottom.
    pub problems: Vec<Problem>,
}

/// Where the configuration is: what the flag says, else `REDIRECTOR_CONFIG`, else [`DEFAULT_PATH`].
pub fn path(flag: Option<PathBuf>) -> PathBuf {
    let variable = || {
        std::env::var_os("REDIRECTOR_CONFIG").filter(|value| !value.is_empty()).map(PathBuf::from)
    };
    flag.or_else(variable).unwrap_or_else(|| DEFAULT_PATH.into())
}

/// Reads the configuration at `path`, below the environment of this process.
pub fn load(path: &Path) -> Result<Config, ConfigErrors> {
    let whole = |message: String| ConfigErrors {
        problems: vec![Problem { place: Place::file(path), key: String::new(), message }],
    };
    let bytes = std::fs::read(path).map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => whole(format!(
            "there is no such file: write one (`[[routes]]` with `source` and `destination` is enough), or name it with --config or REDIRECTOR_CONFIG \
             (the default is {DEFAULT_PATH})"
        )),
        _ => whole(format!("failed to read the configuration: {error}")),
    })?;
    let text = String::from_utf8(bytes).map_err(|error| {
        let line = error.as_bytes()[..error.utf8_error().valid_up_to()]
            .iter()
            .filter(|byte| **byte == b'\n')
            .count()
            + 1;
        whole(format!("line {line} is not UTF-8 text: save the file as UTF-8"))
    })?;
    parse(&text, path, &|variable| {
        std::env::var_os(variable).map(|value| value.to_string_lossy().into_owned())
    })
}

/// Reads a configuration from its text, which problems call `name`, below the variables that `env`
/// tells.
pub fn parse(
    text: &str,
    name: &Path,
    env: &dyn Fn(&str) -> Option<String>,
) -> Result<Config, ConfigErrors> {
    let mut reader = Reader::new(name, env);
    let (root, syntax) = Node::from_toml(text);
    let config = match syntax.is_empty() {
        true => {
            let (raw, routes) = raw::read(root, &mut reader);
            resolve::resolve(raw, routes, &mut reader)
        }
        // What stands around a syntax error is guesswork: its problems would mislead.
        false => {
            syntax.into_iter().for_each(|error| reader.report_syntax(error));
            Config::default()
        }
    };
    match reader.finish() {
        problems if problems.is_empty() => Ok(config),
        problems => Err(ConfigErrors { problems }),
    }
}

impl Config {
    /// The configuration in effect as a TOML file, every default written out. Reading it gives the
    /// same configuration.
    pub fn effective_toml(&self) -> String {
        toml::to_string(&raw::RawConfig::from(self))
            .expect("texts, numbers and lists of them are TOML")
    }
}

impl Agent {
    /// The socket that commands reach the agent by.
    pub fn control_socket(&self) -> PathBuf {
        self.run_dir.join("control.sock")
    }
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
        Self { cgroups: vec![CgroupSpec::Auto] }
    }
}

impl Default for Dns {
    fn default() -> Self {
        Self {
            listen: vec![(Ipv4Addr::new(169, 254, 20, 53), 53).into()],
            upstreams: vec![Upstream::System],
            intercept: Intercept::Auto,
            clients: vec![DnsClients::Local],
            real_address_clients: Vec::new(),
            ttl: 30,
        }
    }
}

impl Default for Health {
    fn default() -> Self {
        Self { connect_timeout: Duration::from_secs(3), probe_interval: Duration::from_secs(5) }
    }
}

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, problem) in self.problems.iter().enumerate() {
            write!(f, "{}{problem}", if n == 0 { "" } else { "\n" })?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
