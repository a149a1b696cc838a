//! Limits each client's share of a bounded resource: queries that wait for upstreams, or TCP
//! connections.

use std::{collections::HashMap, net::IpAddr, sync::Arc};

use parking_lot::Mutex;

use super::rate_limit::client_key;

/// The units that each client holds. A client without any takes no memory.
#[derive(Debug)]
pub(crate) struct ClientShares {
    per_client: u32,
    /// By [`client_key`].
    held: Mutex<HashMap<u64, u32>>,
}

/// One unit of the resource, until it is dropped.
#[derive(Debug)]
pub(crate) struct ClientShare {
    shares: Arc<ClientShares>,
    client: u64,
}

impl ClientShares {
    /// At most `per_client` units for one client.
    pub(crate) fn new(per_client: usize) -> Arc<Self> {
        let per_client = u32::try_from(per_client).unwrap_or(u32::MAX);
        Arc::new(Self { per_client, held: Mutex::default() })
    }

    /// One more unit for the client; `None` if it holds its share already.
    pub(crate) fn try_acquire(self: &Arc<Self>, client: IpAddr) -> Option<ClientShare> {
        let client = client_key(client);
        let mut held = self.held.lock();
        let count = held.entry(client).or_default();
        (*count < self.per_client).then(|| {
            *count += 1;
            ClientShare { shares: Arc::clone(self), client }
        })
    }
}

impl Drop for ClientShare {
    fn drop(&mut self) {
        let mut held = self.shares.held.lock();
        if let Some(count) = held.get_mut(&self.client) {
            *count -= 1;
            if *count == 0 {
                held.remove(&self.client);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dropped_share_is_free_and_an_idle_client_takes_no_memory() {
        let one = IpAddr::from([10, 0, 0, 1]);
        let shares = ClientShares::new(2);
        let held = [shares.try_acquire(one), shares.try_acquire(one)];
        assert!(held.iter().all(Option::is_some) && shares.try_acquire(one).is_none());
        assert!(shares.try_acquire([10, 0, 0, 2].into()).is_some());
        drop(held);
        assert!(shares.held.lock().is_empty());
        assert!(shares.try_acquire(one).is_some());
    }
}
