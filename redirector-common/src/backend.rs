//! Backends: their IDs, and their health as the programs see it.

use crate::{addr::PortBe, bits::zero_bit, table_type::table_type};

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

/// Who connects, for judging a backend: a hash of the cgroup, or of the interface of a guest. It
/// has 14 bits; 0 is nobody.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(transparent)]
pub struct Witness(u16);

impl Witness {
    const BITS: u32 = 14;
    /// Added to the index of an interface, which is no cgroup's ID.
    const INTERFACE: u64 = 1 << 63;

    /// The cgroup with this ID.
    #[inline(always)]
    pub const fn cgroup(id: u64) -> Self {
        let hash = (id.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (64 - Self::BITS)) as u16;
        // 0 becomes 1, without a branch.
        Self(hash | ((hash as u32).wrapping_sub(1) >> 31) as u16)
    }

    /// The guests behind the interface with this index.
    #[inline(always)]
    pub const fn interface(index: u32) -> Self {
        Self::cgroup(Self::INTERFACE | index as u64)
    }

    /// From its number, of which the lower bits count.
    #[inline(always)]
    pub const fn from_bits(bits: u32) -> Self {
        Self(bits as u16 & ((1 << Self::BITS) - 1))
    }

    /// Its number.
    #[inline(always)]
    pub const fn bits(self) -> u32 {
        self.0 as u32
    }
}

/// A connect, for judging its backend: the backend's port, and who connects.
///
/// | bits | content |
/// |---|---|
/// | 0–15 | the port in network order |
/// | 16–29 | [`Witness`] |
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(transparent)]
pub struct Caller(u32);

impl Caller {
    const WITNESS_SHIFT: u32 = 16;

    /// Packs both.
    #[inline(always)]
    pub const fn new(port: PortBe, witness: Witness) -> Self {
        Self(port.0 as u32 | witness.bits() << Self::WITNESS_SHIFT)
    }

    /// The word.
    #[inline(always)]
    pub const fn to_bits(self) -> u32 {
        self.0
    }

    /// From the word.
    #[inline(always)]
    pub const fn from_bits(bits: u32) -> Self {
        Self(bits)
    }

    /// The backend's port.
    #[inline(always)]
    pub const fn port(self) -> PortBe {
        PortBe(self.0 as u16)
    }

    const fn witness_bits(self) -> u32 {
        self.0 & !0xffff
    }
}

/// A backend's health at one port in one word, so that it changes in one store. 0 is healthy, so
/// that the check of a healthy backend reads no clock.
///
/// A failed connect ejects the backend for its own cgroup or guest; for all only when another one
/// or the prober agrees. So nobody can take a backend away from others. A connect that found no
/// source port says nothing about the backend: nobody agrees with it.
///
/// | bits | content |
/// |---|---|
/// | 0–15 | the port in network order |
/// | 16–29 | the [`Witness`] for whom it is ejected; 0: for all |
/// | 30–32 | consecutive failures of the witness, up to 7; 0: its connects found no source port |
/// | 33–35 | failures that were agreed on, or connects without a source port, up to 7 |
/// | 36 | one connect tries the backend |
/// | 37 | accepted connections were reset before a byte arrived |
/// | 38–63 | end of the ejection, in units of 2²³ ns of `CLOCK_MONOTONIC`, modulo 6.5 days |
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(transparent)]
pub struct Health(pub u64);
table_type!(Health, 8);

impl Health {
    /// No failure since the last success.
    pub const HEALTHY: Self = Self(0);
    /// The words of each backend: its ports share them.
    pub const WORDS: u32 = 4;
    /// The ejection after the first failure, in nanoseconds; each further failure doubles it.
    pub const INITIAL_BACKOFF_NS: u64 = 1_000_000_000;
    /// The longest ejection, in nanoseconds.
    pub const MAX_BACKOFF_NS: u64 = 30_000_000_000;
    /// How long other connects avoid a backend on trial, in nanoseconds: longer than the time to a
    /// SYN's first retransmission, which ejects the backend again.
    pub const TRIAL_TIMEOUT_NS: u64 = 2_000_000_000;
    /// The resolution of times, in nanoseconds.
    pub const UNIT_NS: u64 = 1 << Self::UNIT_SHIFT;

