//! Asking for the addresses of a name, through hickory-resolver.
//!
//! One resolver per server and our own order of asking: hickory's pool takes the first answer of
//! two servers even if it is SERVFAIL, and tells servers apart by address without the port. Its
//! cache is off, so that the TTL rules are ours alone.

use std::{
    collections::HashMap,
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use arc_swap::ArcSwap;
use hickory_proto::{
    op::ResponseCode,
    rr::{Name, RData, RecordType},
};
use hickory_resolver::{
    Resolver,
    config::{
        ConnectionConfig, NameServerConfig, ProtocolConfig, ResolveHosts, ResolverConfig,
        ResolverOpts,
    },
    net::{DnsError, NetError},
};

use super::marked_runtime::Marked;
use crate::net::Nameservers;

/// One server has this long to answer.
const TIMEOUT: Duration = Duration::from_secs(2);

/// And this long for one address family after the other one has addresses.
const GRACE: Duration = Duration::from_millis(500);

/// What one look-up found out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Answer {
    pub(super) v4: Family,
    pub(super) v6: Family,
}

/// What one look-up found out about one address family.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Family {
    /// At least one address, and the shortest TTL on the way to it.
    Addresses { addresses: Vec<IpAddr>, ttl: Duration },
    /// An authoritative no.
    Empty {
        /// NODATA or NXDOMAIN, in words.
        reason: String,
        /// For how long that counts, if it was said.
        ttl: Option<Duration>,
    },
    /// No answer that can be relied on.
    Failed(String),
}

/// Asks servers about names.
#[derive(Debug)]
pub(super) struct Resolvers {
    nameservers: ArcSwap<Nameservers>,
    by_server: Mutex<HashMap<SocketAddr, Resolver<Marked>>>,
}

impl Resolvers {
    pub(super) fn new(nameservers: Nameservers) -> Self {
        Self { nameservers: ArcSwap::from_pointee(nameservers), by_server: Mutex::default() }
    }

