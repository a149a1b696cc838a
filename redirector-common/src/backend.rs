//! Backends: their IDs, and their health as the programs see it.

use crate::table_type::table_type;

/// The ID of one backend of one route: an index into the backend tables, of 23 bits. IPv6 source
/// addresses have IDs, too.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(transparent)]
pub struct BackendId(pub u32);
table_type!(BackendId, 4);

impl BackendId {
    /// The largest ID.
    pub const MAX: u32 = 0x007f_ffff;
    /// No backend: the last one of a socket that was not redirected before.
    pub const NONE: Self = Self(0);
}

/// A backend's health in one word, so that it changes in one store. 0 is healthy, so that the check
/// of a healthy backend reads no clock.
///
/// | bits | content |
/// |---|---|
/// | 0–7 | consecutive failures, up to 255 |
/// | 8–63 | `CLOCK_MONOTONIC` in nanoseconds, without its low 8 bits: end of the ejection |
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(transparent)]
pub struct Health(pub u64);
table_type!(Health, 8);

impl Health {
    /// No failure since the last success.
    pub const HEALTHY: Self = Self(0);
    /// The ejection after the first failure, in nanoseconds; each further failure doubles it.
    pub const INITIAL_BACKOFF_NS: u64 = 1_000_000_000;
    /// The longest ejection, in nanoseconds.
    pub const MAX_BACKOFF_NS: u64 = 30_000_000_000;
    /// How long other connects avoid a backend on trial, in nanoseconds: longer than the time to a
    /// SYN's first retransmission, which ejects the backend again.
    pub const TRIAL_TIMEOUT_NS: u64 = 2_000_000_000;

    const FAILURES_MASK: u64 = 0xff;

    /// Consecutive failures, up to 255.
    pub const fn failures(self) -> u8 {
        self.0 as u8
    }

    /// End of the ejection, in nanoseconds of `CLOCK_MONOTONIC`.
    pub const fn until_ns(self) -> u64 {
        self.0 & !Self::FAILURES_MASK
    }

    /// Whether it is ejected at `now_ns`: connects use it only if all others are ejected too.
    pub const fn is_ejected(self, now_ns: u64) -> bool {
        self.0 != 0 && now_ns < self.until_ns()
    }

    /// 1 if it is not ejected at `now_ns`, else 0, without a branch. Times are below 2⁶³.
    pub const fn eligible_bit(self, now_ns: u64) -> u64 {
        self.until_ns().wrapping_sub(now_ns).wrapping_sub(1) >> 63
    }

    /// The health after one more failure at `now_ns`: ejected for 1, 2, 4, 8, 16, then 30 s.
    pub const fn after_failure(self, now_ns: u64) -> Self {
        self.ejected_for_failures(self.failures().saturating_add(1), now_ns)
    }

    /// The health when a failure that was already counted is confirmed at `now_ns`: the ejection
    /// restarts.
    pub const fn with_extended_ejection(self, now_ns: u64) -> Self {
        self.ejected_for_failures(if self.failures() == 0 { 1 } else { self.failures() }, now_ns)
    }

    /// The health while one connect, begun at `now_ns`, tries a backend whose ejection has expired:
    /// others avoid it until the outcome is known or the trial times out.
    pub const fn on_trial(self, now_ns: u64) -> Self {
        self.extended_to(now_ns.wrapping_add(Self::TRIAL_TIMEOUT_NS))
    }

    /// The health while a prober watches the backend: ejected until `until_ns` at least. A healthy
    /// backend stays healthy.
    pub const fn ejected_until(self, until_ns: u64) -> Self {
        if self.0 == 0 { self } else { self.extended_to(until_ns) }
    }

    /// The health after a probe was accepted at `now_ns`: the next connect tries it, and only its
    /// success clears the failures.
    pub const fn after_probe(self, now_ns: u64) -> Self {
        if now_ns < self.until_ns() {
            Self((now_ns & !Self::FAILURES_MASK) | self.failures() as u64)
        } else {
            self
        }
    }

    /// The health after `failures`, which determine the length of the ejection.
    const fn ejected_for_failures(self, failures: u8, now_ns: u64) -> Self {
        let shift = if failures > 6 { 5 } else { failures - 1 };
        let doubled = Self::INITIAL_BACKOFF_NS << shift;
        let backoff = if doubled > Self::MAX_BACKOFF_NS { Self::MAX_BACKOFF_NS } else { doubled };
        Self(self.until_ns() | failures as u64).extended_to(now_ns.wrapping_add(backoff))
    }

