//! Looks up the addresses of a name through hickory-resolver.
//!
//! Each server has a hickory resolver of its own, and they are queried in our order: hickory's pool
//! takes the first answer of two servers even if it is SERVFAIL, and identifies servers by address
//! without port. Its cache is off, so that only our TTL rules apply.

use std::{
    collections::HashMap,
    net::{IpAddr, SocketAddr},
    sync::Arc,
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
use parking_lot::Mutex;

use super::marked_runtime::MarkedRuntime;
use crate::net::Nameservers;

/// Longest time for one server to answer.
const SERVER_TIMEOUT: Duration = Duration::from_secs(2);

/// Longest wait for one address family after the other one has addresses.
const SECOND_FAMILY_GRACE: Duration = Duration::from_millis(500);

/// The result of one look-up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct LookupResult {
    pub(super) v4: FamilyResult,
    pub(super) v6: FamilyResult,
}

/// The result of one look-up for one address family.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum FamilyResult {
    /// At least one address, and the shortest TTL of the records that lead to it.
    Addresses { addresses: Vec<IpAddr>, ttl: Duration },
    /// The name authoritatively has no address.
    Empty {
        /// NODATA or NXDOMAIN, as a message.
        reason: String,
        /// How long the answer is valid, if it has an SOA.
        ttl: Option<Duration>,
    },
    /// No reliable answer.
    Failed(String),
}

/// Looks up names at servers.
#[derive(Debug)]
pub(super) struct Resolvers {
    nameservers: ArcSwap<Nameservers>,
    by_server: Mutex<HashMap<SocketAddr, Resolver<MarkedRuntime>>>,
}

impl Resolvers {
    pub(super) fn new(nameservers: Nameservers) -> Self {
        Self { nameservers: ArcSwap::from_pointee(nameservers), by_server: Mutex::default() }
    }

    /// Replaces the servers for routes without a resolver of their own.
    pub(super) fn set_nameservers(&self, nameservers: Nameservers) {
        self.nameservers.store(Arc::new(nameservers));
        // Drops the resolvers of servers that are no longer used.
        self.by_server.lock().clear();
    }

    /// Looks up both families of `name`, at `resolver` or else at the first nameserver with an
    /// answer.
    pub(super) async fn lookup(&self, name: &str, resolver: Option<SocketAddr>) -> LookupResult {
        let servers = match resolver {
            Some(resolver) => vec![resolver],
            None => self.nameservers.load().current().to_vec(),
        };
        let mut absolute = match Name::from_ascii(name) {
            Ok(name) => name,
            Err(error) => {
                let failed = FamilyResult::Failed(format!("`{name}` is not a DNS name: {error}"));
                return LookupResult { v4: failed.clone(), v6: failed };
            }
        };
        absolute.set_fqdn(true);
        self.lookup_both(&absolute, &servers).await
    }

    /// Looks up both families concurrently. After one has addresses, the wait for the other is
    /// limited by [`SECOND_FAMILY_GRACE`], since some servers never answer AAAA.
    async fn lookup_both(&self, name: &Name, servers: &[SocketAddr]) -> LookupResult {
        let v4 = self.lookup_family(name, RecordType::A, servers);
        let v6 = self.lookup_family(name, RecordType::AAAA, servers);
        tokio::pin!(v4, v6);
        tokio::select! {
            found = &mut v4 => LookupResult { v6: second_family(&found, v6).await, v4: found },
            found = &mut v6 => LookupResult { v4: second_family(&found, v4).await, v6: found },
        }
    }

    async fn lookup_family(
        &self,
        name: &Name,
        kind: RecordType,
        servers: &[SocketAddr],
    ) -> FamilyResult {
        let mut errors = Vec::new();
        for server in servers {
            match self.query(name, kind, *server).await {
                FamilyResult::Failed(error) => errors.push(error),
                answer => return answer,
            }
        }
        if errors.is_empty() {
            let problem = self.nameservers.load().problem();
            return FamilyResult::Failed(problem.unwrap_or_else(|| "no nameserver".into()));
        }
        FamilyResult::Failed(errors.join("; "))
    }

