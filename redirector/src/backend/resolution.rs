//! What is known about one target, and what each look-up makes of it: pure, so that every rule is a
//! test.

use std::{net::IpAddr, time::Duration};

use jiff::Timestamp;

use super::{
    Freshness, Resolved, Target,
    lookup::{Answer, Family},
};
use crate::route::{Destination, MAX_BACKENDS};

/// An answer counts at least this long.
const TTL_FLOOR: Duration = Duration::from_secs(1);
/// And at most this long.
pub(super) const TTL_CEILING: Duration = Duration::from_secs(300);
/// The first wait after a failure; doubled by each one since.
const RETRY_FIRST: Duration = Duration::from_secs(1);
/// The longest wait after a failure, or after an authoritative no.
const RETRY_LONGEST: Duration = Duration::from_secs(30);
/// An authoritative no without an SOA counts this long.
const NEGATIVE: Duration = Duration::from_secs(5);
/// So many authoritative noes in a row empty a route.
const EMPTIES: u32 = 3;
/// One target.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) target: Target,
    v4: Vec<IpAddr>,
    v6: Vec<IpAddr>,
    freshness: Freshness,
    resolved_at: Timestamp,
    ttl: Duration,
    failures: u32,
    empties: u32,
    /// Whether it ever had an answer; then there is something to keep, if only the knowledge that
    /// there is nothing.
    known: bool,
    settled: bool,
    warned_of_cut: bool,
}

impl Entry {
    /// A target of which nothing is known yet; literal addresses are known at once.
    pub(super) fn new(target: Target, now: Timestamp) -> Self {
        let mut entry = Self {
            target,
            v4: vec![],
            v6: vec![],
            freshness: Freshness::Unresolved { error: None },
            resolved_at: now,
            ttl: TTL_CEILING,
            failures: 0,
            empties: 0,
            known: false,
            settled: false,
            warned_of_cut: false,
        };
        if let Destination::Addresses(addresses) = &entry.target.destination {
            let addresses = addresses.clone();
            entry.take(addresses);
            entry.freshness = Freshness::Fixed;
            entry.settled = true;
        }
        entry
    }

    /// Starts with addresses that an earlier run of the agent learned.
    pub(super) fn restore(
        &mut self,
        addresses: Vec<IpAddr>,
        resolved_at: Timestamp,
        ttl: Duration,
    ) {
        self.take(addresses);
        self.freshness =
            Freshness::Kept { error: "known from before the start, not asked again yet".into() };
        self.resolved_at = resolved_at;
        self.ttl = ttl.clamp(TTL_FLOOR, TTL_CEILING);
        self.known = true;
    }

    /// The name to look up; none for literal addresses.
    pub(super) fn name(&self) -> Option<&str> {
        match &self.target.destination {
            Destination::Name(name) => Some(name),
            Destination::Addresses(_) => None,
        }
    }

    /// Whether there has been an answer, or a failure that leaves addresses to go on with.
    pub(super) fn is_settled(&self) -> bool {
        self.settled
    }

    /// Whether the last look-up gave what is known.
    pub(super) fn is_answered(&self) -> bool {
        self.freshness == Freshness::Fresh
    }

    /// Whether the addresses came from a look-up and are worth keeping for the next start.
    pub(super) fn is_worth_saving(&self) -> bool {
        self.known && self.name().is_some() && !(self.v4.is_empty() && self.v6.is_empty())
    }

    /// What others may see.
    pub(super) fn resolved(&self) -> Resolved {
        let mut addresses = [&self.v4[..], &self.v6[..]].concat();
        addresses.truncate(MAX_BACKENDS);
        Resolved {
            addresses,
            freshness: self.freshness.clone(),
            resolved_at: self.resolved_at,
            ttl: self.ttl,
        }
    }

    /// Takes in what a look-up found, and says after what time the next one is due, jitter aside.
    pub(super) fn apply(&mut self, answer: Answer, now: Timestamp) -> Duration {
        match answer {
            Answer {
                v4: Family::Empty { reason, ttl: one },
                v6: Family::Empty { ttl: other, .. },
            } => self.empty(reason, one.into_iter().chain(other).min(), now),
            Answer { v4: Family::Failed(error), v6: Family::Failed(_) | Family::Empty { .. } }
            | Answer { v4: Family::Empty { .. }, v6: Family::Failed(error) } => self.failed(error),
            answer => self.answered(answer, now),
        }
    }

    /// At least one family has addresses. The other one is cleared by a no, and kept by a failure.
    fn answered(&mut self, answer: Answer, now: Timestamp) -> Duration {
        let mut ttl = TTL_CEILING;
        let mut kept = None;
        for (family, mine) in [(answer.v4, &mut self.v4), (answer.v6, &mut self.v6)] {
            match family {
                Family::Addresses { addresses, ttl: theirs } => {
                    *mine = sorted(addresses);
                    ttl = ttl.min(theirs);
                }
                Family::Empty { .. } => mine.clear(),
                Family::Failed(error) if !mine.is_empty() => kept = Some(error),
                Family::Failed(_) => {}
            }
        }
        self.freshness = kept.map_or(Freshness::Fresh, |error| Freshness::Kept { error });
        self.resolved_at = now;
        self.ttl = ttl.clamp(TTL_FLOOR, TTL_CEILING);
        (self.failures, self.empties) = (0, 0);
        (self.known, self.settled) = (true, true);
        self.warn_of_cut();
        self.ttl
    }

