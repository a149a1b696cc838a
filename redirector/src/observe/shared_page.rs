//! One page for simultaneous requests, so that hostile clients cost neither memory nor the event
//! loop's time.

use std::{
    fmt,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use tokio::sync::Mutex;

/// A page is reused for so many times the time that it took: it uses a tenth of a CPU at most.
const REUSE: u32 = 10;

type Render = dyn Fn() -> BoxFuture<'static, String> + Send + Sync;

/// Renders one page after another, and hands out the last one while it is recent.
#[derive(Clone)]
pub(super) struct SharedPage {
    render: Arc<Render>,
    last: Arc<Mutex<Option<Page>>>,
}

impl fmt::Debug for SharedPage {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("SharedPage").finish_non_exhaustive()
    }
}

struct Page {
    text: Bytes,
    reuse_until: Instant,
}

impl SharedPage {
    pub(super) fn new<F>(render: impl Fn() -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = String> + Send + 'static,
    {
        Self { render: Arc::new(move || Box::pin(render())), last: Arc::default() }
    }

    /// The page's text. Every caller while it is rendered waits for it.
    pub(super) async fn text(&self) -> Bytes {
        let mut last = self.last.lock().await;
        let began = Instant::now();
        if let Some(page) = last.as_ref().filter(|page| began < page.reuse_until) {
            return page.text.clone();
        }
        let text = Bytes::from((self.render)().await);
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
    use crate::observe::{Metrics, Snapshot};

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
        let metrics = Metrics::new(requests);
        let scrape = SharedPage::new(move || {
            let metrics = metrics.clone();
            async move { metrics.scrape().await }
        });
        let pages = futures_util::future::join_all((0..100).map(|_| scrape.text())).await;
        assert_eq!(asked.load(Relaxed), 1, "the event loop was asked once");
        let first = pages.first().expect("a page");
        assert!(pages.iter().all(|page| page.as_ptr() == first.as_ptr()), "one copy in memory");
        for _ in 0..100 {
            tokio::time::sleep(Duration::from_millis(100)).await;
            scrape.text().await;
            if asked.load(Relaxed) == 2 {
                return;
            }
        }
        panic!("a later scrape has new numbers");
    }
}
