//! Live events for the status page: a bounded number of streams, each with bounded memory and time.

use std::{
    convert::Infallible,
    net::IpAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use futures_util::{Stream, StreamExt, stream};
use tokio_util::sync::CancellationToken;

use crate::{
    control::{EventHub, api::EventQuery},
    http::Lifetime,
    net::ClientShares,
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

/// The streams of one listener.
#[derive(Clone, Debug)]
pub(super) struct EventStreams {
    hub: EventHub,
    shares: Arc<ClientShares>,
    shutdown: CancellationToken,
}

impl EventStreams {
    /// At most `total` streams, of which one peer holds at most half.
    pub(super) fn new(hub: EventHub, total: usize, shutdown: CancellationToken) -> Self {
        Self { hub, shares: ClientShares::new(total), shutdown }
    }

    /// A stream of server-sent events: past ones, then new ones. `None` at a limit. A reader that
    /// lags behind loses events, and receives their number.
    pub(super) fn open(
        &self,
        peer: IpAddr,
        lifetime: Lifetime,
    ) -> Option<impl Stream<Item = Result<Bytes, Infallible>> + use<>> {
        let share = self.shares.try_acquire(peer).ok()?;
        let query = EventQuery { follow: true, limit: Some(PAST_EVENTS), ..EventQuery::default() };
        let events = Box::pin(self.hub.subscribe(query).server_sent(self.shutdown.clone()));
        let ends_at = Instant::now() + LONGEST;
        let following = stream::unfold((events, share), move |(mut events, share)| {
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
                Some((piece, (events, share)))
            }
        });
        Some(stream::iter([Ok(Bytes::from_static(PREFACE))]).chain(following))
    }
}
