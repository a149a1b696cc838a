//! Events of single connects, which the programs write to a ring buffer. An event that finds the
//! ring full is lost and counted; no connect ever waits for the ring.

use crate::{
    addr::{Ip6Be, PortBe},
    sampling::Sampling,
    table_type::table_type,
};

/// Size of the ring buffer in bytes: it holds 10,000 events, a quarter of a second at 40,000 events
/// a second.
pub const RING_BYTES: u32 = 1 << 20;

/// One event of one connect.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Event {
    /// Time of the event: `CLOCK_MONOTONIC` in nanoseconds.
    pub at_ns: u64,
    /// Nanoseconds since the connect; for [`EventKind::Closed`] and [`EventKind::Reset`], since it
    /// was established.
    pub elapsed_ns: u64,
    /// The cgroup of the process that called connect: the inode of its directory. With
    /// [`Event::CLIENT_GUEST`] the index of the guest's interface.
    pub cgroup: u64,
    /// Bytes received, for [`EventKind::Closed`] and [`EventKind::Reset`].
    pub rx_bytes: u64,
    /// Bytes that the other side acknowledged, for the same kinds.
    pub tx_bytes: u64,
    /// The backend's address, an IPv4 one in its mapped form; `::` without a backend.
    pub backend: Ip6Be,
    /// The command of the thread that called connect, padded with zeros.
    pub comm: [u8; 16],
    /// Its process ID in the initial pid namespace.
    pub pid: u32,
    /// The route: the VIP's index in the pool.
    pub route: u32,
    /// The smoothed round-trip time in microseconds, for the same kinds.
    pub srtt_us: u32,
    /// Segments retransmitted, for the same kinds.
    pub retransmitted: u32,
    /// The port that the client asked for.
    pub vip_port: PortBe,
    /// The port that it was sent to.
    pub backend_port: PortBe,
    /// The number of an [`EventKind`].
    pub kind: u8,
    /// The number of a [`DenyReason`], for [`EventKind::Denied`], [`EventKind::Passed`] and, if
    /// known, [`EventKind::Unsent`].
    pub reason: u8,
    /// `CLIENT_` bits.
    pub client: u8,
    /// How many successes this event represents: see [`Sampling::ratio`].
    pub sampling: Sampling,
}
table_type!(Event, 96);

impl Event {
    /// The client asked for the IPv6 VIP.
    pub const CLIENT_VIP6: u8 = 1;
    /// The client is a guest, which has no process here.
    pub const CLIENT_GUEST: u8 = 2;
}

/// What happened to a connect.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(
    feature = "user",
    derive(serde::Serialize, serde::Deserialize, clap::ValueEnum),
    serde(rename_all = "snake_case"),
    value(rename_all = "snake_case")
)]
#[repr(u8)]
pub enum EventKind {
    /// A backend accepted the connect.
    Established = 1,
    /// An established connection has ended.
    Closed = 2,
    /// The connect was answered with a reset.
    Refused = 3,
    /// The connect was not answered.
    TimedOut = 4,
    /// The network reported the connect as undeliverable.
    Unreachable = 5,
    /// The application gave up the connect.
    Aborted = 6,
    /// The connect never left this host.
    Unsent = 7,
    /// The connect was refused on this host.
    Denied = 8,
    /// The connect was not redirected, by `on_no_backend = "pass"`.
    Passed = 9,
    /// The backend reset an established connection before a byte arrived.
    Reset = 10,
}

impl EventKind {
    /// All of them, by number.
    pub const ALL: [Self; 10] = [
        Self::Established,
        Self::Closed,
        Self::Refused,
        Self::TimedOut,
        Self::Unreachable,
        Self::Aborted,
        Self::Unsent,
        Self::Denied,
        Self::Passed,
        Self::Reset,
    ];

    /// The kind of this number; none for a number that this version does not know.
    pub fn from_number(number: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|&kind| kind as u8 == number)
    }

    /// Whether it is a success, whose events are sampled for all clients together.
    pub const fn is_sampled(self) -> bool {
        matches!(self, Self::Established | Self::Closed)
    }

    /// Whether an established connection has ended.
    pub const fn is_end(self) -> bool {
        matches!(self, Self::Closed | Self::Reset)
    }

    /// Whether the connect failed.
    pub const fn is_failure(self) -> bool {
        !self.is_sampled()
    }

    /// The word in JSON and on the command line.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Established => "established",
            Self::Closed => "closed",
            Self::Refused => "refused",
            Self::TimedOut => "timed_out",
            Self::Unreachable => "unreachable",
            Self::Aborted => "aborted",
            Self::Unsent => "unsent",
            Self::Denied => "denied",
            Self::Passed => "passed",
            Self::Reset => "reset",
        }
    }

    /// The label for a person.
    pub const fn label(self) -> &'static str {
        match self {
            Self::TimedOut => "timed out",
            Self::Unsent => "never sent",
            _ => self.as_str(),
        }
    }
}

/// Why a connect was not redirected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(
    feature = "user",
    derive(serde::Serialize, serde::Deserialize),
    serde(rename_all = "snake_case")
)]
#[repr(u8)]
pub enum DenyReason {
    /// The address has no route.
    NoRoute = 1,
    /// The route does not list the port.
    PortNotListed = 2,
    /// The route has no backend that this socket could reach.
    NoBackend = 3,
    /// The kernel had no memory to record the connect.
    NoMemory = 4,
    /// The guest's interface has too many flows.
    TooManyFlows = 5,
    /// No source port towards the backend was free.
    NoSourcePort = 6,
}

impl DenyReason {
    /// All of them, by number.
    pub const ALL: [Self; 6] = [
        Self::NoRoute,
        Self::PortNotListed,
        Self::NoBackend,
        Self::NoMemory,
        Self::TooManyFlows,
        Self::NoSourcePort,
    ];

    /// The label for a person.
    pub const fn label(self) -> &'static str {
        match self {
            Self::NoRoute => "no route",
            Self::PortNotListed => "port not listed",
            Self::NoBackend => "no backend",
            Self::NoMemory => "no memory",
            Self::TooManyFlows => "too many flows",
            Self::NoSourcePort => "no source port",
        }
    }

    /// The reason of this number; none for a number that this version does not know.
    pub fn from_number(number: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|&reason| reason as u8 == number)
    }
}

/// The only element of the table that counts events.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct EventStats {
    /// Events lost since the ring was full.
    pub lost: u64,
}
table_type!(EventStats, 8);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_and_reasons_are_found_by_number() {
        for (at, kind) in EventKind::ALL.into_iter().enumerate() {
            assert_eq!((kind as usize, EventKind::from_number(kind as u8)), (at + 1, Some(kind)));
        }
        for (at, reason) in DenyReason::ALL.into_iter().enumerate() {
            assert_eq!(
                (reason as usize, DenyReason::from_number(reason as u8)),
                (at + 1, Some(reason))
            );
        }
        assert_eq!((EventKind::from_number(0), DenyReason::from_number(0)), (None, None));
        assert_eq!((EventKind::from_number(11), DenyReason::from_number(7)), (None, None));
    }
}
