//! The addresses of one target, and the rules by which look-ups change them. Pure, so that every
//! rule has a unit test.

use std::{net::IpAddr, time::Duration};

use jiff::Timestamp;

use super::{
    family_addresses::FamilyAddresses,
    lookup::{Family, FamilyResult, LookupResult},
    target::{Freshness, Resolved, Target},
};
use crate::route::{Destination, MAX_BACKENDS};

/// Shortest validity of an answer.
const TTL_MIN: Duration = Duration::from_secs(1);
/// Longest validity of an answer.
pub(super) const TTL_MAX: Duration = Duration::from_secs(300);
/// Wait after the first failure; each further one doubles it.
const RETRY_MIN: Duration = Duration::from_secs(1);
/// Longest wait after a failure or a negative answer.
const RETRY_MAX: Duration = Duration::from_secs(30);
/// Validity of a negative answer without an SOA.
const NEGATIVE_TTL: Duration = Duration::from_secs(5);

/// The state of one target.
#[derive(Debug)]
pub(super) struct Resolution {
    pub(super) target: Target,
    v4: FamilyAddresses,
    v6: FamilyAddresses,
    freshness: Freshness,
    resolved_at: Timestamp,
    ttl: Duration,
    failures: u32,
    /// Whether there was ever an answer, positive or negative.
    has_answer: bool,
    has_outcome: bool,
    warned_of_limit: bool,
}

impl Resolution {
    /// A target without an answer yet; literal addresses need none.
    pub(super) fn new(target: Target, now: Timestamp) -> Self {
        let mut resolution = Self {
            target,
            v4: FamilyAddresses::new(Family::V4),
            v6: FamilyAddresses::new(Family::V6),
            freshness: Freshness::Unresolved { error: None },
            resolved_at: now,
            ttl: TTL_MAX,
            failures: 0,
            has_answer: false,
            has_outcome: false,
            warned_of_limit: false,
        };
        if let Destination::Addresses(addresses) = &resolution.target.destination {
            let addresses = addresses.clone();
            resolution.set_addresses(addresses, now);
            resolution.freshness = Freshness::Literal;
            resolution.has_outcome = true;
        }
        resolution
    }

    /// Starts with addresses from an earlier run of the agent.
    pub(super) fn restore(
        &mut self,
        addresses: Vec<IpAddr>,
        resolved_at: Timestamp,
        ttl: Duration,
    ) {
        self.ttl = ttl.clamp(TTL_MIN, TTL_MAX);
        self.set_addresses(addresses, resolved_at);
        self.freshness =
            Freshness::Stale { error: "from before the start; not looked up again yet".into() };
        self.resolved_at = resolved_at;
        self.has_answer = true;
    }

    /// The name to look up; `None` for literal addresses.
    pub(super) fn name(&self) -> Option<&str> {
        match &self.target.destination {
            Destination::Name(name) => Some(name),
            Destination::Addresses(_) => None,
        }
    }

    /// Whether there was an answer, or a failure after earlier addresses.
    pub(super) fn has_outcome(&self) -> bool {
        self.has_outcome
    }

    /// Whether the addresses are from the last look-up.
    pub(super) fn is_fresh(&self) -> bool {
        self.freshness == Freshness::Fresh
    }

    /// Whether there are looked-up addresses to keep for the next start.
    pub(super) fn is_cacheable(&self) -> bool {
        self.has_answer && self.name().is_some() && !(self.v4.is_empty() && self.v6.is_empty())
    }

    /// The published state.
    pub(super) fn resolved(&self) -> Resolved {
        let (room4, room6) = share_room(self.v4.used().len(), self.v6.used().len());
        let mut addresses = Vec::with_capacity(room4 + room6);
        let mut left_out = Vec::new();
        for (family, room) in [(&self.v4, room4), (&self.v6, room6)] {
            let start = addresses.len();
            addresses.extend(family.used().take(room));
            addresses[start..].sort_unstable();
            left_out.extend(family.used().skip(room));
        }
        Resolved {
            addresses,
            left_out,
            rejected: [self.v4.rejected(), self.v6.rejected()].concat(),
            freshness: self.freshness.clone(),
            resolved_at: self.resolved_at,
            ttl: self.ttl,
        }
    }

    /// Applies the result of a look-up, and returns the time until the next one, without jitter.
    pub(super) fn apply(&mut self, result: LookupResult, now: Timestamp) -> Duration {
        match (result.v4, result.v6) {
            (FamilyResult::Empty { reason, ttl: ttl4 }, FamilyResult::Empty { ttl: ttl6, .. }) => {
                self.on_negative(&reason, ttl4.into_iter().chain(ttl6).min(), now)
            }
            (FamilyResult::Failed(error), FamilyResult::Failed(_) | FamilyResult::Empty { .. })
            | (FamilyResult::Empty { .. }, FamilyResult::Failed(error)) => self.on_failure(error),
            (v4, v6) => self.on_addresses([v4, v6], now),
        }
    }

