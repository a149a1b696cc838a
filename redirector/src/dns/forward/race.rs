//! The upstreams that compete to answer one query.

use std::{io, sync::Arc, time::Duration};

use futures_util::stream::{FuturesUnordered, StreamExt};
use tokio::time::{Instant, sleep_until, timeout};

use super::{
    exchange::Exchange,
    upstream::Upstream,
    upstreams::{Candidates, MAX_PARALLEL},
};
use crate::{
    dns::wire::{Header, rcode},
    error::is_local_error,
    net::Transport,
};

/// After this time without a reply the next upstream is queried, too; the slow one may still
/// answer.
pub(super) const NEXT_UPSTREAM_AFTER: Duration = Duration::from_secs(1);

/// One query on its way to several upstreams.
pub(super) struct Race<'a> {
    exchange: &'a Exchange<'a>,
    transport: Transport,
    /// The first SERVFAIL or REFUSED, in case no upstream has a better reply.
    last_resort: Option<Vec<u8>>,
}

impl<'a> Race<'a> {
    pub(super) fn new(exchange: &'a Exchange<'a>, transport: Transport) -> Self {
        Self { exchange, transport, last_resort: None }
    }

    /// The SERVFAIL or REFUSED to return if no upstream had a better reply.
    pub(super) fn into_last_resort(self) -> Option<Vec<u8>> {
        self.last_resort
    }

    /// The first reply other than SERVFAIL and REFUSED; `None` if every upstream failed, or if no
    /// reply is better. While upstreams are silent it keeps querying them and does not return.
    pub(super) async fn run(&mut self, candidates: Candidates) -> Option<Vec<u8>> {
        if candidates.is_empty() {
            return None;
        }
        let all: Vec<_> = candidates.first.iter().chain(&candidates.fallback).cloned().collect();
        let mut retries = all.into_iter().cycle();
        let mut fallback = candidates.fallback.into_iter();
        let mut running: FuturesUnordered<_> = candidates
            .first
            .into_iter()
            .map(|upstream| query_upstream(self.exchange, upstream, self.transport))
            .collect();
        let mut next_at = Instant::now() + NEXT_UPSTREAM_AFTER;
        loop {
            let failed = tokio::select! {
                biased;
                Some((upstream, result)) = running.next() => {
                    match self.accept(&upstream, result) {
                        Some(reply) => return Some(reply),
                        None => true,
                    }
                }
                () = sleep_until(next_at) => false,
            };
            let may_start = running.len() < MAX_PARALLEL;
            if may_start && let Some(upstream) = fallback.next() {
                running.push(query_upstream(self.exchange, upstream, self.transport));
            } else if running.is_empty() || (!failed && self.last_resort.is_some()) {
                return None;
            } else if failed {
                continue;
            } else if may_start && let Some(upstream) = retries.next() {
                running.push(query_upstream(self.exchange, upstream, self.transport));
            }
            next_at = Instant::now() + NEXT_UPSTREAM_AFTER;
        }
    }

    /// Records the result, and returns the reply unless it is SERVFAIL or REFUSED.
    fn accept(
        &mut self,
        upstream: &Upstream,
        result: io::Result<(Vec<u8>, Duration)>,
    ) -> Option<Vec<u8>> {
        match result {
            Ok((reply, latency)) => {
                upstream.record_reply(latency);
                let is_refusal = Header::parse(&reply).is_some_and(|header| {
                    matches!(header.rcode(), rcode::SERVFAIL | rcode::REFUSED)
                });
                if !is_refusal {
                    return Some(reply);
                }
                self.last_resort.get_or_insert(reply);
            }
            Err(error) if is_local_error(&error) => {
                tracing::debug!(upstream = %upstream.address, %error, "failed to forward a query")
            }
            Err(error) => upstream.record_failure(&error.to_string()),
        }
        None
    }
}

/// One exchange and its latency. A slow upstream counts as failed, but its reply is still awaited.
async fn query_upstream(
    exchange: &Exchange<'_>,
    upstream: Arc<Upstream>,
    transport: Transport,
) -> (Arc<Upstream>, io::Result<(Vec<u8>, Duration)>) {
    let began = Instant::now();
    upstream.count_query();
    let run = exchange.run(upstream.address, transport);
    tokio::pin!(run);
    let result = match timeout(NEXT_UPSTREAM_AFTER, &mut run).await {
        Ok(result) => result,
        Err(_) => {
            upstream.record_failure("no reply within a second");
            run.await
        }
    };
    (upstream, result.map(|reply| (reply, began.elapsed())))
}

#[cfg(test)]
mod tests {
    use rustix::io::Errno;

    use super::*;
    use crate::dns::{forward::SocketPool, local::ForwardInfo, stats::Counters};

    #[test]
    fn a_failure_of_this_host_is_not_the_upstreams() {
        let upstream = Upstream::new(([192, 0, 2, 1], 53).into(), std::time::Instant::now());
        let (counters, sockets) = (Counters::default(), SocketPool::default());
        let info = ForwardInfo { question_end: 0, udp_payload: 512 };
        let exchange = Exchange { query: &[], info: &info, counters: &counters, sockets: &sockets };
        let mut race = Race::new(&exchange, Transport::Udp);
        for (error, failures) in [(Errno::MFILE, 0), (Errno::NOBUFS, 0), (Errno::CONNREFUSED, 1)] {
            assert_eq!(race.accept(&upstream, Err(error.into())), None);
            assert_eq!(upstream.health().failures, failures, "{error}");
        }
        assert_eq!(race.into_last_resort(), None);
    }
}