    const CALLER_MASK: u32 = 0x3fff_ffff;
    const OWN_SHIFT: u32 = 30;
    const AGREED_SHIFT: u32 = 33;
    const MAX_FAILURES: u64 = 7;
    const TRIAL: u64 = 1 << 36;
    const RESETTING: u64 = 1 << 37;
    const END_SHIFT: u32 = 38;
    const UNIT_SHIFT: u32 = 23;
    const END_MASK: u64 = (1 << (64 - Self::END_SHIFT)) - 1;
    /// An end that is more than 2 to the power of this in the future is one in the past. It is
    /// twice the longest ejection.
    const HORIZON_BITS: u32 = 13;

    /// The element of backend `id` for `port`.
    #[inline(always)]
    pub const fn index(id: BackendId, port: PortBe) -> u32 {
        id.0 * Self::WORDS + ((port.0 as u32).wrapping_mul(0x9e37_79b1) >> 30)
    }

    /// The port that it is about, if it is not healthy.
    pub const fn port(self) -> PortBe {
        PortBe(self.0 as u16)
    }

    /// For whom the backend is ejected; `None`: for all.
    pub const fn witness(self) -> Option<Witness> {
        let witness = Witness::from_bits(self.caller() >> Caller::WITNESS_SHIFT);
        if witness.0 == 0 { None } else { Some(witness) }
    }

    /// Whether it accepts connects, and then resets the connections before a byte arrives. Then an
    /// accepted connect or probe shows nothing: only a connection that was served clears it.
    #[inline(always)]
    pub const fn is_resetting(self) -> bool {
        self.0 & Self::RESETTING != 0
    }

    /// Whether it is avoided since connects of its witness found no source port.
    pub const fn lacked_port(self) -> bool {
        self.own() == 0 && self.caller() >> Caller::WITNESS_SHIFT != 0
    }

    /// Consecutive failures, up to 7.
    pub const fn failures(self) -> u8 {
        let (own, agreed) = (self.own(), self.agreed());
        (if own > agreed { own } else { agreed }) as u8
    }

    /// Whether the backend worked until the latest failure, as far as is known: it is the only one
    /// of its witness, and nobody has agreed.
    pub const fn is_first_failure(self) -> bool {
        self.own() == 1 && self.agreed() == 0
    }

    /// Whether it is ejected at `now_ns`, for all or for its witness: they use it only if all
    /// others are ejected too.
    pub const fn is_ejected(self, now_ns: u64) -> bool {
        self.0 != 0 && self.left(now_ns).wrapping_sub(1) & Self::END_MASK < 1 << Self::HORIZON_BITS
    }

    /// Nanoseconds until the ejection ends; 0 if it has.
    pub const fn left_ns(self, now_ns: u64) -> u64 {
        if self.is_ejected(now_ns) { self.left(now_ns) << Self::UNIT_SHIFT } else { 0 }
    }

    /// 1 if `caller` is to judge or avoid the backend by this word, else 0, without a branch.
    #[inline(always)]
    pub const fn concerns_bit(self, caller: Caller) -> u64 {
        let other = self.caller() ^ caller.0;
        zero_bit(other) | zero_bit(other ^ caller.witness_bits())
    }

    /// 1 if it is not ejected for `caller` at `now_ns`, else 0, without a branch.
    #[inline(always)]
    pub const fn eligible_bit(self, caller: Caller, now_ns: u64) -> u64 {
        let left = self.left(now_ns).wrapping_sub(1) & Self::END_MASK;
        1 ^ self.concerns_bit(caller) & zero_bit((left >> Self::HORIZON_BITS) as u32)
    }