    /// At least one family has addresses. The other one keeps its own through failures, and through
    /// all but the last of several negative answers.
    fn on_addresses(&mut self, results: [FamilyResult; 2], now: Timestamp) -> Duration {
        let (mut ttl, mut recheck, mut stale) = (TTL_MAX, TTL_MAX, None);
        for (result, current) in results.into_iter().zip([&mut self.v4, &mut self.v6]) {
            match result {
                FamilyResult::Addresses { addresses, rejected, ttl: valid } => {
                    current.answer(addresses, valid.clamp(TTL_MIN, TTL_MAX), now);
                    current.set_rejected(rejected);
                    ttl = ttl.min(valid);
                }
                FamilyResult::Empty { reason, ttl: valid } => {
                    current.deny();
                    if !current.is_empty() {
                        recheck = recheck.min(negative_ttl(valid));
                        let family = current.family();
                        stale = Some(current.explain_denial(
                            &reason,
                            format_args!("remove its {family} addresses"),
                        ));
                    }
                }
                FamilyResult::Failed(error) => {
                    current.reset_denials();
                    if !current.is_empty() {
                        stale = Some(error);
                    }
                }
            }
        }
        self.freshness = stale.map_or(Freshness::Fresh, |error| Freshness::Stale { error });
        self.resolved_at = now;
        self.ttl = ttl.clamp(TTL_MIN, TTL_MAX);
        self.failures = 0;
        (self.has_answer, self.has_outcome) = (true, true);
        self.warn_of_limit();
        self.ttl.min(recheck)
    }

    /// The name authoritatively has no address.
    fn on_negative(&mut self, reason: &str, ttl: Option<Duration>, now: Timestamp) -> Duration {
        self.failures = 0;
        self.has_outcome = true;
        self.v4.deny();
        self.v6.deny();
        // A family without addresses has nothing left to remove.
        let remaining = [&self.v4, &self.v6].into_iter().filter(|family| !family.is_empty());
        let least_denied = remaining.min_by_key(|family| family.denials());
        if let Some(family) = least_denied {
            self.mark_stale(family.explain_denial(reason, format_args!("empty the route")));
        } else if self.v4.is_denied() && self.v6.is_denied() {
            self.freshness = Freshness::Fresh;
            self.resolved_at = now;
            self.has_answer = true;
        } else {
            let family = if self.v4.is_denied() { &self.v6 } else { &self.v4 };
            self.mark_stale(family.explain_denial(reason, format_args!("empty the route")));
        }
        negative_ttl(ttl)
    }

    fn on_failure(&mut self, error: String) -> Duration {
        let wait = RETRY_MIN.saturating_mul(1 << self.failures.min(5)).min(RETRY_MAX);
        self.failures = self.failures.saturating_add(1);
        self.v4.reset_denials();
        self.v6.reset_denials();
        self.has_outcome |= self.has_answer;
        self.mark_stale(error);
        wait
    }

    fn mark_stale(&mut self, error: String) {
        self.freshness = if self.has_answer {
            Freshness::Stale { error }
        } else {
            Freshness::Unresolved { error: Some(error) }
        };
    }

    fn set_addresses(&mut self, addresses: Vec<IpAddr>, at: Timestamp) {
        let (v4, v6) = addresses.into_iter().partition(IpAddr::is_ipv4);
        self.v4.answer(v4, self.ttl, at);
        self.v6.answer(v6, self.ttl, at);
        self.warn_of_limit();
    }

    fn warn_of_limit(&mut self) {
        let all = self.v4.used().len() + self.v6.used().len();
        if all > MAX_BACKENDS && !self.warned_of_limit {
            self.warned_of_limit = true;
            let name = self.name().unwrap_or("the list of addresses");
            tracing::warn!(name, addresses = all, "only {MAX_BACKENDS} addresses are used");
        }
    }
}

/// How many addresses of each family a route takes: each has half of the room, and what the other
/// one leaves.
fn share_room(v4: usize, v6: usize) -> (usize, usize) {
    const HALF: usize = MAX_BACKENDS / 2;
    (
        v4.min(HALF.max(MAX_BACKENDS.saturating_sub(v6))),
        v6.min(HALF.max(MAX_BACKENDS.saturating_sub(v4))),
    )
}

