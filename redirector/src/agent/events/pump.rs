//! Reads connect events from the kernel's ring buffer, at most ten times a second, and publishes
//! them to readers with names instead of numbers.

use std::{collections::BTreeMap, sync::atomic::Ordering::Relaxed, time::Duration};

use tokio::{
    io::{Interest, unix::AsyncFd},
    sync::oneshot,
};
use tokio_util::sync::CancellationToken;

use crate::{
    agent::events::{
        feed::{EventFeed, NameQuery, NameReply, PumpChannels},
        pod_names::PodNames,
        process_names::ProcessNames,
        sampling::{MAX_RATE, MAX_RATE_UNREAD, SuccessRate, next_sampling},
    },
    control::api,
    datapath::{Event, EventKind, EventReader},
    pool::Pool,
    route::SourceName,
};

/// The pause between two reads. The ring has room for what happens meanwhile, up to a hundred
/// thousand events a second, and the kernel wakes the reader only for the first event of a pause.
const PAUSE: Duration = Duration::from_millis(100);
/// The pause while the kernel does not provide the commands of processes: most jobs' processes live
/// longer than this after a connect.
const PAUSE_UNNAMED: Duration = Duration::from_millis(5);
/// After a pass of more events than this the longer pause applies: few of them have a process that
/// is gone, and each wake-up costs more than an event.
const FEW: usize = 100;
/// Events that are read at once.
const BATCH: usize = 16 * 1024;

/// The task that reads the ring buffer.
pub(crate) struct EventPump {
    reader: Option<EventReader>,
    pool: Pool,
    channels: PumpChannels,
    process_names: ProcessNames,
    pod_names: PodNames,
    /// How many events the ring had lost at the last read.
    lost: Option<u64>,
}

impl EventPump {
    /// The pump, and the event loop's side of it.
    pub(crate) fn new(reader: EventReader, pool: Pool) -> (EventFeed, Self) {
        let (feed, channels) = EventFeed::new();
        let pump = Self {
            reader: Some(reader),
            pool,
            channels,
            process_names: ProcessNames::default(),
            pod_names: PodNames::default(),
            lost: None,
        };
        (feed, pump)
    }

    /// Names pods from now on.
    pub(crate) fn name_pods(&mut self, pod_names: PodNames) {
        self.pod_names = pod_names;
    }

    /// Runs until `shutdown`.
    pub(crate) async fn run(mut self, shutdown: CancellationToken) {
        tokio::select! {
            () = shutdown.cancelled() => {}
            Err(error) = self.read() => {
                tracing::warn!("failed to wait for events, so there will be none: {error}")
            }
        }
    }

    /// Reads until the event loop has ended.
    async fn read(&mut self) -> std::io::Result<()> {
        let Some(reader) = self.reader.take() else { return Ok(()) };
        // SAFETY: the reader owns the descriptor of its ring, gives out no other, and keeps it open
        // for as long as it lives.
        let mut reader = unsafe { AsyncFd::register_with_interest(reader, Interest::READABLE) }?;
        let mut rate = SuccessRate::default();
        loop {
            let is_sampled = *self.channels.sampling.borrow() > 0;
            let events = tokio::select! {
                ready = reader.readable_mut() => {
                    let mut ready = ready?;
                    let events = ready.get_inner_mut().read(BATCH);
                    if events.len() < BATCH {
                        ready.clear_ready();
                    }
                    events
                }
                // Without events the sampling ratio falls back to 1.
                () = tokio::time::sleep(Duration::from_secs(1)), if is_sampled => Vec::new(),
            };
            if let Some(emitted) = rate.add(&events) {
                self.adapt_sampling(emitted);
            }
            let is_unnamed = self.process_names.read_commands(&events) && events.len() <= FEW;
            if !events.is_empty() && self.publish(events).await.is_none() {
                return Ok(());
            }
            tokio::time::sleep(if is_unnamed { PAUSE_UNNAMED } else { PAUSE }).await;
        }
    }

    /// Adapts the sampling to the successes of the last second.
    fn adapt_sampling(&self, emitted: u64) {
        let max = if self.channels.hub.readers() > 0 { MAX_RATE } else { MAX_RATE_UNREAD };
        self.channels.sampling.send_if_modified(|sampling| {
            let next = next_sampling(*sampling, emitted, max);
            std::mem::replace(sampling, next) != next
        });
    }

    /// Publishes events with the names of their routes. None when the event loop has ended.
    async fn publish(&mut self, events: Vec<Event>) -> Option<()> {
        let (reply, answer) = oneshot::channel();
        let indices = events.iter().map(|event| event.index).collect();
        let failed = |event: &&Event| {
            use EventKind::{Refused, Reset, TimedOut, Unreachable};
            matches!(event.kind, Refused | TimedOut | Unreachable | Reset)
        };
        let failing = events.iter().filter(failed).map(|event| event.index).collect();
        self.channels.queries.send(NameQuery { indices, failing, reply }).await.ok()?;
        let NameReply { sources, lost } = answer.await.ok()?;
        self.channels.emitted.fetch_add(events.len() as u64, Relaxed);
        let missing = lost.saturating_sub(self.lost.replace(lost).unwrap_or(lost));
        let missing = (missing > 0).then_some(api::EventLine::Lost(api::Lost {
            version: api::VERSION,
            lost: missing,
            lost_by: api::LostBy::Kernel,
        }));
        let lines: Vec<_> =
            events.into_iter().map(|event| self.line(event, &sources)).chain(missing).collect();
        self.channels.hub.publish(lines);
        Some(())
    }

    fn line(&mut self, event: Event, sources: &BTreeMap<u32, SourceName>) -> api::EventLine {
        let v6 = event.vip6.then(|| self.pool.ipv6_at(event.index)).flatten();
        let cgroup = self.process_names.cgroup(event.cgroup);
        let v4 = || self.pool.ipv4_at(event.index).unwrap_or(self.pool.ipv4.network());
        api::EventLine::Event(Box::new(api::Event {
            version: api::VERSION,
            at: event.at,
            result: event.kind,
            reason: event.reason,
            source: sources.get(&event.index).cloned(),
            vip: v6.map_or_else(|| v4().into(), Into::into),
            vip_port: event.vip_port,
            backend: event.backend,
            elapsed_ns: u64::try_from(event.elapsed.as_nanos()).unwrap_or(u64::MAX),
            traffic: event.kind.is_end().then(|| api::Traffic {
                rx_bytes: event.rx_bytes,
                tx_bytes: event.tx_bytes,
                srtt_us: u64::try_from(event.srtt.as_micros()).unwrap_or(u64::MAX),
                retransmitted: event.retransmitted,
            }),
            interface: event.interface.map(interface_name),
            pid: event.pid,
            command: self.process_names.command(&event),
            pod: cgroup.as_deref().and_then(|cgroup| self.pod_names.of(cgroup)),
            cgroup,
            cgroup_id: event.cgroup,
            sampling_ratio: event.sampling_ratio,
        }))
    }
}

/// The name of an interface, or its number if it is gone.
fn interface_name(index: u32) -> String {
    let mut name = [0_u8; libc::IF_NAMESIZE];
    // SAFETY: the kernel's names, with their zero byte, fit into the buffer.
    let found = unsafe { libc::if_indextoname(index, name.as_mut_ptr().cast()) };
    let text = std::ffi::CStr::from_bytes_until_nul(&name).unwrap_or_default();
    if found.is_null() { format!("number {index}") } else { text.to_string_lossy().into_owned() }
}