    /// Ejected until `until_ns`, or longer if it was already: only an accepted probe shortens an
    /// ejection.
    const fn extended_to(self, until_ns: u64) -> Self {
        let until_ns = if until_ns > self.until_ns() { until_ns } else { self.until_ns() };
        Self((until_ns & !Self::FAILURES_MASK) | self.failures() as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    #[test]
    fn a_healthy_backend_is_never_ejected() {
        assert!(!Health::HEALTHY.is_ejected(0));
        assert_eq!((Health::HEALTHY.eligible_bit(0), Health::HEALTHY.eligible_bit(SECOND)), (1, 1));
        assert!(!Health::HEALTHY.is_ejected(u64::MAX));
    }

    #[test]
    fn each_failure_doubles_the_ejection_up_to_thirty_seconds() {
        let mut health = Health::HEALTHY;
        for (failures, seconds) in [(1, 1), (2, 2), (3, 4), (4, 8), (5, 16), (6, 30), (7, 30)] {
            let now = u64::from(failures) * 100 * SECOND;
            health = health.after_failure(now);
            assert_eq!(health.failures(), failures);
            let end = now + seconds * SECOND;
            assert_eq!((health.is_ejected(end - 256), health.eligible_bit(end - 256)), (true, 0));
            assert_eq!((health.is_ejected(end), health.eligible_bit(end)), (false, 1));
        }
    }

    #[test]
    fn a_confirmed_failure_counts_once_and_restarts_the_ejection() {
        let once = Health::HEALTHY.after_failure(10 * SECOND);
        let confirmed = once.with_extended_ejection(13 * SECOND);
        assert_eq!(confirmed.failures(), 1);
        assert!(confirmed.is_ejected(14 * SECOND - 256) && !confirmed.is_ejected(14 * SECOND));
        assert_eq!(
            Health::HEALTHY.with_extended_ejection(SECOND),
            Health::HEALTHY.after_failure(SECOND),
            "reset by a success in between"
        );
    }

    #[test]
    fn nothing_shortens_an_ejection() {
        let held = Health::HEALTHY.after_failure(10 * SECOND).ejected_until(20 * SECOND);
        assert_eq!(
            (held.failures(), held.is_ejected(20 * SECOND - 256), held.is_ejected(20 * SECOND)),
            (1, true, false)
        );
        for later in [
            held.with_extended_ejection(12 * SECOND),
            held.after_failure(12 * SECOND),
            held.ejected_until(15 * SECOND),
            held.on_trial(12 * SECOND),
        ] {
            assert_eq!(later.until_ns(), held.until_ns());
        }
        assert_eq!(held.after_failure(19 * SECOND).until_ns(), (21 * SECOND) & !0xff);
    }

    #[test]
    fn a_probe_ends_the_ejection_and_keeps_the_failures() {
        let failed = Health::HEALTHY.after_failure(10 * SECOND).after_failure(11 * SECOND);
        let probed = failed.after_probe(12 * SECOND);
        assert_eq!((probed.failures(), probed.is_ejected(12 * SECOND)), (2, false));
        assert_eq!(probed.after_probe(13 * SECOND), probed);
        assert_eq!(Health::HEALTHY.after_probe(SECOND), Health::HEALTHY);
    }

    #[test]
    fn an_expired_ejection_admits_one_trial() {
        let failed = Health::HEALTHY.after_failure(10 * SECOND);
        let trial = failed.on_trial(12 * SECOND);
        assert!(
            !failed.is_ejected(12 * SECOND)
                && trial.is_ejected(14 * SECOND - 256)
                && !trial.is_ejected(14 * SECOND)
        );
        assert_eq!(trial.failures(), 1, "a trial is no failure");
    }

    #[test]
    fn a_healthy_backend_is_not_ejected_by_a_prober() {
        assert_eq!(Health::HEALTHY.ejected_until(SECOND), Health::HEALTHY);
    }

    #[test]
    fn the_failure_count_saturates_at_255() {
        let health = (0..1000).fold(Health::HEALTHY, |health, _| health.after_failure(SECOND));
        assert_eq!(health.failures(), 255);
        assert!(health.is_ejected(SECOND));
    }
}
