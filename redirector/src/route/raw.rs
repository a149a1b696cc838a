//! How a route is written: the shape of `[[routes]]`, shared by the configuration, the store, the
//! API, import and export.

use std::{fmt, net::IpAddr, time::Duration};

use redirector_common::abi::MAX_SOURCES;
use serde::{Deserialize, Serialize};

use super::{
    definition::Route,
    destination::{Destination, DestinationError},
    on_no_backend::OnNoBackend,
    ports::PortMap,
    problems::RouteProblems,
    source::SourceName,
};
use crate::spanned::{
    Diagnostic, TableReader,
    scalar::{self, format_duration},
};

/// The least idle timeout: keepalive works in whole seconds, and must be well below it.
const LEAST_IDLE_TIMEOUT: Duration = Duration::from_secs(5);
/// The most: what the kernel's keepalive timer holds (`MAX_TCP_KEEPIDLE`).
const MOST_IDLE_TIMEOUT: Duration = Duration::from_secs(32_767);

/// A route as it is written; nothing in it has been checked. Unknown keys are refused.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RawRoute {
    /// The internal name, exact, `*.zone` (one label more) or `**.zone`.
    pub source: String,
    /// A DNS name, an address, or a list of addresses.
    pub destination: RawDestination,
    /// `CLIENT` or `CLIENT:DESTINATION` each; absent: all ports, unchanged. Bare numbers are read
    /// as well.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "ports")]
    pub ports: Option<Vec<String>>,
    /// `ADDRESS` or `ADDRESS:PORT` of the DNS server that resolves the destination; absent: the
    /// configured upstreams.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resolver: Option<String>,
    /// Addresses of this host to connect from; absent or empty: the kernel's choice.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source_ips: Option<Vec<String>>,
    /// `refuse` (what it is when absent) or `pass`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_no_backend: Option<String>,
    /// The load balancer's idle timeout, such as `350s`; absent: no keepalive is set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idle_timeout: Option<String>,
}

/// A destination as it is written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged, expecting = "expected a text or a list of texts")]
pub enum RawDestination {
    /// A DNS name or one address.
    One(String),
    /// Addresses.
    Many(Vec<String>),
}

impl Default for RawDestination {
    fn default() -> Self {
        Self::One(String::new())
    }
}

impl TryFrom<RawRoute> for Route {
    type Error = RouteProblems;

    fn try_from(raw: RawRoute) -> Result<Self, Self::Error> {
        let mut check = Check::default();
        let source = check.one("source", &raw.source, str::parse::<SourceName>);
        let destination = check.destination(&raw.destination);
        let ports = match &raw.ports {
            None => Some(PortMap::all()),
            Some(texts) => check.list("ports", PortMap::parse_list(texts)),
        };
        let resolver =
            raw.resolver.as_ref().map(|text| check.one("resolver", text, scalar::server));
        let source_ips = check.source_ips(raw.source_ips.as_deref().unwrap_or_default());
        let on_no_backend =
            raw.on_no_backend.as_ref().map(|text| check.one("on_no_backend", text, str::parse));
        let idle = |text: &str| scalar::duration(text, LEAST_IDLE_TIMEOUT, MOST_IDLE_TIMEOUT);
        let idle_timeout =
            raw.idle_timeout.as_ref().map(|text| check.one("idle_timeout", text, idle));
        if let Some(destination) = &destination {
            check.families(destination, &source_ips);
        }
        match (source, destination, ports) {
            (Some(source), Some(destination), Some(ports)) if check.problems.is_empty() => {
                Ok(Self {
                    source,
                    destination,
                    ports,
                    resolver: resolver.flatten(),
                    source_ips,
                    on_no_backend: on_no_backend.flatten().unwrap_or_default(),
                    idle_timeout: idle_timeout.flatten(),
                })
            }
            _ => Err(RouteProblems { route: raw.source, problems: check.problems }),
        }
    }
}

impl From<&Route> for RawRoute {
    fn from(route: &Route) -> Self {
        Self {
            source: route.source.to_string(),
            destination: match &route.destination {
                Destination::Name(name) => RawDestination::One(name.clone()),
                Destination::Addresses(addresses) => {
                    RawDestination::Many(addresses.iter().map(IpAddr::to_string).collect())
                }
            },
            ports: (!route.ports.is_all())
                .then(|| route.ports.pairs().iter().map(ToString::to_string).collect()),
            resolver: route.resolver.map(|resolver| resolver.to_string()),
            source_ips: (!route.source_ips.is_empty())
                .then(|| route.source_ips.iter().map(IpAddr::to_string).collect()),
            on_no_backend: (route.on_no_backend != OnNoBackend::default())
                .then(|| route.on_no_backend.to_string()),
            idle_timeout: route.idle_timeout.map(format_duration),
        }
    }
}