    async fn query(&self, name: &Name, kind: RecordType, server: SocketAddr) -> FamilyResult {
        let resolver = match self.resolver(server) {
            Ok(resolver) => resolver,
            Err(error) => {
                return FamilyResult::Failed(format!(
                    "failed to make a resolver for {server}: {error}"
                ));
            }
        };
        // hickory has its own time-outs, which a retry over TCP starts again.
        let answer = tokio::time::timeout(2 * SERVER_TIMEOUT, resolver.lookup(name.clone(), kind))
            .await
            .unwrap_or(Err(NetError::Timeout));
        let records = match &answer {
            Ok(lookup) => lookup.answers(),
            Err(error) => return from_error(server, error),
        };
        let addresses: Vec<_> = records
            .iter()
            .filter(|record| record.record_type() == kind)
            .filter_map(|record| usable_address(&record.data))
            .collect();
        // The TTL of a CNAME counts as well: after it, the name may lead elsewhere.
        let relevant = records
            .iter()
            .filter(|record| [kind, RecordType::CNAME].contains(&record.record_type()));
        let ttl =
            Duration::from_secs(relevant.map(|record| u64::from(record.ttl)).min().unwrap_or(0));
        if addresses.is_empty() {
            return FamilyResult::Failed(format!("{server} answered with no usable address"));
        }
        FamilyResult::Addresses { addresses, ttl }
    }

    fn resolver(&self, server: SocketAddr) -> Result<Resolver<MarkedRuntime>, NetError> {
        let mut by_server = self.by_server.lock();
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
        let mut builder = Resolver::builder_with_config(config, MarkedRuntime::default());
        set_options(builder.options_mut());
        let resolver = builder.build()?;
        by_server.insert(server, resolver.clone());
        Ok(resolver)
    }
}

/// The result for the second family, given that for the first.
async fn second_family(
    first: &FamilyResult,
    second: impl Future<Output = FamilyResult>,
) -> FamilyResult {
    let FamilyResult::Addresses { .. } = first else { return second.await };
    let late = |_| {
        FamilyResult::Failed(format!(
            "no answer for the other address family within {SECOND_FAMILY_GRACE:?} of the first"
        ))
    };
    tokio::time::timeout(SECOND_FAMILY_GRACE, second).await.unwrap_or_else(late)
}

fn set_options(options: &mut ResolverOpts) {
    options.timeout = SERVER_TIMEOUT;
    options.attempts = 1;
    options.cache_size = 0;
    options.use_hosts_file = ResolveHosts::Never;
    options.num_concurrent_reqs = 1;
    options.preserve_intermediates = true;
}

/// An address to connect to. Filters answer `0.0.0.0` and `::` for a blocked name, which would mean
/// this host.
fn usable_address(data: &RData) -> Option<IpAddr> {
    let ip = match data {
        RData::A(a) => IpAddr::V4(a.0),
        RData::AAAA(aaaa) => IpAddr::V6(aaaa.0),
        _ => return None,
    };
    (!ip.is_unspecified() && !ip.is_multicast()).then_some(ip)
}

fn from_error(server: SocketAddr, error: &NetError) -> FamilyResult {
    match error {
        NetError::Dns(DnsError::NoRecordsFound(none))
            if none.soa.is_none() && none.ns.is_some() =>
        {
            FamilyResult::Failed(format!(
                "{server} answered with a referral: it does not resolve names for us"
            ))
        }
        NetError::Dns(DnsError::NoRecordsFound(none)) => {
            let missing = if none.response_code == ResponseCode::NXDomain {
                "no such name"
            } else {
                "no address"
            };
            let ttl = none.negative_ttl.map(|seconds| Duration::from_secs(seconds.into()));
            FamilyResult::Empty {
                reason: format!("{server} answered that there is {missing}"),
                ttl,
            }
        }
        NetError::Dns(DnsError::ResponseCode(code)) => {
            FamilyResult::Failed(format!("{server} answered {}", rcode_name(*code)))
        }
        NetError::Timeout => {
            FamilyResult::Failed(format!("{server} did not answer within {SERVER_TIMEOUT:?}"))
        }
        other => FamilyResult::Failed(format!("query to {server} failed: {other}")),
    }
}

fn rcode_name(code: ResponseCode) -> String {
    match code {
        ResponseCode::ServFail => "SERVFAIL".into(),
        ResponseCode::Refused => "REFUSED".into(),
        ResponseCode::FormErr => "FORMERR".into(),
        ResponseCode::NotImp => "NOTIMP".into(),
        other => other.to_string(),
    }
}
