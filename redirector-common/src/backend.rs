//! Backends: their numbers, and what the kernel thinks of their health.

use crate::table_type::table_type;

/// The number of one backend of one route, an index into the backend tables. 23 bits. IPv6 source
/// addresses have numbers too.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(transparent)]
pub struct BackendId(pub u32);

impl BackendId {
    /// The largest number. 0 stands for "none".
    pub const MAX: u32 = 0x007f_ffff;
    /// No backend: what a fresh origin has.
    pub const NONE: Self = Self(0);
}

/// A backend's health in one word, so that it changes in one store: the low 8 bits count
/// consecutive failures, the rest is the time (`CLOCK_MONOTONIC`, nanoseconds, the low 8 bits cut
/// off) until which it is set aside. 0 is healthy, and needs no clock to be seen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(transparent)]
pub struct Health(pub u64);
table_type!(Health, 8);

impl Health {
    /// Nothing known against it.
    pub const HEALTHY: Self = Self(0);
    /// The first time-out of a backend that failed, in nanoseconds; each further failure doubles
    /// it.
    pub const FIRST_BACK_OFF_NS: u64 = 1_000_000_000;
    /// No time-out is longer, in nanoseconds.
    pub const LONGEST_BACK_OFF_NS: u64 = 30_000_000_000;
    /// How long others stay away while one connect tries a backend whose time is over, in
    /// nanoseconds: longer than a SYN's first retransmission takes, which sets it aside again.
    pub const TRIAL_NS: u64 = 2_000_000_000;

    /// Consecutive failures, up to 255.
    pub const fn failures(self) -> u8 {
        self.0 as u8
    }

    /// When it is due again, in nanoseconds of `CLOCK_MONOTONIC`.
    pub const fn until_ns(self) -> u64 {
        self.0 & !0xff
    }

    /// Whether a connect that could go elsewhere stays away from it at `now_ns`.
    pub const fn is_set_aside(self, now_ns: u64) -> bool {
        self.0 != 0 && now_ns < self.until_ns()
    }

    /// 1 if it is not set aside at `now_ns`, else 0, without a branch. Times are below 2⁶³.
    pub const fn due_bit(self, now_ns: u64) -> u64 {
        self.until_ns().wrapping_sub(now_ns).wrapping_sub(1) >> 63
    }

    /// The health after one more failure at `now_ns`: set aside for 1, 2, 4, 8, 16, then 30 s.
    pub const fn after_failure(self, now_ns: u64) -> Self {
        self.aside(self.failures().saturating_add(1), now_ns)
    }

    /// The health when a failure that was counted already is confirmed at `now_ns`: the time-out
    /// begins anew.
    pub const fn confirmed(self, now_ns: u64) -> Self {
        self.aside(if self.failures() == 0 { 1 } else { self.failures() }, now_ns)
    }

    /// The health while one connect, begun at `now_ns`, tries a backend whose time is over: nobody
    /// else starts on it until that one's fate is known, or the trial's time is over too.
    pub const fn on_trial(self, now_ns: u64) -> Self {
        self.until(now_ns.wrapping_add(Self::TRIAL_NS))
    }

    /// The health while a prober watches over the backend: set aside until `until_ns` at least. A
    /// healthy one stays healthy.
    pub const fn held(self, until_ns: u64) -> Self {
        if self.0 == 0 { self } else { self.until(until_ns) }
    }

    /// With this many failures, for the time that they come to.
    const fn aside(self, failures: u8, now_ns: u64) -> Self {
        let shift = if failures > 6 { 5 } else { failures - 1 };
        let wanted = Self::FIRST_BACK_OFF_NS << shift;
        let back_off =
            if wanted > Self::LONGEST_BACK_OFF_NS { Self::LONGEST_BACK_OFF_NS } else { wanted };
        Self(self.until_ns() | failures as u64).until(now_ns.wrapping_add(back_off))
    }

    /// Set aside until `until_ns`, or longer where it was already: no later word shortens a
    /// time-out.
    const fn until(self, until_ns: u64) -> Self {
        let until_ns = if until_ns > self.until_ns() { until_ns } else { self.until_ns() };
        Self((until_ns & !0xff) | self.failures() as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    #[test]
    fn a_healthy_backend_is_never_set_aside() {
        assert!(!Health::HEALTHY.is_set_aside(0));
        assert_eq!((Health::HEALTHY.due_bit(0), Health::HEALTHY.due_bit(SECOND)), (1, 1));
        assert!(!Health::HEALTHY.is_set_aside(u64::MAX));
    }

    #[test]
    fn each_failure_doubles_the_time_out_up_to_thirty_seconds() {
        let mut health = Health::HEALTHY;
        for (failures, seconds) in [(1, 1), (2, 2), (3, 4), (4, 8), (5, 16), (6, 30), (7, 30)] {
            let now = u64::from(failures) * 100 * SECOND;
            health = health.after_failure(now);
            assert_eq!(health.failures(), failures);
            let due = now + seconds * SECOND;
            assert_eq!((health.is_set_aside(due - 256), health.due_bit(due - 256)), (true, 0));
            assert_eq!((health.is_set_aside(due), health.due_bit(due)), (false, 1));
        }
    }

    #[test]
    fn a_confirmed_failure_counts_once_and_its_time_begins_anew() {
        let once = Health::HEALTHY.after_failure(10 * SECOND);
        let confirmed = once.confirmed(13 * SECOND);
        assert_eq!(confirmed.failures(), 1);
        assert!(confirmed.is_set_aside(14 * SECOND - 256) && !confirmed.is_set_aside(14 * SECOND));
        assert_eq!(
            Health::HEALTHY.confirmed(SECOND),
            Health::HEALTHY.after_failure(SECOND),
            "reinstated in between"
        );
    }

    #[test]
    fn no_later_word_shortens_a_time_out() {
        let held = Health::HEALTHY.after_failure(10 * SECOND).held(20 * SECOND);
        assert_eq!(
            (held.failures(), held.is_set_aside(20 * SECOND - 256), held.is_set_aside(20 * SECOND)),
            (1, true, false)
        );
        for later in [
            held.confirmed(12 * SECOND),
            held.after_failure(12 * SECOND),
            held.held(15 * SECOND),
            held.on_trial(12 * SECOND),
        ] {
            assert_eq!(later.until_ns(), held.until_ns());
        }
        assert_eq!(held.after_failure(19 * SECOND).until_ns(), (21 * SECOND) & !0xff);
    }

    #[test]
    fn a_backend_that_is_due_is_tried_by_one_and_set_aside_for_the_others() {
        let due = Health::HEALTHY.after_failure(10 * SECOND);
        let tried = due.on_trial(12 * SECOND);
        assert!(
            !due.is_set_aside(12 * SECOND)
                && tried.is_set_aside(14 * SECOND - 256)
                && !tried.is_set_aside(14 * SECOND)
        );
        assert_eq!(tried.failures(), 1, "a trial is no failure");
    }

    #[test]
    fn a_backend_that_has_recovered_is_not_held() {
        assert_eq!(Health::HEALTHY.held(SECOND), Health::HEALTHY);
    }

    #[test]
    fn failures_stop_counting_at_255() {
        let health = (0..1000).fold(Health::HEALTHY, |health, _| health.after_failure(SECOND));
        assert_eq!(health.failures(), 255);
        assert!(health.is_set_aside(SECOND));
    }
}