    /// The health after one more failure of `caller` at `now_ns`: ejected for 1, 2, 4, 8, 16, then
    /// 30 s, for it alone unless another one has failed a short time before. Failures at another
    /// port do not replace an ejection for all.
    pub const fn after_failure(self, caller: Caller, now_ns: u64) -> Self {
        let for_all = self.0 != 0 && self.witness().is_none();
        let holds = for_all && self.is_ejected(now_ns) && self.0 & Self::TRIAL == 0;
        if self.0 == 0 || self.port().0 != caller.port().0 || self.lacked_port() {
            return if holds { self } else { Self::new(caller, 1, 0).ejected_for(1, now_ns) };
        }
        if holds {
            return self;
        }
        let (own, agreed) = (self.own(), self.agreed());
        if for_all {
            let next = Self::new(caller, 1, agreed).resetting_as(self);
            return next.ejected_for(agreed + 1, now_ns);
        }
        if self.caller() == caller.0 {
            let own = saturating(own + 1);
            let failures = if own > agreed { own } else { agreed };
            let next = Self::new(caller, own, agreed).ending_with(self).resetting_as(self);
            return next.ejected_for(failures, now_ns);
        }
        if self.is_recent(now_ns) {
            self.agreed_on(now_ns)
        } else {
            Self::new(caller, 1, 0).ejected_for(1, now_ns)
        }
    }

    /// The health after a connect of `caller` at `now_ns` for which no source port towards the
    /// backend was free: ejected for it as after a failure. What others have seen stays.
    pub const fn after_no_port(self, caller: Caller, now_ns: u64) -> Self {
        let is_own = self.caller() == caller.0;
        if is_own && !self.lacked_port() {
            return self.ejected_for(self.failures() as u64, now_ns);
        }
        if self.0 != 0 && !is_own && !self.lacked_port() && self.is_recent(now_ns) {
            return self;
        }
        let before = if is_own { self } else { Self::HEALTHY };
        let number = saturating(before.agreed() + 1);
        Self::new(caller, 0, number).ending_with(before).ejected_for(number, now_ns)
    }

    /// The health when a failure of `caller` that was already counted is confirmed at `now_ns`: its
    /// own ejection restarts.
    pub const fn with_extended_ejection(self, caller: Caller, now_ns: u64) -> Self {
        if self.0 == 0 || self.port().0 != caller.port().0 {
            self.after_failure(caller, now_ns)
        } else if self.caller() == caller.0 {
            self.ejected_for(self.failures() as u64, now_ns)
        } else {
            self
        }
    }

    /// The health after a second one, another cgroup or the prober, has failed at `now_ns`: the
    /// backend is ejected for all, unless the first failure was long ago.
    pub const fn agreed_on(self, now_ns: u64) -> Self {
        if self.witness().is_none() || self.lacked_port() || !self.is_recent(now_ns) {
            return self;
        }
        let agreed = saturating(self.agreed() + 1);
        let all = Caller(self.port().0 as u32);
        Self::new(all, 0, agreed).resetting_as(self).ejected_for(agreed, now_ns)
    }

    /// The health after the backend has accepted a connect of `caller` and reset the connection
    /// before a byte arrived, at `now_ns`: as after a failure, and see [`Health::is_resetting`].
    pub const fn after_reset(self, caller: Caller, now_ns: u64) -> Self {
        let next = self.after_failure(caller, now_ns);
        // An ejection for all that continues is not changed.
        Self(next.0 | if next.0 == self.0 { 0 } else { Self::RESETTING })
    }

    /// The health while one connect of `caller`, begun at `now_ns`, tries a backend whose ejection
    /// has expired: others avoid it until the outcome is known or the trial times out.
    pub const fn on_trial(self, caller: Caller, now_ns: u64) -> Self {
        if self.0 == 0 || self.concerns_bit(caller) == 0 {
            return self;
        }
        let trial = self.extended_to(now_ns.wrapping_add(Self::TRIAL_TIMEOUT_NS), now_ns);
        Self(trial.0 | Self::TRIAL)
    }

    /// The health after a connect of `caller` was accepted.
    pub const fn after_success(self, caller: Caller) -> Self {
        if self.is_resetting() { self } else { self.after_service(caller) }
    }

    /// The health after a connection of `caller` has ended, on which bytes had arrived.
    pub const fn after_service(self, caller: Caller) -> Self {
        if self.concerns_bit(caller) == 0 { self } else { Self::HEALTHY }
    }

