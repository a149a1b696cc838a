//! From what is written to what is meant: every value is checked, then how the values go together.

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
    path::{Component, Path, PathBuf},
    time::Duration,
};

use ipnet::IpNet;

use super::{
    globs::is_glob,
    pod_selector::PodSelector,
    preset::Preset,
    raw::{RawAgent, RawConfig, RawDns, RawHealth, RawIntercept, RawInterfaces, RawPool},
    settings::{
        Agent, Attach, CgroupSpec, Config, DatapathSettings, Dns, DnsClients, Health, Intercept,
        InterfaceSpec, Upstream,
    },
};
use crate::{
    pool::Pool,
    route::{
        self, Wildcard,
        import::{Dialect, unknown_wildcards},
    },
    spanned::{DocumentReader, Spanned, scalar},
};

/// The longest path of a unix socket, without the closing zero byte.
const LONGEST_SOCKET: usize = 107;
/// The most resolvers that `dns.intercept_resolvers` may list: each has a port of the shim.
const MAX_RESOLVERS: usize = redirector_common::dns::SLOTS as usize;
/// The most that `dns.ttl` may be: a day.
const MOST_TTL: i64 = 86_400;
/// The shortest of every duration of `[health]`.
const LEAST_DURATION: Duration = Duration::from_millis(100);

/// Why a text is not the value that its key takes; kinds that only the configuration has.
#[derive(Debug, thiserror::Error)]
enum Refused {
    #[error("`{0}` is not an absolute path: begin it with `/`")]
    RelativePath(String),
    #[error("`{0}` goes up by `..`: write the path without it")]
    ParentPath(String),
    #[error(
        "is empty: write `\"auto\"`, a preset such as `\"kubernetes\"`, or a path or glob such as \
            `\"kubepods.slice\"`"
    )]
    EmptyCgroup,
    #[error("`{0}` is not a preset: did you mean `{1}`? For a cgroup of that name, write `/{0}`")]
    NearPreset(String, &'static str),
    #[error("`{0}` is not a glob: {1}; write `[[]` for a bracket itself")]
    Glob(String, &'static str),
    #[error(
        "`{0}` can't be a name in Kubernetes: write lower case, digits, `-` and `.`, or a glob: \
            `sg-executor-job-*`"
    )]
    ObjectName(String),
    #[error("`{0}` is not a label: write one as `key=value`, such as `app=executor`")]
    Label(String),
    #[error("is empty: write `\"auto\"`, or a name or glob of interfaces such as `\"veth*\"`")]
    EmptyInterface,
    #[error("`{0}` can't be an interface's name: write one of at most 15 bytes, without `/`")]
    NoInterface(String),
    #[error("`off` excludes every other value: write `interfaces = \"off\"`")]
    OffInList,
    #[error("`{0}` is not known: write `auto`, `packets`, `sockets` or `off`")]
    Intercept(String),
    #[error(
        "`on` is no longer known: write `auto`, which answers mapped names by packet, or \
            `sockets`, which takes queries to `dns.intercept_resolvers` to the shim"
    )]
    InterceptOn,
    #[error(
        "takes no resolvers any more: list them in `dns.intercept_resolvers`, and write \
            `intercept = \"sockets\"`"
    )]
    InterceptList,
    #[error(
        "`{0}` is not known: write `system`, or the address of a DNS server such as `10.0.0.2:53`"
    )]
    Upstream(String),
    #[error("`{0}` is not known: write `local`, or a network such as `10.61.0.0/16`")]
    DnsClients(String),
    #[error("`{0}` is not known: write an address with a port such as `127.0.0.1:9464`, or `off`")]
    Admin(String),
    #[error(
        "`{0}` is an IPv6 network: write an IPv4 one such as `198.18.0.0/16`, and this one as \
            `pool.ipv6`"
    )]
    NotIpv4(IpNet),
    #[error("`{0}` is an IPv4 network: write an IPv6 one such as `fd00:198:18::/112`")]
    NotIpv6(IpNet),
    #[error(transparent)]
    Value(#[from] scalar::ValueError),
}

