//! Events of single connects: out of the kernel's ring, with names instead of numbers, to whoever
//! reads.
//!
//! A task of its own reads the ring, at most ten times a second, and asks the owner task for the
//! names of routes; the owner tells the kernel how many successes to tell.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use tokio::{
    io::{Interest, unix::AsyncFd},
    sync::{mpsc, oneshot, watch},
};
use tokio_util::sync::CancellationToken;

use crate::{
    agent::{event_loop::Owner, events::process_names::Callers},
    control::{ApiError, EventHub, Subscription, api},
    datapath::{self, EventKind, EventReader, Reason},
    pool::Pool,
    route::SourceName,
};

/// The rest between two looks at the ring, which has room for what happens meanwhile, up to a
/// hundred thousand events a second. The kernel wakes the reader for the first event of a rest
/// only, so that there are ten wake-ups a second at most, and none while nothing happens.
const REST: Duration = Duration::from_millis(100);
/// Events that are taken at once.
const BATCH: usize = 16 * 1024;
/// Above so many successes a second, not every one is told.
const MOST: u64 = 2000;
/// The same while nobody reads: what is kept for the next reader is the last thousand, and each one
/// costs the connect that it tells of as much as choosing its backend does.
const MOST_UNREAD: u64 = 200;

/// What the owner task has of events.
pub(crate) struct Events {
    hub: EventHub,
    questions: mpsc::Receiver<Question>,
    sampling: watch::Receiver<u8>,
    count: Arc<AtomicU64>,
}

/// The names of routes, and what the ring has lost.
pub(crate) struct Question {
    indices: BTreeSet<u32>,
    /// Those whose backends did not answer, or refused.
    failing: BTreeSet<u32>,
    reply: oneshot::Sender<Names>,
}

/// What the task that reads the ring wants of the owner task.
pub(crate) enum Wants {
    Names(Question),
    /// Another share of successes is to be told.
    OtherSampling,
}

struct Names {
    sources: BTreeMap<u32, SourceName>,
    lost: u64,
}

impl Events {
    /// What the task that reads wants next; never, once it has ended.
    pub(crate) async fn next(&mut self) -> Wants {
        tokio::select! {
            Some(question) = self.questions.recv() => Wants::Names(question),
            Ok(()) = self.sampling.changed() => Wants::OtherSampling,
            else => std::future::pending().await,
        }
    }
}

impl Owner {
    /// Tells the kernel which events are wanted.
    pub(crate) fn tell_events(&mut self) {
        let sampling = *self.events.sampling.borrow_and_update();
        if let Err(error) = self.live.datapath.set_event_sampling(Some(sampling)) {
            tracing::warn!(
                "failed to tell the datapath which events are wanted: {}",
                crate::error::error_chain(&error)
            );
        }
    }

    /// Answers the task that reads. Where backends fail, the load balancer has perhaps moved: its
    /// name is asked earlier than its TTL says.
    pub(crate) fn name_events(&self, question: Question) {
        for source in question.failing.iter().filter_map(|&index| self.live.leases.source_of(index))
        {
            self.live.follower.refresh(source);
        }
        let source = |index| Some((index, self.live.leases.source_of(index)?.clone()));
        let sources = question.indices.into_iter().filter_map(source).collect();
        // The task that asked may have ended.
        let _ = question
            .reply
            .send(Names { sources, lost: self.live.datapath.lost_events().unwrap_or_default() });
    }

    /// A reader's events. One that asks for a route that never was gets told so, instead of
    /// nothing.
    pub(crate) fn subscribe(&self, query: api::EventQuery) -> Result<Subscription, ApiError> {
        let unknown = query.route.clone().filter(|source| self.live.routes.get(source).is_none());
        let subscription = self.events.hub.subscribe(query);
        match unknown {
            Some(source) if subscription.is_empty() => Err(self.unknown(&source)),
            _ => Ok(subscription),
        }
    }

    pub(crate) fn events_info(&self) -> api::EventsInfo {
        api::EventsInfo {
            emitted: self.events.count.load(Relaxed),
            lost: self.live.datapath.lost_events().unwrap_or_default(),
            sampling_ratio: 1 << *self.events.sampling.borrow(),
            readers: self.events.hub.readers(),
        }
    }
}

