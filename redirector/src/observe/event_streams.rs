//! Live events for the status page: a bounded number of streams, each with bounded memory and time.

use std::{
    collections::HashMap,
    convert::Infallible,
    net::IpAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use futures_util::{Stream, StreamExt, stream};
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

use crate::{
    control::{EventHub, api::EventQuery},
    http::Lifetime,
};

/// Past events at the beginning of a stream.
const PAST_EVENTS: usize = 100;
/// A stream ends after this long; the browser opens it again.
const LONGEST: Duration = Duration::from_secs(600);
/// A client that takes nothing for this long is dropped.
const STALLED: Duration = Duration::from_secs(40);
/// An idle stream has a comment this often, so that a client that is gone is noticed.
const IDLE: Duration = Duration::from_secs(15);
/// The first bytes: how long a browser waits before it opens the stream again.
const PREFACE: &[u8] = b"retry: 2000\n\n";

/// The streams of one listener, by peer.
#[derive(Clone, Debug)]
pub(super) struct EventStreams {
    hub: EventHub,
    total: usize,
    per_peer: usize,
    open: Arc<Mutex<HashMap<IpAddr, usize>>>,
    shutdown: CancellationToken,
}

/// A place among the streams, free again when this is dropped.
#[derive(Debug)]
struct Place {
    peer: IpAddr,
    open: Arc<Mutex<HashMap<IpAddr, usize>>>,
}

impl EventStreams {
    /// At most `total` streams, of which one peer holds at most half.
    pub(super) fn new(hub: EventHub, total: usize, shutdown: CancellationToken) -> Self {
        Self { hub, total, per_peer: total.div_ceil(2), open: Arc::default(), shutdown }
    }

    /// A stream of server-sent events: past ones, then new ones. `None` at a limit. A reader that
    /// lags behind loses events, and receives their number.
    pub(super) fn open(
        &self,
        peer: IpAddr,
        lifetime: Lifetime,
    ) -> Option<impl Stream<Item = Result<Bytes, Infallible>> + use<>> {
        let place = self.place(peer)?;
        let query = EventQuery { follow: true, limit: Some(PAST_EVENTS), ..EventQuery::default() };
        let events = Box::pin(self.hub.subscribe(query).server_sent(self.shutdown.clone()));
        let ends_at = Instant::now() + LONGEST;
        let following = stream::unfold((events, place), move |(mut events, place)| {
            let now = Instant::now();
            // Asked for the next piece: the client has taken those before.
            lifetime.extend_to(now + STALLED);
            let left = ends_at.saturating_duration_since(now);
            async move {
                let piece = match tokio::time::timeout(IDLE.min(left), events.next()).await {
                    Ok(piece) => piece?,
                    Err(_) if left < IDLE => return None,
                    Err(_) => Ok(Bytes::from_static(b":\n\n")),
                };
                Some((piece, (events, place)))
            }
        });
        Some(stream::iter([Ok(Bytes::from_static(PREFACE))]).chain(following))
    }

    fn place(&self, peer: IpAddr) -> Option<Place> {
        let mut open = self.open.lock();
        let of_peer = open.get(&peer).copied().unwrap_or_default();
        if open.values().sum::<usize>() >= self.total || of_peer >= self.per_peer {
            return None;
        }
        open.insert(peer, of_peer + 1);
        Some(Place { peer, open: Arc::clone(&self.open) })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut open = self.open.lock();
        match open.get_mut(&self.peer) {
            Some(number) if *number > 1 => *number -= 1,
            _ => drop(open.remove(&self.peer)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_limited_by_peer_and_in_all_and_come_back() {
        let streams = EventStreams::new(EventHub::default(), 5, CancellationToken::new());
        let peers = [[127, 0, 0, 1], [127, 0, 0, 2]].map(IpAddr::from);
        let mut held: Vec<_> = (0..10).filter_map(|_| streams.place(peers[0])).collect();
        assert_eq!(held.len(), 3, "half of them");
        held.extend((0..10).filter_map(|_| streams.place(peers[1])));
        assert_eq!(held.len(), 5, "all of them");
        held.clear();
        assert!(streams.open.lock().is_empty(), "nothing remains of a peer");
    }
}