/// Resolves every value; one that is invalid is reported to the reader, and its default used.
pub(super) fn resolve(
    raw: RawConfig,
    routes: Vec<(String, Spanned)>,
    reader: &mut DocumentReader<'_>,
) -> Config {
    let mut check = Check { reader };
    let mut config = Config {
        agent: check.agent(raw.agent),
        attach: Attach {
            cgroups: check.cgroups(raw.attach.cgroups),
            pods: check.pods(raw.attach.namespaces, raw.attach.pod_names, raw.attach.pod_labels),
            interfaces: check.interfaces(raw.attach.interfaces),
        },
        pool: check.pool(raw.pool),
        dns: check.dns(raw.dns),
        health: check.health(raw.health),
        datapath: DatapathSettings {
            debug_log: raw.datapath.debug_log.unwrap_or_default(),
            ..DatapathSettings::default()
        },
        routes: Vec::new(),
        old_wildcards: Vec::new(),
    };
    let paths: Vec<_> = routes.iter().map(|(path, _)| path.clone()).collect();
    let dialect = Dialect { foreign: false, star: check.wildcards(raw.wildcards) };
    let read = route::import::read_all(routes, check.reader, dialect);
    (config.routes, config.old_wildcards) = (read.routes, read.old_wildcards);
    check.pool_against(&config, paths.len());
    config
}

/// What `[agent]` means.
pub(super) fn agent(raw: RawAgent, reader: &mut DocumentReader<'_>) -> Agent {
    Check { reader }.agent(raw)
}

struct Check<'c, 'a> {
    reader: &'c mut DocumentReader<'a>,
}

impl Check<'_, '_> {
    fn wildcards(&mut self, text: Option<String>) -> Option<Wildcard> {
        let text = text?;
        let meaning = Wildcard::of_key(&text);
        if meaning.is_none() {
            self.reader.report("wildcards", unknown_wildcards(&text));
        }
        meaning
    }

    fn agent(&mut self, raw: RawAgent) -> Agent {
        let default = Agent::default();
        let agent = Agent {
            state_dir: self
                .one("agent.state_dir", raw.state_dir, absolute)
                .unwrap_or(default.state_dir),
            run_dir: self.one("agent.run_dir", raw.run_dir, absolute).unwrap_or(default.run_dir),
            bpffs: self.one("agent.bpffs", raw.bpffs, absolute).unwrap_or(default.bpffs),
            admin: self.one("agent.admin", raw.admin, admin).unwrap_or(default.admin),
        };
        let socket = agent.control_socket();
        if socket.as_os_str().len() > LONGEST_SOCKET {
            let message = format!(
                "`{}` is longer than a unix socket's {LONGEST_SOCKET} bytes: write a shorter path",
                socket.display()
            );
            self.reader.report("agent.run_dir", message);
        }
        agent
    }

    fn cgroups(&mut self, raw: Option<Vec<String>>) -> Vec<CgroupSpec> {
        let specs = self.list("attach.cgroups", raw, cgroup);
        if specs.as_ref().is_some_and(Vec::is_empty) && !self.reader.refused("attach.cgroups") {
            self.reader.report(
                "attach.cgroups",
                "is an empty list, which would redirect nobody: \
                write `[\"auto\"]`, or leave it out",
            );
        }
        specs.unwrap_or(Attach::default().cgroups)
    }

    fn pods(
        &mut self,
        namespaces: Option<Vec<String>>,
        names: Option<Vec<String>>,
        labels: Option<Vec<String>>,
    ) -> PodSelector {
        let default = PodSelector::default();
        PodSelector {
            namespaces: self
                .list("attach.namespaces", namespaces, namespace)
                .unwrap_or(default.namespaces),
            names: self.list("attach.pod_names", names, object_name).unwrap_or_default(),
            labels: self.list("attach.pod_labels", labels, label).unwrap_or_default(),
        }
    }

    fn interfaces(&mut self, raw: Option<RawInterfaces>) -> Vec<InterfaceSpec> {
        const KEY: &str = "attach.interfaces";
        let texts = match raw {
            None => return Attach::default().interfaces,
            Some(RawInterfaces::Word(word)) if word == "off" => return Vec::new(),
            // One value needs no list: in the environment the two look the same.
            Some(RawInterfaces::Word(word)) => match interface(&word) {
                Ok(spec) => vec![spec],
                Err(error) => {
                    self.reader.report(KEY, error);
                    return Attach::default().interfaces;
                }
            },
            Some(RawInterfaces::Patterns(texts)) => {
                let specs = self.list(KEY, Some(texts), interface);
                specs.unwrap_or_default()
            }
        };
        let is_exclusion = |spec: &InterfaceSpec| matches!(spec, InterfaceSpec::Except(_));
        if texts.iter().all(is_exclusion) && !self.reader.refused(KEY) {
            let problem = match texts.is_empty() {
                true => "is an empty list: write `\"off\"`, or `[\"auto\"]`",
                false => "has nothing but exclusions: write `\"auto\"` or a pattern before them",
            };
            self.reader.report(KEY, problem);
        }
        texts
    }

