//! How much one client may ask: a bucket of queries for each, in a table of fixed size, and its
//! share of the queries that wait for upstreams, and of the connections.

use std::{
    collections::HashMap,
    hash::{BuildHasher, RandomState},
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Instant,
};

/// Queries a second that a client may go on with. The busiest builds look up a few hundred names a
/// second, eight queries each.
pub(crate) const RATE: u32 = 10_000;
/// Refusals a second that a stranger gets.
pub(crate) const REFUSALS: u32 = 10;
/// A bucket holds this many seconds' worth.
const DEPTH: u32 = 2;
/// Buckets that a client's hash chooses among; the least recently used one is given to a newcomer.
const WAYS: usize = 4;
/// Sets of buckets: 8192 clients, 192 KiB. More clients than that at one time begin with full
/// buckets again and again.
const SETS: usize = 2048;
/// Tokens are counted in thousandths, so that a bucket fills by the millisecond.
const TOKEN: u64 = 1000;

#[derive(Clone, Copy, Default)]
struct Bucket {
    /// The client's hash; 0: nobody's.
    client: u64,
    /// Thousandths of tokens left.
    left: u64,
    /// Milliseconds since the table was made at which `left` was right.
    at: u64,
}

/// The buckets. A v6 client is its /64: it has all of that to itself.
pub(crate) struct Quotas {
    buckets: Mutex<Box<[Bucket]>>,
    /// Keyed at random, so that nobody chooses whom to share a set with.
    hasher: RandomState,
    started: Instant,
}

impl std::fmt::Debug for Quotas {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Quotas").finish_non_exhaustive()
    }
}

impl Quotas {
    pub(crate) fn new() -> Self {
        Self {
            buckets: Mutex::new(vec![Bucket::default(); SETS * WAYS].into()),
            hasher: RandomState::new(),
            started: Instant::now(),
        }
    }

    /// Takes a token out of the client's bucket, which fills at `rate` a second; false when there
    /// is none.
    pub(crate) fn admit(&self, client: IpAddr, rate: u32, now: Instant) -> bool {
        let hash = self.hasher.hash_one(identity(client)) | 1;
        let now = u64::try_from(now.saturating_duration_since(self.started).as_millis())
            .unwrap_or(u64::MAX);
        let full = u64::from(rate * DEPTH) * TOKEN;
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        // Any spread of sets does; the low bit is taken.
        let set = usize::try_from(hash >> 32).unwrap_or(0) % SETS * WAYS;
        let set = &mut buckets[set..set + WAYS];
        let at = set.iter().position(|bucket| bucket.client == hash).unwrap_or_else(|| {
            let oldest = (0..WAYS).min_by_key(|at| set[*at].at).unwrap_or(0);
            set[oldest] = Bucket { client: hash, left: full, at: now };
            oldest
        });
        let bucket = &mut set[at];
        bucket.left = (bucket.left + now.saturating_sub(bucket.at) * u64::from(rate)).min(full);
        bucket.at = now;
        let admitted = bucket.left >= TOKEN;
        if admitted {
            bucket.left -= TOKEN;
        }
        admitted
    }
}

fn identity(client: IpAddr) -> u64 {
    match client {
        IpAddr::V4(v4) => u64::from(v4.to_bits()),
        // The high half; no v4 address has bits there.
        IpAddr::V6(v6) => u64::try_from(v6.to_bits() >> 64).unwrap_or(0) | 1 << 63,
    }
}

/// Who has how much of something that there is only so much of: queries that wait for upstreams,
/// connections. As large as its content.
#[derive(Debug)]
pub(crate) struct Shares {
    most: u32,
    /// By [`identity`].
    taken: Mutex<HashMap<u64, u32>>,
}

/// One of them, until it is dropped.
#[derive(Debug)]
pub(crate) struct Share {
    shares: Arc<Shares>,
    client: u64,
}

impl Shares {
    /// At most `most` for one client.
    pub(crate) fn new(most: usize) -> Arc<Self> {
        Arc::new(Self { most: u32::try_from(most).unwrap_or(u32::MAX), taken: Mutex::default() })
    }

    pub(crate) fn take(self: &Arc<Self>, client: IpAddr) -> Option<Share> {
        let client = identity(client);
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let has = taken.entry(client).or_default();
        (*has < self.most).then(|| {
            *has += 1;
            Share { shares: Arc::clone(self), client }
        })
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        let mut taken = self.shares.taken.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(has) = taken.get_mut(&self.client) {
            *has -= 1;
            if *has == 0 {
                taken.remove(&self.client);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const ONE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 1));

    fn admitted(quotas: &Quotas, client: IpAddr, tries: u32, now: Instant) -> u32 {
        (0..tries).filter(|_| quotas.admit(client, RATE, now)).count().try_into().expect("few")
    }

    #[test]
    fn a_client_has_its_burst_then_its_rate_and_others_are_not_touched() {
        let (quotas, now) = (Quotas::new(), Instant::now());
        assert_eq!(admitted(&quotas, ONE, 50_000, now), RATE * DEPTH);
        assert_eq!(admitted(&quotas, [10, 0, 0, 2].into(), 100, now), 100);
        assert_eq!(admitted(&quotas, ONE, 50_000, now + Duration::from_millis(100)), RATE / 10);
        assert_eq!(
            admitted(&quotas, ONE, 50_000, now + Duration::from_secs(60)),
            RATE * DEPTH,
            "never more than a bucket"
        );
    }

    #[test]
    fn a_storm_of_search_domains_is_let_through() {
        // With ndots:5 and three search domains, four names are asked for in two families.
        const LOOKUP: u32 = (3 + 1) * 2;
        let (quotas, now) = (Quotas::new(), Instant::now());
        assert_eq!(
            admitted(&quotas, ONE, 2500 * LOOKUP, now),
            2500 * LOOKUP,
            "2,500 lookups at once"
        );
        assert_eq!(
            admitted(&quotas, ONE, 1250 * LOOKUP, now + Duration::from_secs(1)),
            1250 * LOOKUP,
            "and 1,250 each second"
        );
    }

    #[test]
    fn a_million_spoofed_clients_take_no_more_memory_and_a_network_of_v6_is_one_client() {
        let (quotas, now) = (Quotas::new(), Instant::now());
        for n in 0..1_000_000_u32 {
            assert!(quotas.admit(IpAddr::V4(n.into()), RATE, now));
        }
        assert_eq!(quotas.buckets.lock().expect("not poisoned").len(), SETS * WAYS);
        let hosts = |n: u32| IpAddr::from([0xfd00, 0, 0, 1, 0, 0, (n >> 16) as u16, n as u16]);
        let admitted = (0..RATE * DEPTH * 2).filter(|n| quotas.admit(hosts(*n), RATE, now)).count();
        assert_eq!(admitted, (RATE * DEPTH) as usize);
    }

    #[test]
    fn a_share_is_given_back_and_nothing_is_kept_of_who_has_none() {
        let shares = Shares::new(2);
        let held = [shares.take(ONE), shares.take(ONE)];
        assert!(held.iter().all(Option::is_some) && shares.take(ONE).is_none());
        assert!(shares.take([10, 0, 0, 2].into()).is_some());
        drop(held);
        assert!(shares.taken.lock().expect("not poisoned").is_empty());
        assert!(shares.take(ONE).is_some());
    }
}
