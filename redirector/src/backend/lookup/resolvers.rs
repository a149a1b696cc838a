//! Looks up names at the nameservers of the configuration, or at a route's own.

use std::{collections::HashMap, net::SocketAddr, sync::Arc, time::Duration};

use arc_swap::ArcSwap;
use hickory_proto::rr::Name;
use parking_lot::Mutex;

use super::{
    result::{Family, FamilyResult, LookupResult},
    server::Server,
};
use crate::{backend::address_policy::AddressPolicy, net::Nameservers};

/// Longest wait for one address family after the other one has addresses.
pub(super) const SECOND_FAMILY_GRACE: Duration = Duration::from_millis(500);

/// Looks up names at servers.
#[derive(Debug)]
pub(in crate::backend) struct Resolvers {
    policy: AddressPolicy,
    nameservers: ArcSwap<Nameservers>,
    servers: Mutex<HashMap<SocketAddr, Arc<Server>>>,
}

impl Resolvers {
    pub(in crate::backend) fn new(nameservers: Nameservers, policy: AddressPolicy) -> Self {
        Self { policy, nameservers: ArcSwap::from_pointee(nameservers), servers: Mutex::default() }
    }

    /// Replaces the servers for routes without a resolver of their own.
    pub(in crate::backend) fn set_nameservers(&self, nameservers: Nameservers) {
        self.nameservers.store(Arc::new(nameservers));
        // Forgets servers that are no longer used.
        self.servers.lock().clear();
    }

    /// Looks up both families of `name`, at `resolver` or else at the first nameserver with an
    /// answer.
    pub(in crate::backend) async fn lookup(
        &self,
        name: &str,
        resolver: Option<SocketAddr>,
    ) -> LookupResult {
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
        let v4 = self.lookup_family(name, Family::V4, servers);
        let v6 = self.lookup_family(name, Family::V6, servers);
        tokio::pin!(v4, v6);
        tokio::select! {
            found = &mut v4 => LookupResult { v6: second_family(&found, v6).await, v4: found },
            found = &mut v6 => LookupResult { v4: second_family(&found, v4).await, v6: found },
        }
    }

    async fn lookup_family(
        &self,
        name: &Name,
        family: Family,
        servers: &[SocketAddr],
    ) -> FamilyResult {
        let mut errors = Vec::new();
        for server in servers {
            match self.server(*server).lookup(name, family, &self.policy).await {
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

    fn server(&self, address: SocketAddr) -> Arc<Server> {
        let mut servers = self.servers.lock();
        Arc::clone(servers.entry(address).or_insert_with(|| Arc::new(Server::new(address))))
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
