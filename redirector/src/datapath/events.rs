//! Events of single connects, read from the ring buffer that the programs write.

use std::{
    net::SocketAddr,
    os::fd::{AsRawFd, RawFd},
    time::Duration,
};

use aya::maps::{MapData, RingBuf};
use redirector_common::{
    addr::PortBe,
    event::{self, DenyReason, EventKind},
};

use crate::datapath::{address, sys::monotonic_ns};

/// One event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// Time of the event.
    pub at: jiff::Timestamp,
    /// What happened.
    pub kind: EventKind,
    /// Why a connect was not redirected, for [`EventKind::Denied`] and [`EventKind::Passed`], or
    /// not sent, if that is known.
    pub reason: Option<DenyReason>,
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
    /// The index of the guest's interface; none for a process of this host.
    pub interface: Option<u32>,
    /// How many events of its kind it represents: successes are sampled under load, and failures
    /// of a client that has many.
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

/// For a reactor: readable after an event has arrived that [`EventReader::read`] has not returned.
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
    let kind = EventKind::from_number(raw.kind)?;
    let reason = match kind {
        EventKind::Denied | EventKind::Passed => {
            Some(DenyReason::from_number(raw.reason).unwrap_or(DenyReason::NoBackend))
        }
        _ => DenyReason::from_number(raw.reason),
    };
    let address = address::from_ip(raw.backend);
    let command = raw.comm.split(|&byte| byte == 0).next().unwrap_or_default();
    let is_guest = raw.client & event::Event::CLIENT_GUEST != 0;
    Some(Event {
        at: clock.at(raw.at_ns),
        kind,
        reason,
        index: raw.route,
        vip6: raw.client & event::Event::CLIENT_VIP6 != 0,
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
        cgroup: if is_guest { 0 } else { raw.cgroup },
        interface: is_guest.then(|| u32::try_from(raw.cgroup).unwrap_or_default()),
        sampling_ratio: raw.sampling.ratio(),
    })
}