/// Reads a route from a table of a document; what is wrong with its keys is noted there. `foreign`
/// also admits the keys of `executorPrivateDNS`.
pub(crate) fn read(mut section: TableReader<'_, '_>, foreign: bool) -> RawRoute {
    let source = section.text("source", "`\"artifactory.internal.company.net\"`");
    let destination = section.text_or_texts("destination", "`[\"203.0.113.7\", \"203.0.113.8\"]`");
    let ports = section.texts_or_integers("ports", "`[\"443\", \"80:8080\"]`");
    let mut resolver = section.text("resolver", "`\"10.0.0.2:53\"`");
    let source_ips = section.texts("source_ips", "`[\"198.51.100.1\"]`");
    let on_no_backend = section.text("on_no_backend", "`\"refuse\"`");
    let idle_timeout = section.text("idle_timeout", "`\"350s\"`");
    if foreign && let Some(other) = section.text_unless_empty("resolverIP", "`\"10.0.0.2\"`") {
        match resolver {
            Some(_) => section
                .report("resolverIP", "stands beside `resolver`, which means the same: remove one"),
            None => resolver = Some(other),
        }
    }
    if source.is_none() {
        section.missing(
            "source",
            "write the internal name, such as `source = \"artifactory.internal.company.net\"`",
        );
    }
    if destination.is_none() {
        section.missing(
            "destination",
            "write the load balancer's name, such as `destination = \
            \"artifactory.public.company.net\"`",
        );
    }
    section.finish();
    RawRoute {
        source: source.unwrap_or_default(),
        destination: match destination {
            Some(Ok(text)) => RawDestination::One(text),
            Some(Err(texts)) => RawDestination::Many(texts),
            None => RawDestination::default(),
        },
        ports,
        resolver,
        source_ips,
        on_no_backend,
        idle_timeout,
    }
}

/// Gathers the problems of one route.
#[derive(Default)]
struct Check {
    problems: Vec<Diagnostic>,
}

impl Check {
    fn one<T, E: fmt::Display>(
        &mut self,
        key: &str,
        text: &str,
        parse: impl Fn(&str) -> Result<T, E>,
    ) -> Option<T> {
        parse(text).map_err(|error| self.problems.push(Diagnostic::unlocated(key, error))).ok()
    }

    fn list<T, E: fmt::Display>(
        &mut self,
        key: &str,
        result: Result<T, Vec<(Option<usize>, E)>>,
    ) -> Option<T> {
        let path =
            |item: Option<usize>| item.map_or_else(|| key.to_owned(), |n| format!("{key}[{n}]"));
        result
            .map_err(|errors| {
                self.problems.extend(
                    errors
                        .into_iter()
                        .map(|(item, error)| Diagnostic::unlocated(path(item), error)),
                )
            })
            .ok()
    }

    fn destination(&mut self, raw: &RawDestination) -> Option<Destination> {
        match raw {
            RawDestination::One(text) => self.one("destination", text, Destination::parse),
            RawDestination::Many(texts) => {
                self.list::<_, DestinationError>("destination", Destination::parse_list(texts))
            }
        }
    }

    fn source_ips(&mut self, texts: &[String]) -> Vec<IpAddr> {
        let mut addresses = Vec::with_capacity(texts.len());
        if texts.len() > MAX_SOURCES {
            self.problems.push(Diagnostic::unlocated(
                "source_ips",
                format_args!("has {} addresses: write at most {MAX_SOURCES}", texts.len()),
            ));
        }
        for (n, text) in texts.iter().enumerate() {
            let key = format!("source_ips[{n}]");
            match scalar::address(text) {
                Ok(address) if addresses.contains(&address) => {
                    self.problems.push(Diagnostic::unlocated(
                        key,
                        format_args!("`{address}` stands here twice: remove one"),
                    ));
                }
                Ok(address) if address.is_loopback() => {
                    self.problems.push(Diagnostic::unlocated(
                        key,
                        format_args!(
                            "`{address}` leads nowhere but to this host: write an address \
                            that others know"
                        ),
                    ));
                }
                Ok(address) => addresses.push(address),
                Err(error) => self.problems.push(Diagnostic::unlocated(key, error)),
            }
        }
        addresses
    }

    /// Refuses addresses to connect from that could reach none of the fixed addresses, and fixed
    /// addresses that none of them could reach. A name's addresses are not known here.
    fn families(&mut self, destination: &Destination, source_ips: &[IpAddr]) {
        let Some(addresses) = destination.addresses().filter(|_| !source_ips.is_empty()) else {
            return;
        };
        let family = |address: &IpAddr| if address.is_ipv4() { "IPv4" } else { "IPv6" };
        for address in addresses {
            if !source_ips.iter().any(|source| family(source) == family(address)) {
                let message = format_args!(
                    "has no {} address for destination `{address}`: add one, or leave that address \
                        out",
                    family(address)
                );
                return self.problems.push(Diagnostic::unlocated("source_ips", message));
            }
        }
        for (n, source) in source_ips.iter().enumerate() {
            if !addresses.iter().any(|address| family(source) == family(address)) {
                let message = format_args!(
                    "`{source}` is {}, and no destination address is: remove it",
                    family(source)
                );
                self.problems.push(Diagnostic::unlocated(format!("source_ips[{n}]"), message));
            }
        }
    }
}

/// Ports as texts or bare numbers.
fn ports<'de, D: serde::Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<Vec<String>>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged, expecting = "expected a port such as 443 or \"80:8080\"")]
    enum Port {
        Number(u64),
        Text(String),
    }
    let ports = Option::<Vec<Port>>::deserialize(deserializer)?;
    Ok(ports.map(|ports| {
        ports
            .into_iter()
            .map(|port| match port {
                Port::Number(number) => number.to_string(),
                Port::Text(text) => text,
            })
            .collect()
    }))
}

impl fmt::Display for RawDestination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::One(text) => f.write_str(text),
            Self::Many(texts) => f.write_str(&texts.join(", ")),
        }
    }
}
