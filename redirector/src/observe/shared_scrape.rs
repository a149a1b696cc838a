//! One page for simultaneous scrapes, so that hostile scrapers cost neither memory nor the event
//! loop's time.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use tokio::sync::Mutex;

use super::metrics::Metrics;

/// A page is reused for so many times the time that it took: scrapes use a tenth of a CPU at most.
const REUSE: u32 = 10;

/// Scrapes one after another, and hands out the last page while it is recent.
#[derive(Clone, Debug)]
pub(super) struct SharedScrape {
    metrics: Metrics,
    last: Arc<Mutex<Option<Page>>>,
}

#[derive(Debug)]
struct Page {
    text: Bytes,
    reuse_until: Instant,
}

impl SharedScrape {
    pub(super) fn new(metrics: Metrics) -> Self {
        Self { metrics, last: Arc::default() }
    }

    /// The metrics as text. Every caller during a scrape waits for its page.
    pub(super) async fn page(&self) -> Bytes {
        let mut last = self.last.lock().await;
        let began = Instant::now();
        if let Some(page) = last.as_ref().filter(|page| began < page.reuse_until) {
            return page.text.clone();
        }
        let text = Bytes::from(self.metrics.scrape().await);
        let ended = Instant::now();
        let took = ended.duration_since(began).min(Duration::from_millis(500));
        *last = Some(Page { text: text.clone(), reuse_until: ended + took * REUSE });
        text
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

    use super::*;
    use crate::observe::Snapshot;

    #[tokio::test]
    async fn simultaneous_scrapes_share_a_page() {
        let (requests, mut received) =
            tokio::sync::mpsc::channel::<tokio::sync::oneshot::Sender<Snapshot>>(1);
        let asked = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&asked);
        tokio::spawn(async move {
            while let Some(reply) = received.recv().await {
                counter.fetch_add(1, Relaxed);
                tokio::time::sleep(Duration::from_millis(20)).await;
                let _ = reply.send(Snapshot::default());
            }
        });
        let scrape = SharedScrape::new(Metrics::new(requests));
        let pages = futures_util::future::join_all((0..100).map(|_| scrape.page())).await;
        assert_eq!(asked.load(Relaxed), 1, "the event loop was asked once");
        let first = pages.first().expect("a page");
        assert!(pages.iter().all(|page| page.as_ptr() == first.as_ptr()), "one copy in memory");
        for _ in 0..100 {
            tokio::time::sleep(Duration::from_millis(100)).await;
            scrape.page().await;
            if asked.load(Relaxed) == 2 {
                return;
            }
        }
        panic!("a later scrape has new numbers");
    }
}