    /// The health while a prober watches the backend: ejected for `time_ns` from now at least. A
    /// healthy backend stays healthy.
    pub const fn ejected_until(self, until_ns: u64, now_ns: u64) -> Self {
        if self.0 == 0 { self } else { self.extended_to(until_ns, now_ns) }
    }

    /// The health after a probe was accepted at `now_ns`: the next connect tries it, and only its
    /// success clears the failures. A probe shows nothing about its witness's source ports.
    pub const fn after_probe(self, now_ns: u64) -> Self {
        if self.is_ejected(now_ns) && !self.is_resetting() && !self.lacked_port() {
            self.ending_at(Self::units(now_ns))
        } else {
            self
        }
    }

    const fn new(caller: Caller, own: u64, agreed: u64) -> Self {
        Self(
            (caller.0 & Self::CALLER_MASK) as u64
                | own << Self::OWN_SHIFT
                | agreed << Self::AGREED_SHIFT,
        )
    }

    const fn caller(self) -> u32 {
        self.0 as u32 & Self::CALLER_MASK
    }

    const fn own(self) -> u64 {
        self.0 >> Self::OWN_SHIFT & Self::MAX_FAILURES
    }

    const fn agreed(self) -> u64 {
        self.0 >> Self::AGREED_SHIFT & Self::MAX_FAILURES
    }

    const fn units(ns: u64) -> u64 {
        ns >> Self::UNIT_SHIFT & Self::END_MASK
    }

    /// Units until the ejection ends, modulo their number.
    const fn left(self, now_ns: u64) -> u64 {
        (self.0 >> Self::END_SHIFT).wrapping_sub(Self::units(now_ns)) & Self::END_MASK
    }

    /// Whether the ejection has not ended for long.
    const fn is_recent(self, now_ns: u64) -> bool {
        self.left(now_ns).wrapping_add(1 << Self::HORIZON_BITS) & Self::END_MASK
            < 2 << Self::HORIZON_BITS
    }

    /// Ejected for the time that `failures` determine, or longer if it was already.
    const fn ejected_for(self, failures: u64, now_ns: u64) -> Self {
        let shift = if failures > 6 { 5 } else { failures - 1 };
        let doubled = Self::INITIAL_BACKOFF_NS << shift;
        let backoff = if doubled > Self::MAX_BACKOFF_NS { Self::MAX_BACKOFF_NS } else { doubled };
        Self(self.0 & !Self::TRIAL).extended_to(now_ns.wrapping_add(backoff), now_ns)
    }

    /// Ejected until `until_ns`, or longer if it was already: only an accepted probe shortens an
    /// ejection.
    const fn extended_to(self, until_ns: u64, now_ns: u64) -> Self {
        let end = Self::units(until_ns.wrapping_add(Self::UNIT_NS - 1));
        let wanted = end.wrapping_sub(Self::units(now_ns)) & Self::END_MASK;
        let end = if wanted >> Self::HORIZON_BITS == 0 { end } else { Self::horizon(now_ns) };
        if self.is_ejected(now_ns) && self.left(now_ns) > wanted {
            self
        } else {
            self.ending_at(end)
        }
    }

    const fn horizon(now_ns: u64) -> u64 {
        (Self::units(now_ns) + (1 << Self::HORIZON_BITS) - 1) & Self::END_MASK
    }

    const fn resetting_as(self, other: Self) -> Self {
        Self(self.0 | other.0 & Self::RESETTING)
    }

    const fn ending_with(self, other: Self) -> Self {
        self.ending_at(other.0 >> Self::END_SHIFT)
    }

    const fn ending_at(self, end: u64) -> Self {
        Self(self.0 & ((1 << Self::END_SHIFT) - 1) | end << Self::END_SHIFT)
    }
}

const fn saturating(failures: u64) -> u64 {
    if failures > Health::MAX_FAILURES { Health::MAX_FAILURES } else { failures }
}

#[cfg(test)]
#[path = "backend_tests.rs"]
mod tests;
