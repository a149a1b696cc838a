//! The connections of one listener. A new client is always preferred to one that has not completed
//! its request, so holding connections open keeps nobody out.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use tokio::{sync::Notify, time};
use tokio_util::sync::CancellationToken;

/// Time for a client of this host to send its request, from when its connection is first read: on a
/// busy machine that is later than its acceptance. A connection is not replaced before.
const GRACE: Duration = Duration::from_millis(5);

/// The connections of one listener, by peer.
#[derive(Debug)]
pub(crate) struct Connections<P> {
    total: usize,
    per_peer: usize,
    open: Mutex<Open<P>>,
    closed: Notify,
}

#[derive(Debug)]
struct Open<P> {
    accepted: u64,
    /// By number, hence by age.
    by_number: BTreeMap<u64, Entry<P>>,
}

#[derive(Debug)]
struct Entry<P> {
    peer: P,
    /// When it was first read.
    begun_at: Option<Instant>,
    is_waiting: bool,
    evicted: CancellationToken,
}

/// One connection, counted until this is dropped.
#[derive(Debug)]
pub(crate) struct Connection<P> {
    number: u64,
    evicted: CancellationToken,
    connections: Arc<Connections<P>>,
}

impl<P: Copy + Eq> Connections<P> {
    /// At most `total` connections, of which one peer holds at most `per_peer`.
    pub(crate) fn new(total: usize, per_peer: usize) -> Arc<Self> {
        let open = Mutex::new(Open { accepted: 0, by_number: BTreeMap::new() });
        Arc::new(Self { total, per_peer, open, closed: Notify::new() })
    }

    /// Counts a new connection. At a limit it replaces the oldest one that waits for its request:
    /// of the same peer, or of the peer that has most. `None` if all of them serve requests.
    pub(crate) async fn admit(self: &Arc<Self>, peer: P) -> Option<Connection<P>> {
        loop {
            match self.try_admit(peer) {
                Ok(connection) => return Some(connection),
                Err(Full::Serving) => return None,
                Err(Full::Waiting) => time::sleep(GRACE / 5).await,
            }
        }
    }

    /// As [`Connections::admit`], and waits while all connections serve requests.
    pub(crate) async fn wait(self: &Arc<Self>, peer: P) -> Connection<P> {
        loop {
            let closed = self.closed.notified();
            if let Some(connection) = self.admit(peer).await {
                return connection;
            }
            closed.await;
        }
    }

    /// Closes the oldest connection that waits for its request, to free its descriptor.
    pub(crate) fn evict(&self) {
        let _ = self.open.lock().evict_oldest(None);
    }

    fn try_admit(self: &Arc<Self>, peer: P) -> Result<Connection<P>, Full> {
        let mut open = self.open.lock();
        if open.count_of(peer) >= self.per_peer {
            open.evict_oldest(Some(peer))?;
        } else if open.by_number.len() >= self.total {
            open.evict_oldest(None)?;
        }
        let (number, evicted) = (open.accepted, CancellationToken::new());
        open.accepted += 1;
        let evict = evicted.clone();
        let entry = Entry { peer, begun_at: None, is_waiting: true, evicted: evict };
        open.by_number.insert(number, entry);
        Ok(Connection { number, evicted, connections: Arc::clone(self) })
    }
}

/// Why a connection cannot be admitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Full {
    /// All others serve requests.
    Serving,
    /// Some wait for their request, within [`GRACE`].
    Waiting,
}

impl<P: Copy + Eq> Open<P> {
    fn count_of(&self, peer: P) -> usize {
        self.by_number.values().filter(|entry| entry.peer == peer).count()
    }

    /// Evicts of `peer`, or of the peer with the most connections; of the older one of two equals.
    fn evict_oldest(&mut self, peer: Option<P>) -> Result<(), Full> {
        let mut victim: Option<(usize, u64)> = None;
        let mut full = Full::Serving;
        for (number, entry) in self.by_number.iter().filter(|(_, entry)| entry.is_waiting) {
            if peer.is_some_and(|peer| peer != entry.peer) {
                continue;
            }
            full = Full::Waiting;
            let count = if peer.is_some() { 0 } else { self.count_of(entry.peer) };
            let has_waited = entry.begun_at.is_some_and(|begun| begun.elapsed() >= GRACE);
            if has_waited && victim.is_none_or(|(most, _)| count > most) {
                victim = Some((count, *number));
            }
        }
        let (_, number) = victim.ok_or(full)?;
        if let Some(entry) = self.by_number.remove(&number) {
            entry.evicted.cancel();
        }
        Ok(())
    }
}

impl<P> Connection<P> {
    /// Marks that its client is read from now on.
    pub(super) fn on_begun(&self) {
        if let Some(entry) = self.connections.open.lock().by_number.get_mut(&self.number) {
            entry.begun_at = Some(Instant::now());
        }
    }

    /// Marks that the request has arrived: from now on the connection is not evicted.
    pub(super) fn on_request(&self) {
        if let Some(entry) = self.connections.open.lock().by_number.get_mut(&self.number) {
            entry.is_waiting = false;
        }
    }

    /// Completes when the connection must close for another one.
    pub(super) async fn evicted(&self) {
        self.evicted.cancelled().await;
    }
}

impl<P> Drop for Connection<P> {
    fn drop(&mut self) {
        self.connections.open.lock().by_number.remove(&self.number);
        self.connections.closed.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn evicted(connections: &[Option<Connection<u8>>]) -> Vec<bool> {
        let of = |connection: &Option<Connection<u8>>| {
            connection.as_ref().is_some_and(|connection| connection.evicted.is_cancelled())
        };
        connections.iter().map(of).collect()
    }

    async fn begun(connections: &Arc<Connections<u8>>, peer: u8) -> Option<Connection<u8>> {
        let connection = connections.admit(peer).await;
        connection.iter().for_each(Connection::on_begun);
        connection
    }

    #[tokio::test]
    async fn a_client_that_is_not_read_yet_is_not_replaced() {
        let connections = Connections::new(1, 1);
        let first = connections.admit(1).await;
        let admitted = time::timeout(100 * GRACE, connections.admit(2)).await;
        assert!(admitted.is_err(), "the first one had no chance");
        first.iter().for_each(Connection::on_request);
        assert!(connections.admit(2).await.is_none(), "it serves its request");
    }

    #[tokio::test]
    async fn a_new_client_replaces_the_oldest_waiting_one() {
        let connections = Connections::new(4, 3);
        let mut held = Vec::new();
        for peer in [1, 2, 2, 2, 2] {
            held.push(begun(&connections, peer).await);
        }
        assert_eq!(evicted(&held), [false, true, false, false, false], "its own oldest");
        held.push(begun(&connections, 3).await);
        assert_eq!(evicted(&held)[2..], [true, false, false, false], "of the peer with most");
        for connection in held.iter().flatten() {
            connection.on_request();
        }
        assert!(connections.admit(4).await.is_none(), "all serve requests");
        held.clear();
        assert!(connections.open.lock().by_number.is_empty());
    }
}