/// Both halves: the owner's, and the task's.
pub(crate) fn new(reader: EventReader, pool: Pool) -> (Events, Reading) {
    let hub = EventHub::default();
    let (asking, questions) = mpsc::channel(1);
    let (wanted, mut sampling) = watch::channel(0);
    sampling.mark_changed();
    let count = Arc::new(AtomicU64::new(0));
    let callers = Callers::default();
    let reading = Reading {
        reader: Some(reader),
        pool,
        hub: hub.clone(),
        asking,
        wanted,
        count: Arc::clone(&count),
        callers,
        lost: None,
    };
    (Events { hub, questions, sampling, count }, reading)
}

/// The task that reads the ring.
pub(crate) struct Reading {
    reader: Option<EventReader>,
    pool: Pool,
    hub: EventHub,
    asking: mpsc::Sender<Question>,
    wanted: watch::Sender<u8>,
    count: Arc<AtomicU64>,
    callers: Callers,
    /// What the ring had lost when it was looked at last.
    lost: Option<u64>,
}

impl Reading {
    /// Until `shutdown`.
    pub(crate) async fn run(mut self, shutdown: CancellationToken) {
        tokio::select! {
            () = shutdown.cancelled() => {}
            Err(error) = self.read() => tracing::warn!("failed to wait for events, so there will \
                be none: {error}"),
        }
    }

    /// Until the owner task has ended.
    async fn read(&mut self) -> std::io::Result<()> {
        let Some(reader) = self.reader.take() else { return Ok(()) };
        // SAFETY: the reader owns the descriptor of its ring, gives out no other, and keeps it open
        // for as long as it lives.
        let mut reader = unsafe { AsyncFd::register_with_interest(reader, Interest::READABLE) }?;
        let mut pressure = Pressure::default();
        loop {
            let sampled = *self.wanted.borrow() > 0;
            let events = tokio::select! {
                ready = reader.readable_mut() => {
                    let mut ready = ready?;
                    let events = ready.get_inner_mut().read(BATCH);
                    if events.len() < BATCH {
                        ready.clear_ready();
                    }
                    events
                }
                // When nothing happens any more, everything is told again.
                () = tokio::time::sleep(Duration::from_secs(1)), if sampled => Vec::new(),
            };
            if let Some(told) = pressure.add(&events) {
                self.wanted.send_if_modified(|wanted| {
                    let most = if self.hub.readers() > 0 { MOST } else { MOST_UNREAD };
                    let next = next_sampling(*wanted, told, most);
                    std::mem::replace(wanted, next) != next
                });
            }
            if !events.is_empty() && self.publish(events).await.is_none() {
                return Ok(());
            }
            tokio::time::sleep(REST).await;
        }
    }

    /// Nothing when the owner task has ended.
    async fn publish(&mut self, events: Vec<datapath::Event>) -> Option<()> {
        let (reply, answer) = oneshot::channel();
        let indices = events.iter().map(|event| event.index).collect();
        let fails = |event: &&datapath::Event| {
            matches!(event.kind, EventKind::Refused | EventKind::TimedOut | EventKind::Unreachable)
        };
        let failing = events.iter().filter(fails).map(|event| event.index).collect();
        self.asking.send(Question { indices, failing, reply }).await.ok()?;
        let Names { sources, lost } = answer.await.ok()?;
        self.count.fetch_add(events.len() as u64, Relaxed);
        let missing = lost.saturating_sub(self.lost.replace(lost).unwrap_or(lost));
        let missing = (missing > 0).then_some(api::EventLine::Lost(api::Lost {
            version: api::VERSION,
            lost: missing,
            lost_by: api::LostBy::Kernel,
        }));
        let lines: Vec<_> =
            events.into_iter().map(|event| self.line(event, &sources)).chain(missing).collect();
        self.hub.publish(lines);
        Some(())
    }

