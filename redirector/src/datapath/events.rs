//! Events of single connects, read from the ring buffer that the programs write.

use std::{
    net::SocketAddr,
    os::fd::{AsRawFd, RawFd},
    time::Duration,
};

use aya::maps::{MapData, RingBuf};
use redirector_common::{
    addr::PortBe,
    event::{self, DenyReason},
};

use crate::datapath::{address, sys::monotonic_ns};

/// What kind to a connect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventKind {
    /// A backend accepted it.
    Established,
    /// It was established, and has ended.
    Closed,
    /// It was answered with a reset.
    Refused,
    /// It was not answered.
    TimedOut,
    /// The network reported it as undeliverable.
    Unreachable,
    /// The application gave it up.
    Aborted,
    /// It never left this host.
    Unsent,
    /// It was refused here.
    Denied(Reason),
    /// It was left alone, by `on_no_backend = "pass"`.
    Passed(Reason),
}

/// Why a connect was not redirected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// The address has no route.
    NoRoute,
    /// The route does not list the port.
    PortNotListed,
    /// The route has no backend that the socket could reach.
    NoBackend,
    /// The kernel had no memory to remember it.
    NoMemory,
}

/// One event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// Time of the event.
    pub at: jiff::Timestamp,
    /// What.
    pub kind: EventKind,
    /// The route: its VIP's index.
    pub index: u32,
    /// Whether the client asked for the IPv6 VIP.
    pub vip6: bool,
    /// The port that the client asked for.
    pub vip_port: u16,
    /// The backend that it was sent to.
    pub backend: Option<SocketAddr>,
    /// Time since the connect; for [`EventKind::Closed`], since it was established.
    pub elapsed: Duration,
    /// Bytes received, for [`EventKind::Closed`].
    pub rx_bytes: u64,
    /// Bytes acknowledged, for [`EventKind::Closed`].
    pub tx_bytes: u64,
    /// The smoothed round-trip time, for [`EventKind::Closed`].
    pub srtt: Duration,
    /// Segments retransmitted, for [`EventKind::Closed`].
    pub retransmitted: u32,
    /// The process that called connect, in the initial pid namespace.
    pub pid: u32,
    /// Its command, or the name of its thread. Empty if the programs may not ask for it (6.17 and
    /// later, without CAP_PERFMON).
    pub command: String,
    /// Its cgroup: the inode of the directory.
    pub cgroup: u64,
    /// How many events of its kind it represents: successes are sampled under load.
    pub sampling_ratio: u32,
}

/// The reading end of the ring buffer. Each datapath has one.
pub struct EventReader {
    ring: RingBuf<MapData>,
}

impl std::fmt::Debug for EventReader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("EventReader")
    }
}

/// For a reactor: readable after an event has come that [`EventReader::read`] has not returned.
impl AsRawFd for EventReader {
    fn as_raw_fd(&self) -> RawFd {
        self.ring.as_raw_fd()
    }
}

impl EventReader {
    pub(crate) fn new(ring: RingBuf<MapData>) -> Self {
        Self { ring }
    }

    /// The events since the last call, at most `limit`, the oldest first. Never waits, and makes no
    /// system call.
    pub fn read(&mut self, limit: usize) -> Vec<Event> {
        let clock = Clock::now();
        let mut events = Vec::new();
        while events.len() < limit {
            let Some(item) = self.ring.next() else { break };
            if item.len() >= size_of::<event::Event>() {
                // SAFETY: there are enough bytes, and any bytes are a valid event.
                let raw = unsafe { item.as_ptr().cast::<event::Event>().read_unaligned() };
                events.extend(decode(&raw, &clock));
            }
        }
        events
    }
}

/// Both clocks at the same moment.
struct Clock {
    monotonic_ns: u64,
    wall: jiff::Timestamp,
}

impl Clock {
    fn now() -> Self {
        Self { monotonic_ns: monotonic_ns(), wall: jiff::Timestamp::now() }
    }

    /// The wall clock's time at `ns` of the monotonic one.
    fn at(&self, ns: u64) -> jiff::Timestamp {
        let ago = self.monotonic_ns.saturating_sub(ns);
        self.wall.checked_sub(Duration::from_nanos(ago)).unwrap_or(self.wall)
    }
}

fn decode(raw: &event::Event, clock: &Clock) -> Option<Event> {
    let kind = kind(raw)?;
    let address = address::from_ip(raw.backend);
    let command = raw.comm.split(|&byte| byte == 0).next().unwrap_or_default();
    Some(Event {
        at: clock.at(raw.at_ns),
        kind,
        index: raw.route,
        vip6: raw.vip6 != 0,
        vip_port: raw.vip_port.get(),
        backend: (raw.backend_port != PortBe(0) && !address.is_unspecified())
            .then(|| SocketAddr::new(address, raw.backend_port.get())),
        elapsed: Duration::from_nanos(raw.elapsed_ns),
        rx_bytes: raw.rx_bytes,
        tx_bytes: raw.tx_bytes,
        srtt: Duration::from_micros(raw.srtt_us.into()),
        retransmitted: raw.retransmitted,
        pid: raw.pid,
        command: String::from_utf8_lossy(command).into_owned(),
        cgroup: raw.cgroup,
        sampling_ratio: if matches!(kind, EventKind::Established | EventKind::Closed) {
            raw.sampling.ratio()
        } else {
            1
        },
    })
}

/// `None` for a kind that this version does not know.
fn kind(raw: &event::Event) -> Option<EventKind> {
    let reason = match DenyReason::from_number(raw.reason) {
        Some(DenyReason::NoRoute) => Reason::NoRoute,
        Some(DenyReason::PortNotListed) => Reason::PortNotListed,
        Some(DenyReason::NoMemory) => Reason::NoMemory,
        Some(DenyReason::NoBackend) | None => Reason::NoBackend,
    };
    Some(match event::EventKind::from_number(raw.kind)? {
        event::EventKind::Established => EventKind::Established,
        event::EventKind::Closed => EventKind::Closed,
        event::EventKind::Refused => EventKind::Refused,
        event::EventKind::TimedOut => EventKind::TimedOut,
        event::EventKind::Unreachable => EventKind::Unreachable,
        event::EventKind::Aborted => EventKind::Aborted,
        event::EventKind::Unsent => EventKind::Unsent,
        event::EventKind::Denied => EventKind::Denied(reason),
        event::EventKind::Passed => EventKind::Passed(reason),
    })
}
