//! One look-up of each destination, for a command that runs beside an agent or without one.

use std::net::SocketAddr;

use futures_util::{StreamExt, stream};
use jiff::Timestamp;

use super::{
    address_policy::AddressPolicy,
    follow_task::MAX_CONCURRENT,
    lookup::Resolvers,
    resolution::Resolution,
    target::{Resolved, Target},
};
use crate::{config::Upstream, net::Nameservers, pool::Pool};

/// Looks up each target once, in the same order, as a follower would.
pub async fn look_up(
    targets: Vec<Target>,
    upstreams: Vec<Upstream>,
    own: Vec<SocketAddr>,
    pool: Pool,
) -> Vec<Resolved> {
    let policy = AddressPolicy::new(pool, own.iter().map(SocketAddr::ip));
    let resolvers = Resolvers::new(Nameservers::new(upstreams, own), policy);
    let lookups = targets.into_iter().map(async |target| {
        let mut resolution = Resolution::new(target, Timestamp::now());
        if let Some(name) = resolution.name().map(str::to_owned) {
            let result = resolvers.lookup(&name, resolution.target.resolver).await;
            resolution.apply(result, Timestamp::now());
        }
        resolution.resolved()
    });
    stream::iter(lookups).buffered(MAX_CONCURRENT).collect().await
}