    fn line(
        &mut self,
        event: datapath::Event,
        sources: &BTreeMap<u32, SourceName>,
    ) -> api::EventLine {
        let v6 = event.vip6.then(|| self.pool.ipv6_at(event.index)).flatten();
        let v4 = || self.pool.ipv4_at(event.index).unwrap_or(self.pool.ipv4.network());
        let (result, reason) = result(event.kind);
        api::EventLine::Event(Box::new(api::Event {
            version: api::VERSION,
            at: event.at,
            result,
            reason,
            source: sources.get(&event.index).cloned(),
            vip: v6.map_or_else(|| v4().into(), Into::into),
            vip_port: event.vip_port,
            backend: event.backend,
            elapsed_ns: u64::try_from(event.elapsed.as_nanos()).unwrap_or(u64::MAX),
            traffic: (result == api::EventResult::Closed).then(|| api::Traffic {
                rx_bytes: event.rx_bytes,
                tx_bytes: event.tx_bytes,
                srtt_us: u64::try_from(event.srtt.as_micros()).unwrap_or(u64::MAX),
                retransmitted: event.retransmitted,
            }),
            pid: event.pid,
            command: self.callers.command(&event),
            cgroup: self.callers.cgroup(event.cgroup),
            cgroup_id: event.cgroup,
            sampling_ratio: event.sampling_ratio,
        }))
    }
}

fn result(happened: EventKind) -> (api::EventResult, Option<api::EventReason>) {
    use api::EventResult as R;
    let reason = |reason| match reason {
        Reason::NoRoute => api::EventReason::NoRoute,
        Reason::PortNotListed => api::EventReason::PortNotListed,
        Reason::NoBackend => api::EventReason::NoBackend,
        Reason::NoMemory => api::EventReason::NoMemory,
    };
    match happened {
        EventKind::Established => (R::Established, None),
        EventKind::Closed => (R::Closed, None),
        EventKind::Refused => (R::Refused, None),
        EventKind::TimedOut => (R::TimedOut, None),
        EventKind::Unreachable => (R::Unreachable, None),
        EventKind::Aborted => (R::Aborted, None),
        EventKind::Unsent => (R::Unsent, None),
        EventKind::Denied(why) => (R::Denied, Some(reason(why))),
        EventKind::Passed(why) => (R::Passed, Some(reason(why))),
    }
}

/// Successes by the second.
struct Pressure {
    since: Instant,
    successes: u64,
}

impl Default for Pressure {
    fn default() -> Self {
        Self { since: Instant::now(), successes: 0 }
    }
}

impl Pressure {
    /// Takes note of the successes among `events`; how many there were in a second, once it is
    /// over.
    fn add(&mut self, events: &[datapath::Event]) -> Option<u64> {
        self.successes += events
            .iter()
            .filter(|event| matches!(event.kind, EventKind::Established | EventKind::Closed))
            .count() as u64;
        if self.since.elapsed() < Duration::from_secs(1) {
            return None;
        }
        Some(std::mem::take(self).successes)
    }
}

/// The power of two of which one success is told, after a second in which `told` were of which
/// `most` are wanted: so many more that they fit, or so many less that twice as many would still
/// fit.
fn next_sampling(now: u8, told: u64, most: u64) -> u8 {
    let highest = redirector_common::sampling::Sampling::MAX_RATIO_LOG2;
    if told > most {
        let times = told.div_ceil(most).next_power_of_two().trailing_zeros();
        now.saturating_add(u8::try_from(times).unwrap_or(highest)).min(highest)
    } else {
        let times = (most / 2 / told.max(1)).checked_ilog2().unwrap_or(0);
        now.saturating_sub(u8::try_from(times).unwrap_or(highest))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn so_many_successes_are_told_that_they_fit_and_all_of_them_when_it_is_quiet() {
        assert_eq!(next_sampling(0, 0, MOST), 0);
        assert_eq!(next_sampling(0, MOST, MOST), 0);
        // 40,000 a second: one in 32 makes 1,250.
        assert_eq!(next_sampling(0, 40_000, MOST), 5);
        assert_eq!(next_sampling(5, 1250, MOST), 5, "it stays");
        assert_eq!(
            next_sampling(5, 500, MOST),
            4,
            "twice as many fit, and twice as many again would not"
        );
        assert_eq!(
            next_sampling(9, u64::MAX, MOST),
            redirector_common::sampling::Sampling::MAX_RATIO_LOG2
        );
        assert_eq!(next_sampling(9, 0, MOST), 0, "it is quiet");
        // 5,000 a second, and somebody begins to read, and goes.
        assert_eq!(
            [
                next_sampling(5, 156, MOST),
                next_sampling(3, 625, MOST),
                next_sampling(3, 625, MOST_UNREAD)
            ],
            [3, 3, 5]
        );
    }
}
