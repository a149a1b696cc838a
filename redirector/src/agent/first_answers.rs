//! The first answers of an agent that takes over: while the datapath is being opened, the shim
//! answers what the agent before it has left in the kernel.

use std::collections::BTreeSet;

use tracing::{info, warn};

use crate::{
    agent::state::desired_state,
    config::Config,
    datapath::{Preloaded, Settings},
    dns::{Answer, BoundShim, Zone},
    error::error_chain,
    pool::Pool,
    route::RouteSet,
    state::Leases,
};

/// Lets the shim answer, if the programs were loaded beside the agent before this one. A failure is
/// no reason to end: the shim then answers when the datapath is open.
pub(crate) fn serve(
    shim: &mut BoundShim,
    preloaded: &Preloaded,
    config: &Config,
    (routes, leases): (&RouteSet, &Leases),
) {
    // The real addresses are not known yet. And a lease has to be on disk before it is answered.
    if !config.dns.real_address_clients.is_empty() || !leases.pending().is_empty() {
        return;
    }
    match preloaded.installed(&Settings::from(config)) {
        Ok(Some(installed)) => {
            shim.publisher().publish(zone(&config.pool, (routes, leases), &installed));
            match shim.start() {
                Ok(()) => info!("answering DNS while the datapath is being opened"),
                Err(error) => warn!("failed to answer DNS at once: {}", error_chain(&error)),
            }
        }
        Ok(None) => {}
        Err(error) => warn!("failed to answer DNS at once: {}", error_chain(&error)),
    }
}

/// Every source: with its VIP if that is `installed`, else pending.
fn zone(pool: &Pool, (routes, leases): (&RouteSet, &Leases), installed: &BTreeSet<u32>) -> Zone {
    let answer = |source| {
        let index = leases.get(source).filter(|index| installed.contains(index))?;
        desired_state::vip(pool, index).map(Answer::from)
    };
    Zone::new(routes.iter().map(|entry| {
        let source = &entry.route.source;
        (source.clone(), answer(source).unwrap_or(Answer::Pending))
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        dns::Vip,
        route::{RawDestination, RawRoute, Route, SourceName},
    };

    fn route(source: &str) -> Route {
        let destination = RawDestination::One("lb.public".into());
        let raw = RawRoute { source: source.into(), destination, ..RawRoute::default() };
        raw.try_into().expect("a route")
    }

    #[test]
    fn what_the_kernel_does_not_have_is_pending() {
        let directory = tempfile::tempdir().expect("a directory");
        let pool = Pool::default();
        let routes = ["a.internal", "b.internal"].map(route).to_vec();
        let routes = RouteSet::new("file.toml".into(), pool.clone(), routes, Default::default());
        let path = directory.path().join("leases.json");
        let mut leases = Leases::open(path, &pool, vec![]).expect("no file");
        let names: [SourceName; 2] =
            ["a.internal", "b.internal"].map(|name| name.parse().expect("a name"));
        leases.lease_all(&names).expect("room");
        let index = leases.get(&names[0]).expect("leased");
        let zone = zone(&pool, (&routes, &leases), &BTreeSet::from([index]));
        let vip = Vip { v4: pool.ipv4_at(index).expect("in the pool"), v6: pool.ipv6_at(index) };
        assert_eq!(zone.get(&names[0]), Some(&Answer::from(vip)));
        assert_eq!(zone.get(&names[1]), Some(&Answer::Pending));
        assert_eq!(zone.len(), 2);
    }
}