    /// The name authoritatively has no address.
    fn empty(&mut self, reason: String, ttl: Option<Duration>, now: Timestamp) -> Duration {
        self.failures = 0;
        self.empties += 1;
        self.settled = true;
        if self.empties >= EMPTIES {
            self.v4.clear();
            self.v6.clear();
            self.freshness = Freshness::Fresh;
            self.resolved_at = now;
            self.known = true;
        } else {
            self.worsen(format!(
                "{reason}, as {} of the {EMPTIES} answers in a row that it takes to be believed",
                self.empties
            ));
        }
        ttl.unwrap_or(NEGATIVE).clamp(TTL_FLOOR, RETRY_LONGEST)
    }

    fn failed(&mut self, error: String) -> Duration {
        let wait = RETRY_FIRST.saturating_mul(1 << self.failures.min(5)).min(RETRY_LONGEST);
        self.failures = self.failures.saturating_add(1);
        self.empties = 0;
        self.settled |= self.known;
        self.worsen(error);
        wait
    }

    fn worsen(&mut self, error: String) {
        self.freshness = if self.known {
            Freshness::Kept { error }
        } else {
            Freshness::Unresolved { error: Some(error) }
        };
    }

    fn take(&mut self, addresses: Vec<IpAddr>) {
        let (v4, v6) = addresses.into_iter().partition(IpAddr::is_ipv4);
        (self.v4, self.v6) = (sorted(v4), sorted(v6));
        self.warn_of_cut();
    }

    fn warn_of_cut(&mut self) {
        let all = self.v4.len() + self.v6.len();
        if all > MAX_BACKENDS && !self.warned_of_cut {
            self.warned_of_cut = true;
            let name = self.name().unwrap_or("the list of addresses");
            tracing::warn!(
                name,
                addresses = all,
                "only the first {MAX_BACKENDS} addresses are used"
            );
        }
    }
}

fn sorted(mut addresses: Vec<IpAddr>) -> Vec<IpAddr> {
    addresses.sort_unstable();
    addresses.dedup();
    // Kept for as long as the route, and most names have one or two.
    addresses.shrink_to_fit();
    addresses
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry() -> Entry {
        Entry::new(
            Target { destination: Destination::Name("lb.example".into()), resolver: None },
            Timestamp::UNIX_EPOCH,
        )
    }

    fn found(last: u8, seconds: u64) -> Family {
        Family::Addresses {
            addresses: vec![IpAddr::from([203, 0, 113, last])],
            ttl: Duration::from_secs(seconds),
        }
    }

    fn no(seconds: Option<u64>) -> Family {
        Family::Empty { reason: "no".into(), ttl: seconds.map(Duration::from_secs) }
    }

    fn failed() -> Family {
        Family::Failed("SERVFAIL".into())
    }

    fn apply(entry: &mut Entry, v4: Family, v6: Family) -> u64 {
        entry.apply(Answer { v4, v6 }, Timestamp::now()).as_secs()
    }

    #[test]
    fn the_ttl_has_a_floor_and_a_ceiling() {
        let mut entry = entry();
        assert_eq!(
            [0, 1, 60, 300, 86_400].map(|ttl| apply(&mut entry, found(7, ttl), no(None))),
            [1, 1, 60, 300, 300]
        );
    }

    #[test]
    fn failures_are_retried_ever_later_and_an_answer_starts_over() {
        let mut entry = entry();
        let waits = [(); 7].map(|()| apply(&mut entry, failed(), failed()));
        assert_eq!(waits, [1, 2, 4, 8, 16, 30, 30]);
        apply(&mut entry, found(7, 60), no(None));
        assert_eq!(apply(&mut entry, failed(), failed()), 1);
    }

    #[test]
    fn a_no_counts_for_its_own_ttl_within_bounds() {
        let mut entry = entry();
        assert_eq!(
            [None, Some(0), Some(10), Some(3600)].map(|ttl| apply(&mut entry, no(ttl), no(ttl))),
            [5, 1, 10, 30]
        );
    }

    #[test]
    fn a_failure_between_two_noes_starts_their_count_over() {
        let mut entry = entry();
        apply(&mut entry, found(7, 60), no(None));
        for _ in 0..5 {
            apply(&mut entry, no(None), no(None));
            apply(&mut entry, no(None), no(None));
            apply(&mut entry, no(None), failed());
        }
        assert_eq!(entry.resolved().addresses, [IpAddr::from([203, 0, 113, 7])]);
    }

    #[test]
    fn an_emptied_target_that_fails_stays_empty_and_known() {
        let mut entry = entry();
        for _ in 0..3 {
            apply(&mut entry, no(None), no(None));
        }
        assert_eq!(
            (entry.resolved().addresses, entry.resolved().freshness),
            (vec![], Freshness::Fresh)
        );
        apply(&mut entry, failed(), failed());
        assert!(matches!(entry.resolved().freshness, Freshness::Kept { .. }));
        assert!(!entry.is_worth_saving());
    }
}
