//! A token bucket for each client, in a table of fixed size.

use std::{
    fmt,
    hash::{BuildHasher, RandomState},
    net::IpAddr,
    time::Instant,
};

use parking_lot::Mutex;

use crate::net::client_key;

/// Sustained queries a second of one client. The busiest builds look up a few hundred names a
/// second, with eight queries each.
pub(crate) const QUERIES_PER_SECOND: u32 = 10_000;
/// Refusals a second that a denied client gets.
pub(crate) const REFUSALS_PER_SECOND: u32 = 10;
/// A bucket holds this many seconds' worth of tokens.
const BURST_SECONDS: u32 = 2;
/// Buckets in a set. A client's hash selects the set; a new client replaces the least recently used
/// bucket of its set.
const WAYS: usize = 4;
/// Sets of buckets: 8192 clients in 192 KiB. More clients at a time evict each other and start with
/// full buckets again.
const SETS: usize = 2048;
/// Buckets count thousandths of tokens, so that a millisecond adds a whole number of them.
const TOKEN: u64 = 1000;

#[derive(Clone, Copy, Default)]
struct Bucket {
    /// The client's hash; 0 for an unused bucket.
    client: u64,
    /// Thousandths of tokens at `updated_at`.
    tokens: u64,
    /// Milliseconds since the table was created.
    updated_at: u64,
}

/// The buckets. An IPv6 client is identified by its /64, since it may use every address in it.
pub(crate) struct RateLimiter {
    buckets: Mutex<Box<[Bucket]>>,
    /// Has a random key, so that a client cannot choose the set that it shares with others.
    hasher: RandomState,
    started: Instant,
}

impl fmt::Debug for RateLimiter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RateLimiter").finish_non_exhaustive()
    }
}

impl RateLimiter {
    pub(crate) fn new() -> Self {
        Self {
            buckets: Mutex::new(vec![Bucket::default(); SETS * WAYS].into()),
            hasher: RandomState::new(),
            started: Instant::now(),
        }
    }

    /// Takes a token out of the client's bucket, which fills at `rate` tokens a second. Returns
    /// whether there was one.
    pub(crate) fn try_acquire(&self, client: IpAddr, rate: u32, now: Instant) -> bool {
        // Never 0, which marks an unused bucket.
        let hash = self.hasher.hash_one(client_key(client)).max(1);
        let now = u64::try_from(now.saturating_duration_since(self.started).as_millis())
            .unwrap_or(u64::MAX);
        let full = u64::from(rate * BURST_SECONDS) * TOKEN;
        let mut buckets = self.buckets.lock();
        let new = Bucket { client: hash, tokens: full, updated_at: now };
        let bucket = find_or_replace(&mut buckets, new);
        let refill = now.saturating_sub(bucket.updated_at) * u64::from(rate);
        bucket.tokens = (bucket.tokens + refill).min(full);
        bucket.updated_at = now;
        let admitted = bucket.tokens >= TOKEN;
        if admitted {
            bucket.tokens -= TOKEN;
        }
        admitted
    }
}

/// The bucket of the same client as `new`; if there is none, `new` replaces the least recently used
/// bucket of its set.
fn find_or_replace(buckets: &mut [Bucket], new: Bucket) -> &mut Bucket {
    let first = new.client as usize % SETS * WAYS;
    let set = &mut buckets[first..first + WAYS];
    let way = set.iter().position(|bucket| bucket.client == new.client).unwrap_or_else(|| {
        let oldest = (0..WAYS).min_by_key(|way| set[*way].updated_at).unwrap_or(0);
        set[oldest] = new;
        oldest
    });
    &mut set[way]
}

#[cfg(test)]
mod tests {
    use std::{net::Ipv4Addr, time::Duration};

    use super::*;

    const ONE: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1));
    const BURST: u32 = QUERIES_PER_SECOND * BURST_SECONDS;

    fn admitted(limiter: &RateLimiter, client: IpAddr, tries: u32, now: Instant) -> u32 {
        (0..tries)
            .filter(|_| limiter.try_acquire(client, QUERIES_PER_SECOND, now))
            .count()
            .try_into()
            .expect("few")
    }

    #[test]
    fn a_client_gets_its_burst_then_its_rate_apart_from_others() {
        let (limiter, now) = (RateLimiter::new(), Instant::now());
        assert_eq!(admitted(&limiter, ONE, 50_000, now), BURST);
        assert_eq!(admitted(&limiter, [10, 0, 0, 2].into(), 100, now), 100);
        assert_eq!(
            admitted(&limiter, ONE, 50_000, now + Duration::from_millis(100)),
            QUERIES_PER_SECOND / 10
        );
        assert_eq!(
            admitted(&limiter, ONE, 50_000, now + Duration::from_secs(60)),
            BURST,
            "never more than a bucket"
        );
    }

    #[test]
    fn a_storm_of_search_domains_is_admitted() {
        // With ndots:5 and three search domains, four names are looked up in two families.
        const LOOKUP: u32 = (3 + 1) * 2;
        let (limiter, now) = (RateLimiter::new(), Instant::now());
        assert_eq!(
            admitted(&limiter, ONE, 2500 * LOOKUP, now),
            2500 * LOOKUP,
            "2,500 lookups at once"
        );
        assert_eq!(
            admitted(&limiter, ONE, 1250 * LOOKUP, now + Duration::from_secs(1)),
            1250 * LOOKUP,
            "and 1,250 each second"
        );
    }

    #[test]
    fn memory_is_bounded_and_an_ipv6_network_is_one_client() {
        let (limiter, now) = (RateLimiter::new(), Instant::now() + Duration::from_millis(1));
        for n in 0..1_000_000_u32 {
            assert!(limiter.try_acquire(IpAddr::V4(n.into()), QUERIES_PER_SECOND, now));
        }
        let used = |buckets: &[Bucket]| buckets.iter().filter(|bucket| bucket.client != 0).count();
        assert_eq!(used(&limiter.buckets.lock()), SETS * WAYS);
        let hosts = |n: u32| IpAddr::from([0xfd00, 0, 0, 1, 0, 0, (n >> 16) as u16, n as u16]);
        let admitted = (0..BURST * 2)
            .filter(|n| limiter.try_acquire(hosts(*n), QUERIES_PER_SECOND, now))
            .count();
        assert_eq!(admitted, BURST as usize);
    }
}