    fn pool(&mut self, raw: RawPool) -> Pool {
        let default = Pool::default();
        let ipv4 = self.one("pool.ipv4", raw.ipv4, |text| match scalar::network(text)? {
            IpNet::V4(network) => Ok(network),
            network => Err(Refused::NotIpv4(network)),
        });
        let ipv6 = self.one("pool.ipv6", raw.ipv6, |text| match scalar::network(text)? {
            IpNet::V6(network) => Ok(network),
            network => Err(Refused::NotIpv6(network)),
        });
        // A size is compared only with one that was understood.
        let ipv6 = ipv6.filter(|_| !self.reader.refused("pool.ipv4"));
        match Pool::new(ipv4.unwrap_or(default.ipv4), ipv6, raw.guard.unwrap_or(default.guard)) {
            Ok(pool) => pool,
            Err((key, error)) => {
                self.reader.report(&format!("pool.{key}"), error);
                default
            }
        }
    }

    fn dns(&mut self, raw: RawDns) -> Dns {
        let default = Dns::default();
        let listen = self
            .list("dns.listen", raw.listen, |text| Ok(scalar::listener(text)?))
            .unwrap_or(default.listen);
        let upstreams =
            self.list("dns.upstreams", raw.upstreams, upstream).unwrap_or(default.upstreams);
        if upstreams.is_empty() && !self.reader.refused("dns.upstreams") {
            self.reader.report(
                "dns.upstreams",
                "is an empty list, so no other name would resolve: \
                write `[\"system\"]`, or leave it out",
            );
        }
        for (n, upstream) in upstreams.iter().enumerate() {
            if let Upstream::Server(server) = upstream
                && listen.contains(server)
            {
                let message = format_args!(
                    "`{server}` is in `dns.listen`, so the shim would ask itself: write the \
                        resolver behind it"
                );
                self.reader.report(&format!("dns.upstreams[{n}]"), message);
            }
        }
        let intercept = raw.intercept.map_or(default.intercept, |raw| self.intercept(raw));
        if listen.is_empty()
            && !self.reader.refused("dns.listen")
            && intercept == Intercept::Sockets
        {
            self.reader.report(
                "dns.intercept",
                "`sockets` needs `dns.listen`: write an address there that executors can reach",
            );
        }
        let intercept_resolvers = self.intercept_resolvers(raw.intercept_resolvers, &listen);
        let clients = self.list("dns.clients", raw.clients, dns_clients).unwrap_or(default.clients);
        if clients.is_empty() && !self.reader.refused("dns.clients") {
            self.reader.report(
                "dns.clients",
                "is an empty list, so nobody would be answered: \
                write `[\"local\"]`, networks, or both",
            );
        }
        let guests = self.list("dns.real_address_clients", raw.real_address_clients, |text| {
            Ok(scalar::network(text)?)
        });
        let real_address_clients = guests.unwrap_or(default.real_address_clients);
        let ttl = raw.ttl.map_or(default.ttl, |ttl| match u32::try_from(ttl) {
            Ok(seconds) if ttl <= MOST_TTL => seconds,
            _ => {
                self.reader.report(
                    "dns.ttl",
                    format_args!("`{ttl}` is out of range: write 0 to {MOST_TTL}, in seconds"),
                );
                default.ttl
            }
        });
        Dns {
            listen,
            upstreams,
            intercept,
            intercept_resolvers,
            clients,
            real_address_clients,
            ttl,
        }
    }

    fn intercept(&mut self, raw: RawIntercept) -> Intercept {
        let refused = match raw {
            RawIntercept::Resolvers(_) => Refused::InterceptList,
            RawIntercept::Word(word) => match (word.as_str(), scalar::address(&word)) {
                ("auto", _) => return Intercept::Auto,
                ("packets", _) => return Intercept::Packets,
                ("sockets", _) => return Intercept::Sockets,
                ("off", _) => return Intercept::Off,
                ("on", _) => Refused::InterceptOn,
                // One address needs no list: in the environment the two look the same.
                (_, Ok(_)) => Refused::InterceptList,
                (_, Err(_)) => Refused::Intercept(word),
            },
        };
        self.reader.report("dns.intercept", refused);
        Intercept::Auto
    }

