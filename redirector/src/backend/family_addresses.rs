//! The addresses of one family of a name: which are known, which are used, and when negative
//! answers remove them.
//!
//! An address that leaves the answers is no longer used, since its owner moved away. It stays known
//! for a few TTLs. If it comes back in that time, the name returns its addresses in turn: then all
//! known ones are used, so that connects avoid one that is dark instead of trying it each time it
//! is the only answer.

use std::{cmp::Reverse, fmt, net::IpAddr, time::Duration};

use jiff::Timestamp;

use super::{address_policy::RejectedAddress, lookup::Family};

/// Consecutive negative answers that remove a family's addresses: a single one may be a mistake of
/// the resolver, or of a zone that is being changed.
const DENIALS_TO_REMOVE: u32 = 3;
/// How many TTLs an address stays known after it was last in an answer.
const WINDOW_TTLS: u32 = 5;
/// The shortest window: a name with a TTL of seconds may have a dozen addresses in turn.
const WINDOW_MIN: Duration = Duration::from_secs(60);
/// The longest window.
const WINDOW_MAX: Duration = Duration::from_secs(600);
/// The most addresses that are known without being in the last answer.
const MAX_ABSENT: usize = 256;

/// The addresses of one family.
#[derive(Debug)]
pub(super) struct FamilyAddresses {
    family: Family,
    /// Without duplicates; those in the last answer first, then the most recently seen.
    known: Vec<KnownAddress>,
    /// Until when the name counts as one that returns its addresses in turn.
    rotates_until: Option<Timestamp>,
    /// How many of `known`, from the first one, are used.
    used: usize,
    rejected: Vec<RejectedAddress>,
    /// Consecutive authoritative answers without an address.
    denials: u32,
}

#[derive(Clone, Copy, Debug)]
struct KnownAddress {
    address: IpAddr,
    is_in_answer: bool,
    forget_at: Timestamp,
}

impl FamilyAddresses {
    pub(super) fn new(family: Family) -> Self {
        Self {
            family,
            known: Vec::new(),
            rotates_until: None,
            used: 0,
            rejected: Vec::new(),
            denials: 0,
        }
    }

    pub(super) fn family(&self) -> Family {
        self.family
    }

    /// The addresses in use, the preferred ones first.
    pub(super) fn used(&self) -> impl ExactSizeIterator<Item = IpAddr> {
        self.known[..self.used].iter().map(|known| known.address)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.used == 0
    }

    /// The addresses of the last answer that are not used.
    pub(super) fn rejected(&self) -> &[RejectedAddress] {
        &self.rejected
    }

    pub(super) fn set_rejected(&mut self, rejected: Vec<RejectedAddress>) {
        self.rejected = rejected;
    }

    /// An answer with addresses, which is valid for `ttl`.
    pub(super) fn answer(&mut self, mut addresses: Vec<IpAddr>, ttl: Duration, now: Timestamp) {
        addresses.sort_unstable();
        addresses.dedup();
        let forget_at = now + (ttl * WINDOW_TTLS).clamp(WINDOW_MIN, WINDOW_MAX);
        for known in &mut self.known {
            let is_in_answer = addresses.binary_search(&known.address).is_ok();
            if is_in_answer && !known.is_in_answer && now < known.forget_at {
                self.rotates_until = Some(forget_at);
            }
            known.is_in_answer = is_in_answer;
        }
        self.known.retain(|known| !known.is_in_answer && now < known.forget_at);
        self.known.sort_by_key(|known| (Reverse(known.forget_at), known.address));
        self.known.truncate(MAX_ABSENT);
        let answered = addresses.into_iter().map(|address| KnownAddress {
            address,
            is_in_answer: true,
            forget_at,
        });
        let answered: Vec<_> = answered.collect();
        let rotates = self.rotates_until.is_some_and(|until| now < until);
        self.used = answered.len() + if rotates { self.known.len() } else { 0 };
        self.known.splice(..0, answered);
        // The list lives as long as the route, and most have one or two addresses.
        self.known.shrink_to_fit();
        self.denials = 0;
    }

    /// An authoritative answer without an address.
    pub(super) fn deny(&mut self) {
        self.denials = self.denials.saturating_add(1);
        self.rejected.clear();
        if self.is_denied() {
            self.known.clear();
            self.used = 0;
        }
    }

    pub(super) fn denials(&self) -> u32 {
        self.denials
    }

    /// Whether enough consecutive answers had no address.
    pub(super) fn is_denied(&self) -> bool {
        self.denials >= DENIALS_TO_REMOVE
    }

    /// A failure: the next negative answer is the first one again.
    pub(super) fn reset_denials(&mut self) {
        self.denials = 0;
    }

    /// The message for a negative answer that changed nothing yet.
    pub(super) fn explain_denial(&self, reason: &str, effect: fmt::Arguments<'_>) -> String {
        let number = self.denials;
        format!("{reason} (answer {number} of {DENIALS_TO_REMOVE} that {effect})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The addresses in use after each answer; the answers are 10 s apart and valid for 10 s.
    fn used(answers: &[&[u8]]) -> Vec<Vec<u8>> {
        let mut family = FamilyAddresses::new(Family::V4);
        let mut now = Timestamp::UNIX_EPOCH;
        let mut seen = Vec::new();
        for answer in answers {
            let addresses = answer.iter().map(|last| IpAddr::from([203, 0, 113, *last])).collect();
            family.answer(addresses, Duration::from_secs(10), now);
            now += Duration::from_secs(10);
            let last = |ip: IpAddr| ip.to_string().rsplit('.').next().expect("parts").parse();
            let mut used: Vec<u8> = family.used().map(|ip| last(ip).expect("a number")).collect();
            used.sort_unstable();
            seen.push(used);
        }
        seen
    }

    #[test]
    fn a_name_that_moves_leaves_nothing_behind() {
        assert_eq!(used(&[&[1], &[2], &[3, 4]]), [vec![1], vec![2], vec![3, 4]]);
    }

    #[test]
    fn a_name_that_returns_one_address_at_a_time_keeps_all() {
        assert_eq!(
            used(&[&[1], &[2], &[1], &[3], &[2], &[2]]),
            [vec![1], vec![2], vec![1, 2], vec![1, 2, 3], vec![1, 2, 3], vec![1, 2, 3]]
        );
    }

    #[test]
    fn an_address_is_forgotten_after_a_few_ttls() {
        // Two is last seen 10 s after the start, and forgotten 60 s later.
        let mut answers: Vec<&[u8]> = vec![&[1], &[2], &[1]];
        answers.extend([&[1_u8] as &[u8]; 5]);
        let seen = used(&answers);
        assert_eq!(seen[6], [1, 2]);
        assert_eq!(seen[7], [1]);
    }

    #[test]
    fn an_address_that_returns_too_late_is_a_new_one() {
        let mut answers: Vec<&[u8]> = vec![&[1]];
        answers.extend([&[2_u8] as &[u8]; 7]);
        answers.push(&[1]);
        assert_eq!(used(&answers).last(), Some(&vec![1]));
    }
}
