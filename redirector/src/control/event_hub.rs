//! Events on their way to readers: the last ones are kept, and nobody waits for a slow reader.

use std::{
    collections::VecDeque,
    convert::Infallible,
    sync::{Arc, Mutex, PoisonError},
};

use bytes::Bytes;
use futures_util::{Stream, StreamExt, stream};
use tokio::sync::{OwnedSemaphorePermit, broadcast};
use tokio_util::sync::CancellationToken;

use crate::control::api::{EventLine, EventQuery, Lost, LostBy, VERSION};

/// How many events are kept for whoever asks later.
pub const KEPT: usize = 1000;
/// How many a reader may lag behind before it loses some.
const LAG: usize = 4096;
/// Lines that are written at once, at most.
const CHUNK: usize = 256;

/// Where events are published. Clones are the same hub.
#[derive(Clone, Debug)]
pub struct EventHub {
    recent: Arc<Mutex<VecDeque<Arc<EventLine>>>>,
    sender: broadcast::Sender<Arc<EventLine>>,
}

impl Default for EventHub {
    fn default() -> Self {
        Self { recent: Arc::default(), sender: broadcast::channel(LAG).0 }
    }
}

impl EventHub {
    /// Tells every reader, and keeps the last [`KEPT`].
    pub fn publish(&self, lines: impl IntoIterator<Item = EventLine>) {
        let mut recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        for line in lines.into_iter().map(Arc::new) {
            if recent.len() == KEPT {
                recent.pop_front();
            }
            recent.push_back(Arc::clone(&line));
            // Nobody listens: that is no error.
            let _ = self.sender.send(line);
        }
    }

    /// What has happened, and what happens from now on: nothing is in both, and nothing in between
    /// is missing.
    pub fn subscribe(&self, query: EventQuery) -> Subscription {
        let recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        let next = query.follow.then(|| self.sender.subscribe());
        let recent: Vec<_> = recent.iter().filter(|line| query.wants(line)).cloned().collect();
        let skipped = query.limit.map_or(0, |limit| recent.len().saturating_sub(limit));
        Subscription { recent: recent.into_iter().skip(skipped).collect(), next, query }
    }

    /// Readers that follow.
    pub fn readers(&self) -> usize {
        self.sender.receiver_count()
    }
}

/// One reader's events.
#[derive(Debug)]
pub struct Subscription {
    recent: Vec<Arc<EventLine>>,
    next: Option<broadcast::Receiver<Arc<EventLine>>>,
    query: EventQuery,
}

impl Subscription {
    /// Whether nothing has happened yet that is asked for.
    pub fn is_empty(&self) -> bool {
        self.recent.is_empty()
    }

    /// The events as lines of JSON: first what has happened; then, for a reader that follows, what
    /// happens, until `shutdown`.
    pub(super) fn lines(
        self,
        shutdown: CancellationToken,
        place: Option<OwnedSemaphorePermit>,
    ) -> impl Stream<Item = Result<Bytes, Infallible>> {
        let Self { recent, next, query } = self;
        let mut before = Vec::new();
        recent.iter().for_each(|line| write(&mut before, line));
        let first = stream::iter((!before.is_empty()).then(|| Ok(Bytes::from(before))));
        // The reader's place is taken as long as the stream lives.
        let following = next.map(|receiver| Following { receiver, query, shutdown, _place: place });
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
    shutdown: CancellationToken,
    _place: Option<OwnedSemaphorePermit>,
}

impl Following {
    /// The next lines that this reader wants; nothing when there will be no more.
    async fn chunk(&mut self) -> Option<Vec<u8>> {
        let mut chunk = Vec::new();
        while chunk.is_empty() {
            let received = tokio::select! {
                () = self.shutdown.cancelled() => return None,
                received = self.receiver.recv() => received,
            };
            match received {
                Ok(line) => self.take(&mut chunk, &line),
                Err(broadcast::error::RecvError::Lagged(lost)) => self.missed(&mut chunk, lost),
                Err(broadcast::error::RecvError::Closed) => return None,
            }
        }
        for _ in 1..CHUNK {
            match self.receiver.try_recv() {
                Ok(line) => self.take(&mut chunk, &line),
                Err(broadcast::error::TryRecvError::Lagged(lost)) => self.missed(&mut chunk, lost),
                Err(_) => break,
            }
        }
        Some(chunk)
    }

    fn take(&self, chunk: &mut Vec<u8>, line: &EventLine) {
        if self.query.wants(line) {
            write(chunk, line);
        }
    }

    fn missed(&self, chunk: &mut Vec<u8>, lost: u64) {
        write(chunk, &EventLine::Lost(Lost { version: VERSION, lost, lost_by: LostBy::Reader }));
    }
}

fn write(chunk: &mut Vec<u8>, line: &EventLine) {
    serde_json::to_writer(&mut *chunk, line).expect("an event is JSON");
    chunk.push(b'\n');
}