    fn intercept_resolvers(
        &mut self,
        raw: Option<Vec<String>>,
        listen: &[SocketAddr],
    ) -> Vec<IpAddr> {
        const KEY: &str = "dns.intercept_resolvers";
        let resolvers = self.list(KEY, raw, |text| Ok(scalar::address(text)?)).unwrap_or_default();
        for (n, resolver) in resolvers.iter().enumerate() {
            if listen.contains(&SocketAddr::new(*resolver, 53)) {
                let message = format_args!("`{resolver}` is in `dns.listen`: remove it here");
                self.reader.report(&format!("{KEY}[{n}]"), message);
            }
        }
        if resolvers.len() > MAX_RESOLVERS {
            let message = format_args!(
                "lists {} resolvers, and at most {MAX_RESOLVERS} have a port: remove some",
                resolvers.len()
            );
            self.reader.report(KEY, message);
        }
        resolvers
    }

    fn health(&mut self, raw: RawHealth) -> Health {
        let default = Health::default();
        let up_to = |most: u64| {
            move |text: &str| scalar::duration(text, LEAST_DURATION, Duration::from_secs(most))
        };
        Health {
            connect_timeout: self
                .one("health.connect_timeout", raw.connect_timeout, up_to(120))
                .unwrap_or(default.connect_timeout),
            probe_interval: self
                .one("health.probe_interval", raw.probe_interval, up_to(3600))
                .unwrap_or(default.probe_interval),
            eject_on_reset: raw.eject_on_reset.unwrap_or(default.eject_on_reset),
        }
    }

    /// Refuses addresses of the configuration that lie in the pool, and more routes than it has
    /// addresses.
    fn pool_against(&mut self, config: &Config, routes: usize) {
        if self.reader.refused("pool") {
            return;
        }
        let pool = &config.pool;
        let usable = pool.usable().len();
        if routes > usable {
            let message = format_args!(
                "`{}` has {usable} addresses for {routes} routes: write a shorter prefix length",
                pool.ipv4
            );
            self.reader.report("pool.ipv4", message);
        }
        let listen = config
            .dns
            .listen
            .iter()
            .enumerate()
            .map(|(n, socket)| (format!("dns.listen[{n}]"), socket.ip()));
        let upstreams =
            config.dns.upstreams.iter().enumerate().filter_map(|(n, upstream)| match upstream {
                Upstream::Server(server) => Some((format!("dns.upstreams[{n}]"), server.ip())),
                Upstream::System => None,
            });
        let admin = config.agent.admin.map(|admin| ("agent.admin".to_owned(), admin.ip()));
        for (key, ip) in listen.chain(upstreams).chain(admin) {
            if pool.contains(ip) {
                self.reader.report(
                    &key,
                    format_args!(
                        "`{ip}` is in the pool of virtual addresses: \
                    write another one, or move `pool`"
                    ),
                );
            }
        }
        self.routes_against_pool(config, routes);
    }

    fn routes_against_pool(&mut self, config: &Config, routes: usize) {
        // A route that was refused has no number any more; the others are checked once it is
        // mended.
        if config.routes.len() != routes {
            return;
        }
        for (n, route) in config.routes.iter().enumerate() {
            if let Err(refused) = route::check_outside_pool(route, &config.pool) {
                self.reader.report_within(&format!("routes[{n}]"), refused.problems);
            }
        }
    }

    /// A value that may be absent; a refused one is reported and counts as absent.
    fn one<T, E: fmt::Display>(
        &mut self,
        key: &str,
        raw: Option<String>,
        parse: impl Fn(&str) -> Result<T, E>,
    ) -> Option<T> {
        parse(&raw?).map_err(|error| self.reader.report(key, error)).ok()
    }

    /// A list that may be absent, each of whose values stands there once; refused ones are reported
    /// and left out.
    fn list<T: PartialEq>(
        &mut self,
        key: &str,
        raw: Option<Vec<String>>,
        parse: impl Fn(&str) -> Result<T, Refused>,
    ) -> Option<Vec<T>> {
        let mut values = Vec::new();
        for (n, text) in raw?.iter().enumerate() {
            let path = format!("{key}[{n}]");
            match parse(text) {
                Ok(value) if values.contains(&value) => self
                    .reader
                    .report(&path, format_args!("`{text}` stands here twice: remove one")),
                Ok(value) => values.push(value),
                Err(error) => self.reader.report(&path, error),
            }
        }
        Some(values)
    }
}

fn absolute(text: &str) -> Result<PathBuf, Refused> {
    let path = Path::new(text);
    if !path.is_absolute() {
        return Err(Refused::RelativePath(text.into()));
    }
    without_parents(path, text)?;
    Ok(path.into())
}