/// How long a negative answer is valid.
fn negative_ttl(ttl: Option<Duration>) -> Duration {
    ttl.unwrap_or(NEGATIVE_TTL).clamp(TTL_MIN, RETRY_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolution() -> Resolution {
        Resolution::new(
            Target { destination: Destination::Name("lb.example".into()), resolver: None },
            Timestamp::UNIX_EPOCH,
        )
    }

    fn addresses(last: u8, seconds: u64) -> FamilyResult {
        FamilyResult::Addresses {
            addresses: vec![IpAddr::from([203, 0, 113, last])],
            rejected: vec![],
            ttl: Duration::from_secs(seconds),
        }
    }

    fn negative(seconds: Option<u64>) -> FamilyResult {
        FamilyResult::Empty { reason: "no".into(), ttl: seconds.map(Duration::from_secs) }
    }

    fn failed() -> FamilyResult {
        FamilyResult::Failed("SERVFAIL".into())
    }

    fn apply(resolution: &mut Resolution, v4: FamilyResult, v6: FamilyResult) -> u64 {
        resolution.apply(LookupResult { v4, v6 }, Timestamp::now()).as_secs()
    }

    #[test]
    fn a_ttl_is_limited_at_both_ends() {
        let mut resolution = resolution();
        assert_eq!(
            [0, 1, 60, 300, 86_400].map(|ttl| apply(
                &mut resolution,
                addresses(7, ttl),
                negative(None)
            )),
            [1, 1, 60, 300, 300]
        );
    }

    #[test]
    fn each_family_has_room_for_half_of_the_backends() {
        let rooms = [(0, 0), (3, 2), (100, 0), (100, 2), (3, 100), (100, 100), (40, 40), (40, 24)];
        let shares = rooms.map(|(v4, v6)| share_room(v4, v6));
        let expected = [(0, 0), (3, 2), (64, 0), (62, 2), (3, 61), (32, 32), (32, 32), (40, 24)];
        assert_eq!(shares, expected);
    }

    #[test]
    fn retries_slow_down_until_an_answer() {
        let mut resolution = resolution();
        let waits = [(); 7].map(|()| apply(&mut resolution, failed(), failed()));
        assert_eq!(waits, [1, 2, 4, 8, 16, 30, 30]);
        apply(&mut resolution, addresses(7, 60), negative(None));
        assert_eq!(apply(&mut resolution, failed(), failed()), 1);
    }

    #[test]
    fn a_negative_answer_is_valid_for_its_own_limited_ttl() {
        let mut resolution = resolution();
        assert_eq!(
            [None, Some(0), Some(10), Some(3600)].map(|ttl| apply(
                &mut resolution,
                negative(ttl),
                negative(ttl)
            )),
            [5, 1, 10, 30]
        );
    }

    #[test]
    fn a_failure_resets_the_count_of_negative_answers() {
        let mut resolution = resolution();
        apply(&mut resolution, addresses(7, 60), negative(None));
        for _ in 0..5 {
            apply(&mut resolution, negative(None), negative(None));
            apply(&mut resolution, negative(None), negative(None));
            apply(&mut resolution, negative(None), failed());
        }
        assert_eq!(resolution.resolved().addresses, [IpAddr::from([203, 0, 113, 7])]);
    }

    #[test]
    fn one_family_survives_two_negative_answers_of_three() {
        let known = |resolution: &Resolution| resolution.resolved().addresses.len();
        let v6 = || FamilyResult::Addresses {
            addresses: vec!["2001:db8::7".parse().expect("an address")],
            rejected: vec![],
            ttl: Duration::from_secs(300),
        };
        let mut resolution = resolution();
        apply(&mut resolution, addresses(7, 300), v6());
        // Checked again when the negative answer ends, not the positive one.
        assert_eq!(apply(&mut resolution, negative(Some(10)), v6()), 10);
        assert_eq!(apply(&mut resolution, negative(Some(10)), v6()), 10);
        assert_eq!(known(&resolution), 2);
        // An address in between starts the count again.
        apply(&mut resolution, addresses(7, 300), v6());
        for expected in [2, 2, 1, 1] {
            apply(&mut resolution, negative(Some(10)), v6());
            assert_eq!(known(&resolution), expected);
        }
        assert_eq!(resolution.resolved().freshness, Freshness::Fresh);
        for expected in [1, 1, 0] {
            apply(&mut resolution, negative(None), negative(None));
            assert_eq!(known(&resolution), expected);
        }
    }

    #[test]
    fn an_emptied_target_that_fails_stays_empty() {
        let mut resolution = resolution();
        for _ in 0..3 {
            apply(&mut resolution, negative(None), negative(None));
        }
        assert_eq!(
            (resolution.resolved().addresses, resolution.resolved().freshness),
            (vec![], Freshness::Fresh)
        );
        apply(&mut resolution, failed(), failed());
        assert!(matches!(resolution.resolved().freshness, Freshness::Stale { .. }));
        assert!(!resolution.is_cacheable());
    }
}
