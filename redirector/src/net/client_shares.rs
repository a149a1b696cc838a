//! Divides a bounded resource among clients: queries that wait for upstreams, TCP connections, or
//! streams of events.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
};

use parking_lot::Mutex;

/// A resource and the units of it that each client holds. A client may take more while it holds
/// less than what is free, so others find room: one greedy client gets half of all, two get a third
/// each.
#[derive(Debug)]
pub(crate) struct ClientShares {
    capacity: AtomicUsize,
    held: Mutex<Held>,
}

#[derive(Debug, Default)]
struct Held {
    total: usize,
    /// By [`client_key`]. A client that holds nothing takes no memory.
    by_client: HashMap<u64, usize>,
}

/// One unit of the resource, until it is dropped.
#[derive(Debug)]
pub(crate) struct ClientShare {
    shares: Arc<ClientShares>,
    client: u64,
}

/// Why a client gets no more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NoShare {
    /// It holds its share.
    ClientLimit,
    /// All units are in use.
    Exhausted,
}

impl ClientShares {
    /// A resource of `capacity` units.
    pub(crate) fn new(capacity: usize) -> Arc<Self> {
        Arc::new(Self { capacity: capacity.into(), held: Mutex::default() })
    }

    /// Changes the number of units.
    pub(crate) fn set_capacity(&self, capacity: usize) {
        self.capacity.store(capacity, Relaxed);
    }

    /// One more unit for the client.
    pub(crate) fn try_acquire(self: &Arc<Self>, client: IpAddr) -> Result<ClientShare, NoShare> {
        let client = client_key(client);
        let mut held = self.held.lock();
        let free = self.capacity.load(Relaxed).saturating_sub(held.total);
        let count = held.by_client.get(&client).copied().unwrap_or_default();
        if free == 0 {
            return Err(NoShare::Exhausted);
        }
        if count > 0 && count >= free {
            return Err(NoShare::ClientLimit);
        }
        held.total += 1;
        held.by_client.insert(client, count + 1);
        Ok(ClientShare { shares: Arc::clone(self), client })
    }
}

impl Drop for ClientShare {
    fn drop(&mut self) {
        let mut held = self.shares.held.lock();
        held.total -= 1;
        if let Some(count) = held.by_client.get_mut(&self.client) {
            *count -= 1;
            if *count == 0 {
                held.by_client.remove(&self.client);
            }
        }
    }
}

/// The number that identifies a client: its IPv4 address, or the /64 of its IPv6 address.
pub(crate) fn client_key(client: IpAddr) -> u64 {
    match client {
        IpAddr::V4(v4) => u64::from(v4.to_bits()),
        // The top bit separates them from IPv4 addresses.
        IpAddr::V6(v6) => u64::try_from(v6.to_bits() >> 64).unwrap_or(0) | 1 << 63,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(last: u8) -> IpAddr {
        IpAddr::from([10, 0, 0, last])
    }

    /// Takes as much as the client gets.
    fn take_all(shares: &Arc<ClientShares>, client: IpAddr) -> Vec<ClientShare> {
        std::iter::from_fn(|| shares.try_acquire(client).ok()).collect()
    }

    #[test]
    fn a_dropped_share_is_free_and_an_idle_client_takes_no_memory() {
        let shares = ClientShares::new(4);
        let held = take_all(&shares, client(1));
        assert_eq!(held.len(), 2);
        assert_eq!(shares.try_acquire(client(1)).unwrap_err(), NoShare::ClientLimit);
        assert!(shares.try_acquire(client(2)).is_ok());
        drop(held);
        assert!(shares.held.lock().by_client.is_empty());
        assert!(shares.try_acquire(client(1)).is_ok());
    }

    #[test]
    fn greedy_clients_leave_room_for_others() {
        let shares = ClientShares::new(1000);
        let mut held = Vec::new();
        for greedy in 1..=5 {
            held.push(take_all(&shares, client(greedy)));
        }
        let taken: usize = held.iter().map(Vec::len).sum();
        assert!(taken < 980, "{taken}");
        assert_eq!(take_all(&shares, client(99)).len(), (1000 - taken).div_ceil(2));
        shares.set_capacity(taken);
        assert_eq!(shares.try_acquire(client(99)).unwrap_err(), NoShare::Exhausted);
    }
}
