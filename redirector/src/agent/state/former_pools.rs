//! Former pools: how long they are served, and what is left of them.

use std::time::Duration;

use ipnet::IpNet;
use tracing::{info, warn};

use crate::{
    datapath::{Datapath, FORMER_POOL_TIME},
    error::error_chain,
    host,
    pool::Pool,
};

/// The pools that were in force before.
#[derive(Debug)]
pub(crate) struct FormerPools {
    /// How long they are served.
    time: Duration,
    /// Those that the start has found in force, and that are not the configuration's.
    replaced: Vec<IpNet>,
}

impl FormerPools {
    /// Of a start that has found the pools `pinned` in force. They are not served if something
    /// else of this host has their addresses, which may be why the pool was changed.
    pub(crate) async fn find(datapath: &Datapath, pinned: &[IpNet]) -> Self {
        let ours = datapath.pool().nets();
        let replaced: Vec<_> = pinned.iter().copied().filter(|net| !ours.contains(net)).collect();
        let mut time = FORMER_POOL_TIME;
        for pool in datapath.former_pools().iter().chain(&replaced) {
            let IpNet::V4(ipv4) = *pool else { continue };
            let pool = Pool { ipv4, ipv6: None, guard: false };
            let routes = host::conflicting_routes(&pool).await.unwrap_or_default();
            if let Some(route) = routes.first() {
                info!("the former pool {ipv4} is not served: this host has the route {route}");
                time = Duration::ZERO;
            }
        }
        Self { time, replaced }
    }

    /// Removes what served former pools when their time is over, and the guards of pools that are
    /// not served any more. Called every two seconds.
    pub(crate) fn step(&mut self, datapath: &mut Datapath) {
        if datapath.lacks_routes() {
            return;
        }
        let mut ended = match datapath.retire_former_pools(self.time) {
            Ok(retired) => retired,
            Err(error) => return warn!("a former pool stays: {}", error_chain(&error)),
        };
        let served = datapath.former_pools();
        ended.extend(self.replaced.drain(..).filter(|pool| !served.contains(pool)));
        for pool in ended {
            info!("the former pool {pool} is not served any more");
            tokio::spawn(async move {
                if let Err(error) = host::remove_guard(pool).await {
                    warn!("the guard of the former pool {pool} stays: {}", error_chain(&error));
                }
            });
        }
    }
}