    /// Asks others from now on, where a route has no resolver of its own.
    pub(super) fn set_nameservers(&self, nameservers: Nameservers) {
        self.nameservers.store(Arc::new(nameservers));
        // Those that nobody asks any more shall not pile up.
        self.by_server.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// Both families of `name` at the same time, from `resolver`, else from the first nameserver
    /// that has an answer.
    pub(super) async fn lookup(&self, name: &str, resolver: Option<SocketAddr>) -> Answer {
        let servers = match resolver {
            Some(resolver) => vec![resolver],
            None => self.nameservers.load().current().to_vec(),
        };
        let mut absolute = match Name::from_ascii(name) {
            Ok(name) => name,
            Err(error) => {
                let failed = Family::Failed(format!("`{name}` is not a DNS name: {error}"));
                return Answer { v4: failed.clone(), v6: failed };
            }
        };
        absolute.set_fqdn(true);
        self.families(&absolute, &servers).await
    }

    /// Both at the same time. Once one has addresses the other gets only a little longer: there are
    /// servers that never answer AAAA, and what is known must not wait for them each time.
    async fn families(&self, name: &Name, servers: &[SocketAddr]) -> Answer {
        let v4 = self.family(name, RecordType::A, servers);
        let v6 = self.family(name, RecordType::AAAA, servers);
        tokio::pin!(v4, v6);
        tokio::select! {
            found = &mut v4 => Answer { v6: other(&found, v6).await, v4: found },
            found = &mut v6 => Answer { v4: other(&found, v4).await, v6: found },
        }
    }

    async fn family(&self, name: &Name, kind: RecordType, servers: &[SocketAddr]) -> Family {
        let mut failure = None;
        for server in servers {
            match self.ask(name, kind, *server).await {
                Family::Failed(why) => {
                    failure =
                        Some(failure.map_or_else(
                            || why.clone(),
                            |before: String| format!("{before}; {why}"),
                        ))
                }
                answer => return answer,
            }
        }
        Family::Failed(
            failure
                .or_else(|| self.nameservers.load().problem())
                .unwrap_or_else(|| "no nameserver to ask".into()),
        )
    }

    async fn ask(&self, name: &Name, kind: RecordType, server: SocketAddr) -> Family {
        let resolver = match self.resolver(server) {
            Ok(resolver) => resolver,
            Err(error) => {
                return Family::Failed(format!("failed to make a resolver for {server}: {error}"));
            }
        };
        // hickory has its own time-outs, which a retry over TCP starts anew.
        let answer = tokio::time::timeout(2 * TIMEOUT, resolver.lookup(name.clone(), kind))
            .await
            .unwrap_or(Err(NetError::Timeout));
        let records = match &answer {
            Ok(lookup) => lookup.answers(),
            Err(error) => return explain(server, error),
        };
        let addresses: Vec<_> = records
            .iter()
            .filter(|record| record.record_type() == kind)
            .filter_map(|record| address(&record.data))
            .collect();
        // A CNAME on the way counts as well: when it expires, the name may lead elsewhere.
        let on_the_way = records
            .iter()
            .filter(|record| [kind, RecordType::CNAME].contains(&record.record_type()));
        let ttl =
            Duration::from_secs(on_the_way.map(|record| u64::from(record.ttl)).min().unwrap_or(0));
        if addresses.is_empty() {
            return Family::Failed(format!("{server} answered with no usable address"));
        }
        Family::Addresses { addresses, ttl }
    }

    fn resolver(&self, server: SocketAddr) -> Result<Resolver<Marked>, NetError> {
        let mut by_server = self.by_server.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(resolver) = by_server.get(&server) {
            return Ok(resolver.clone());
        }
        let connections = [ProtocolConfig::Udp, ProtocolConfig::Tcp].map(|protocol| {
            let mut connection = ConnectionConfig::new(protocol);
            connection.port = server.port();
            connection
        });
        let config = ResolverConfig::from_name_servers(vec![NameServerConfig::new(
            server.ip(),
            true,
            connections.into(),
        )]);
        let mut builder = Resolver::builder_with_config(config, Marked::default());
        set_options(builder.options_mut());
        let resolver = builder.build()?;
        by_server.insert(server, resolver.clone());
        Ok(resolver)
    }
}

/// The other family, once one is known.
async fn other(known: &Family, other: impl Future<Output = Family>) -> Family {
    match known {
        Family::Addresses { .. } => tokio::time::timeout(GRACE, other).await.unwrap_or_else(|_| {
            Family::Failed(format!(
                "no answer for the other address family within {GRACE:?} of the first"
            ))
        }),
        _ => other.await,
    }
}

fn set_options(options: &mut ResolverOpts) {
    options.timeout = TIMEOUT;
    options.attempts = 1;
    options.cache_size = 0;
    options.use_hosts_file = ResolveHosts::Never;
    options.num_concurrent_reqs = 1;
    options.preserve_intermediates = true;
}

/// An address that a connect can lead to. `0.0.0.0` and `::` are how filters blank a name, and
/// would mean this host.
fn address(data: &RData) -> Option<IpAddr> {
    let ip = match data {
        RData::A(a) => IpAddr::V4(a.0),
        RData::AAAA(aaaa) => IpAddr::V6(aaaa.0),
        _ => return None,
    };
    (!ip.is_unspecified() && !ip.is_multicast()).then_some(ip)
}

fn explain(server: SocketAddr, error: &NetError) -> Family {
    match error {
        NetError::Dns(DnsError::NoRecordsFound(none))
            if none.soa.is_none() && none.ns.is_some() =>
        {
            Family::Failed(format!(
                "{server} answered with a referral: it does not resolve names for us"
            ))
        }
        NetError::Dns(DnsError::NoRecordsFound(none)) => {
            let what = if none.response_code == ResponseCode::NXDomain {
                "no such name"
            } else {
                "no address"
            };
            let ttl = none.negative_ttl.map(|seconds| Duration::from_secs(seconds.into()));
            Family::Empty { reason: format!("{server} says that there is {what}"), ttl }
        }
        NetError::Dns(DnsError::ResponseCode(code)) => {
            Family::Failed(format!("{server} answered {}", mnemonic(*code)))
        }
        NetError::Timeout => Family::Failed(format!("{server} did not answer within {TIMEOUT:?}")),
        other => Family::Failed(format!("asking {server} failed: {other}")),
    }
}

fn mnemonic(code: ResponseCode) -> String {
    match code {
        ResponseCode::ServFail => "SERVFAIL".into(),
        ResponseCode::Refused => "REFUSED".into(),
        ResponseCode::FormErr => "FORMERR".into(),
        ResponseCode::NotImp => "NOTIMP".into(),
        other => other.to_string(),
    }
}
