//! Distributes events to readers: the last ones are kept, and no reader delays another.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, HashMap, VecDeque},
    convert::Infallible,
    sync::Arc,
};

use bytes::Bytes;
use futures_util::{Stream, StreamExt, stream};
use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, broadcast};
use tokio_util::sync::CancellationToken;

use crate::control::api::{EventLine, EventQuery, Lost, LostBy, VERSION};

/// How many events are kept for later readers.
pub const KEPT: usize = 1000;
/// How many events a reader may lag behind before it loses some.
const MAX_LAG: usize = 4096;
/// How many lines are written at once at most.
const MAX_CHUNK: usize = 256;

/// The hub to which events are published. Clones share it.
#[derive(Clone, Debug)]
pub struct EventHub {
    recent: Arc<Mutex<Recent>>,
    sender: broadcast::Sender<Arc<EventLine>>,
}

impl Default for EventHub {
    fn default() -> Self {
        Self { recent: Arc::default(), sender: broadcast::channel(MAX_LAG).0 }
    }
}

impl EventHub {
    /// Sends lines to every reader, and keeps [`KEPT`] of the last.
    pub fn publish(&self, lines: impl IntoIterator<Item = EventLine>) {
        let mut recent = self.recent.lock();
        for line in lines.into_iter().map(Arc::new) {
            recent.push(Arc::clone(&line));
            // An error means that no reader follows.
            let _ = self.sender.send(line);
        }
    }

    /// Past events and, if the query follows, new ones, without a gap or an overlap.
    pub fn subscribe(&self, query: EventQuery) -> Subscription {
        let recent = self.recent.lock();
        let next = query.follow.then(|| self.sender.subscribe());
        let recent: Vec<_> =
            recent.lines.values().filter(|line| query.wants(line)).cloned().collect();
        let skipped = query.limit.map_or(0, |limit| recent.len().saturating_sub(limit));
        Subscription { recent: recent.into_iter().skip(skipped).collect(), next, query }
    }

    /// Readers that follow new events.
    pub fn readers(&self) -> usize {
        self.sender.receiver_count()
    }
}

/// The events that are kept. A new one takes the place of the oldest one of the client that has
/// the most, so that nobody pushes out what few events others have.
#[derive(Debug, Default)]
struct Recent {
    /// By number, ascending.
    lines: BTreeMap<u64, Arc<EventLine>>,
    next: u64,
    /// The numbers of each client's events.
    clients: HashMap<Client, VecDeque<u64>>,
}

/// A cgroup or a guest's interface; neither for a line about lost events.
type Client = (u64, Option<String>);

impl Recent {
    fn push(&mut self, line: Arc<EventLine>) {
        let client = client(&line);
        if self.lines.len() == KEPT {
            let most = self
                .clients
                .iter()
                .max_by_key(|(_, numbers)| (numbers.len(), Reverse(numbers.front().copied())));
            let most = most.map(|(client, _)| client.clone()).unwrap_or_default();
            self.remove_oldest(&most);
        }
        self.clients.entry(client).or_default().push_back(self.next);
        self.lines.insert(self.next, line);
        self.next += 1;
    }

    fn remove_oldest(&mut self, client: &Client) {
        let Some(numbers) = self.clients.get_mut(client) else { return };
        if let Some(oldest) = numbers.pop_front() {
            self.lines.remove(&oldest);
        }
        if numbers.is_empty() {
            self.clients.remove(client);
        }
    }
}

fn client(line: &EventLine) -> Client {
    line.event().map(|event| (event.cgroup_id, event.interface.clone())).unwrap_or_default()
}

/// One reader's events.
#[derive(Debug)]
pub struct Subscription {
    recent: Vec<Arc<EventLine>>,
    next: Option<broadcast::Receiver<Arc<EventLine>>>,
    query: EventQuery,
}

impl Subscription {
    /// Whether no past event matches.
    pub fn is_empty(&self) -> bool {
        self.recent.is_empty()
    }

    /// The events as lines of JSON: past ones first, then new ones until `shutdown`, if followed.
    /// `permit` is held while the stream lives.
    pub(super) fn lines(
        self,
        shutdown: CancellationToken,
        permit: Option<OwnedSemaphorePermit>,
    ) -> impl Stream<Item = Result<Bytes, Infallible>> + use<> {
        self.framed(Framing::Line, shutdown, permit)
    }

    /// As server-sent events, each with the JSON of a line.
    pub(crate) fn server_sent(
        self,
        shutdown: CancellationToken,
    ) -> impl Stream<Item = Result<Bytes, Infallible>> + use<> {
        self.framed(Framing::ServerSent, shutdown, None)
    }