fn without_parents(path: &Path, text: &str) -> Result<(), Refused> {
    match path.components().any(|part| part == Component::ParentDir) {
        true => Err(Refused::ParentPath(text.into())),
        false => Ok(()),
    }
}

fn cgroup(text: &str) -> Result<CgroupSpec, Refused> {
    match text {
        "" => Err(Refused::EmptyCgroup),
        "auto" => Ok(CgroupSpec::Auto),
        text if let Some(preset) = Preset::of_word(text) => Ok(CgroupSpec::Preset(preset)),
        pattern => {
            if let Some(near) = Preset::nearest(pattern) {
                return Err(Refused::NearPreset(pattern.into(), near));
            }
            without_parents(Path::new(pattern), pattern)?;
            glob::Pattern::new(pattern)
                .map_err(|error| Refused::Glob(pattern.into(), error.msg))?;
            Ok(CgroupSpec::Pattern(pattern.into()))
        }
    }
}

fn namespace(text: &str) -> Result<String, Refused> {
    object_name(text.strip_prefix('!').unwrap_or(text)).map(|_| text.to_owned())
}

/// A glob of names of objects in Kubernetes.
fn object_name(text: &str) -> Result<String, Refused> {
    let is_allowed =
        |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-.*?[]!".contains(&byte);
    if text.is_empty() || text.starts_with('!') || !text.bytes().all(is_allowed) {
        return Err(Refused::ObjectName(text.into()));
    }
    glob::Pattern::new(text).map_err(|error| Refused::Glob(text.into(), error.msg))?;
    Ok(text.to_owned())
}

fn label(text: &str) -> Result<String, Refused> {
    let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-_./".contains(&byte);
    match text.split_once('=') {
        Some((key, value))
            if !key.is_empty() && key.bytes().chain(value.bytes()).all(is_allowed) =>
        {
            Ok(text.to_owned())
        }
        _ => Err(Refused::Label(text.into())),
    }
}

fn interface(text: &str) -> Result<InterfaceSpec, Refused> {
    /// `IFNAMSIZ` without the byte that ends the name.
    const LONGEST_NAME: usize = 15;
    let (pattern, excluded) = match text.strip_prefix('!') {
        Some(pattern) => (pattern, true),
        None => (text, false),
    };
    match pattern {
        "" => return Err(Refused::EmptyInterface),
        "off" if !excluded => return Err(Refused::OffInList),
        "auto" if !excluded => return Ok(InterfaceSpec::Auto),
        _ => {}
    }
    glob::Pattern::new(pattern).map_err(|error| Refused::Glob(pattern.into(), error.msg))?;
    if pattern.contains('/') || !is_glob(pattern) && pattern.len() > LONGEST_NAME {
        return Err(Refused::NoInterface(pattern.into()));
    }
    Ok(match excluded {
        true => InterfaceSpec::Except(pattern.into()),
        false => InterfaceSpec::Pattern(pattern.into()),
    })
}

fn admin(text: &str) -> Result<Option<SocketAddr>, Refused> {
    match text {
        "off" => Ok(None),
        text if text.contains(|byte: char| byte.is_ascii_digit()) => Ok(Some(admin_socket(text)?)),
        text => Err(Refused::Admin(text.into())),
    }
}

/// Unlike the shim, the admin listener may have the unspecified address: a scraper comes from
/// anywhere.
fn admin_socket(text: &str) -> Result<SocketAddr, scalar::ValueError> {
    match text.parse::<SocketAddr>() {
        Ok(socket) if socket.ip().is_unspecified() => Ok(socket),
        _ => scalar::socket(text, 9464),
    }
}

fn upstream(text: &str) -> Result<Upstream, Refused> {
    match (text, scalar::server(text)) {
        ("system", _) => Ok(Upstream::System),
        (_, Ok(server)) => Ok(Upstream::Server(server)),
        (_, Err(scalar::ValueError::Socket(text))) => Err(Refused::Upstream(text)),
        (_, Err(error)) => Err(error.into()),
    }
}

fn dns_clients(text: &str) -> Result<DnsClients, Refused> {
    match (text, scalar::network(text)) {
        ("local", _) => Ok(DnsClients::Local),
        (_, Ok(network)) => Ok(DnsClients::Network(network)),
        (_, Err(scalar::ValueError::Network(text))) => Err(Refused::DnsClients(text)),
        (_, Err(error)) => Err(error.into()),
    }
}