    fn framed(
        self,
        framing: Framing,
        shutdown: CancellationToken,
        permit: Option<OwnedSemaphorePermit>,
    ) -> impl Stream<Item = Result<Bytes, Infallible>> + use<> {
        let Self { recent, next, query } = self;
        let mut before = Vec::new();
        recent.iter().for_each(|line| framing.write(&mut before, line));
        let first = stream::iter((!before.is_empty()).then(|| Ok(Bytes::from(before))));
        let following =
            next.map(|receiver| Following { receiver, query, framing, shutdown, _permit: permit });
        first.chain(stream::unfold(following, |following| async {
            let mut following = following?;
            let chunk = following.chunk().await?;
            Some((Ok(Bytes::from(chunk)), Some(following)))
        }))
    }
}

struct Following {
    receiver: broadcast::Receiver<Arc<EventLine>>,
    query: EventQuery,
    framing: Framing,
    shutdown: CancellationToken,
    _permit: Option<OwnedSemaphorePermit>,
}

impl Following {
    /// The next lines that match; none at the end of the stream.
    async fn chunk(&mut self) -> Option<Vec<u8>> {
        let mut chunk = Vec::new();
        while chunk.is_empty() {
            let received = tokio::select! {
                () = self.shutdown.cancelled() => return None,
                received = self.receiver.recv() => received,
            };
            match received {
                Ok(line) => self.append(&mut chunk, &line),
                Err(broadcast::error::RecvError::Lagged(lost)) => {
                    self.append_lost(&mut chunk, lost)
                }
                Err(broadcast::error::RecvError::Closed) => return None,
            }
        }
        for _ in 1..MAX_CHUNK {
            match self.receiver.try_recv() {
                Ok(line) => self.append(&mut chunk, &line),
                Err(broadcast::error::TryRecvError::Lagged(lost)) => {
                    self.append_lost(&mut chunk, lost)
                }
                Err(_) => break,
            }
        }
        Some(chunk)
    }

    fn append(&self, chunk: &mut Vec<u8>, line: &EventLine) {
        if self.query.wants(line) {
            self.framing.write(chunk, line);
        }
    }

    fn append_lost(&self, chunk: &mut Vec<u8>, lost: u64) {
        let lost = Lost { version: VERSION, lost, lost_by: LostBy::Reader };
        self.framing.write(chunk, &EventLine::Lost(lost));
    }
}

/// What is around the JSON of an event, which has no line break.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Framing {
    Line,
    ServerSent,
}

impl Framing {
    fn write(self, chunk: &mut Vec<u8>, line: &EventLine) {
        if self == Self::ServerSent {
            chunk.extend_from_slice(b"data: ");
        }
        serde_json::to_writer(&mut *chunk, line).expect("an event is JSON");
        chunk.extend_from_slice(if self == Self::ServerSent { b"\n\n" } else { b"\n" });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::api::Event;

    fn event(cgroup: u64) -> EventLine {
        EventLine::Event(Box::new(Event { cgroup_id: cgroup, ..Event::sample() }))
    }

    /// How many events of each of these cgroups are kept, in the order of their arrival.
    fn kept(hub: &EventHub, cgroups: &[u64]) -> Vec<usize> {
        let lines = hub.subscribe(EventQuery::default()).recent;
        assert!(lines.len() <= KEPT);
        let of = |cgroup| {
            lines.iter().filter(|line| line.event().is_some_and(|e| e.cgroup_id == cgroup)).count()
        };
        cgroups.iter().map(|&cgroup| of(cgroup)).collect()
    }

    #[test]
    fn a_flood_of_one_client_pushes_out_no_others_events() {
        let hub = EventHub::default();
        hub.publish((0..20).map(|_| event(7)));
        hub.publish((0..3).flat_map(|_| (0..2 * KEPT).map(|_| event(9)).chain([event(8)])));
        assert_eq!(kept(&hub, &[7, 8, 9]), [20, 3, KEPT - 23]);
        // Two that flood share the room.
        hub.publish((0..2 * KEPT).flat_map(|_| [event(9), event(8)]));
        let found = kept(&hub, &[7, 8, 9]);
        assert!(found[0] == 20 && found[1].abs_diff(found[2]) <= 1, "{found:?}");
        // Many with one event each: the newest remain.
        hub.publish((100..100 + 2 * KEPT as u64).map(event));
        let last = 99 + 2 * KEPT as u64;
        assert_eq!(kept(&hub, &[last, last - 500, 100, 8]), [1, 1, 0, 0]);
    }
}
