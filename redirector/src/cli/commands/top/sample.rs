//! What happened between two readings of the counters; pure.

use std::collections::HashMap;

use redirector_common::stats::{LATENCY_BUCKETS, latency_bound_ns};
use serde::Serialize;

use super::served::Served;
use crate::{
    control::api::{
        BackendCounters, BackendState, Counters, RouteView, State, Status, VERSION, VipView,
    },
    route::SourceName,
};

/// One reading of the counters, and when.
#[derive(Clone)]
pub(super) struct Reading {
    pub(super) at: std::time::Instant,
    pub(super) status: Status,
    /// Whether it has all routes.
    pub(super) whole: bool,
}

/// `redirector top -o json`: documented in docs/reference/api.md.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Sample {
    pub(super) version: u32,
    pub(super) at: jiff::Timestamp,
    /// The time between the two readings.
    pub(super) interval_seconds: f64,
    pub(super) state: State,
    pub(super) summary: String,
    /// Whether an agent answers; without one the numbers are from the pinned tables.
    pub(super) agent_answers: bool,
    /// Over all routes.
    pub(super) total: Activity,
    pub(super) traffic: Traffic,
    /// Null for one route: the connections of guests are counted by interface.
    pub(super) served: Option<Served>,
    pub(super) routes: Vec<RouteRow>,
}

/// Connects per second by outcome, and those in progress.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub(super) struct Activity {
    pub(super) started_per_second: f64,
    pub(super) established_per_second: f64,
    /// Refused, timed out, unreachable, given up or never sent.
    pub(super) failed_per_second: f64,
    /// Refused here.
    pub(super) denied_per_second: f64,
    /// Connects that have not ended yet.
    pub(super) connecting: u64,
    /// Established connections.
    pub(super) open: u64,
    /// All that have failed since the counters began.
    pub(super) failed: u64,
}

/// What connections that ended in the interval had carried, and their round trip.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub(super) struct Traffic {
    pub(super) rx_bytes_per_second: f64,
    pub(super) tx_bytes_per_second: f64,
    pub(super) retransmitted_per_second: f64,
    /// The mean of the smoothed round-trip times, in microseconds; null when none ended.
    pub(super) srtt_us: Option<u64>,
}

/// How long connects took to be established, in nanoseconds, estimated from buckets that double.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Latency {
    pub(super) p50_ns: u64,
    pub(super) p90_ns: u64,
    pub(super) p99_ns: u64,
    /// Whether they are those of the interval; else, since there were none in it, those since the
    /// counters began.
    pub(super) recent: bool,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct RouteRow {
    pub(super) source: Option<SourceName>,
    pub(super) vip: VipView,
    pub(super) live: bool,
    #[serde(flatten)]
    pub(super) activity: Activity,
    pub(super) latency: Option<Latency>,
    pub(super) backends: Vec<BackendRow>,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct BackendRow {
    pub(super) address: std::net::IpAddr,
    pub(super) state: BackendState,
    pub(super) failures: u32,
    pub(super) retry_in_ms: Option<u64>,
    #[serde(flatten)]
    pub(super) activity: Activity,
    /// The mean time to established of the interval, in nanoseconds; null when there was none.
    pub(super) mean_ns: Option<u64>,
}

/// Compares two looks. What the first one does not have (a route that is new) counts from zero.
pub(super) fn sample(before: &Reading, now: &Reading) -> Sample {
    let seconds = now.at.saturating_duration_since(before.at).as_secs_f64().max(1e-3);
    let known: HashMap<u32, &RouteView> =
        before.status.routes.iter().map(|route| (route.vip.index, route)).collect();
    let old = |route: &RouteView| {
        known.get(&route.vip.index).copied().filter(|old| old.source == route.source)
    };
    let routes: Vec<_> =
        now.status.routes.iter().map(|route| row(old(route), route, seconds)).collect();
    let sums = |status: &Status| sum(status.routes.iter().filter_map(|route| route.counters));
    // A route that went takes its counts along.
    let (was, is) =
        (sum(now.status.routes.iter().filter_map(|route| old(route)?.counters)), sums(&now.status));
    let total = activity(&was.into(), &is.into(), seconds);
    let datapath = now.status.datapath.as_ref().filter(|_| now.whole);
    Sample {
        version: VERSION,
        at: jiff::Timestamp::now(),
        interval_seconds: seconds,
        state: now.status.state,
        summary: now.status.summary.clone(),
        agent_answers: now.status.agent.is_some(),
        total,
        served: datapath.map(|datapath| Served::new(&datapath.packet, total.open)),
        traffic: traffic(&was, &is, seconds),
        routes,
    }
}

fn row(old: Option<&RouteView>, route: &RouteView, seconds: f64) -> RouteRow {
    let counters = |route: &RouteView| route.counters.unwrap_or_default();
    let (was, is) = (old.map(counters).unwrap_or_default(), counters(route));
    let backends = route.backends.iter().map(|backend| {
        let old =
            old.and_then(|old| old.backends.iter().find(|old| old.address == backend.address));
        let (was, is) = (
            old.and_then(|old| old.counters).unwrap_or_default(),
            backend.counters.unwrap_or_default(),
        );
        let established = is.established.saturating_sub(was.established);
        BackendRow {
            address: backend.address,
            state: backend.state,
            failures: backend.failures,
            retry_in_ms: backend.retry_in_ms,
            activity: activity(&was.into(), &is.into(), seconds),
            mean_ns: is.connect_ns.saturating_sub(was.connect_ns).checked_div(established),
        }
    });
    RouteRow {
        source: route.source.clone(),
        vip: route.vip,
        live: route.live,
        activity: activity(&was.into(), &is.into(), seconds),
        latency: latency(&was.latency, &is.latency),
        backends: backends.collect(),
    }
}

/// The counters that routes and backends have in common.
#[derive(Clone, Copy, Default)]
struct Ends {
    started: u64,
    established: u64,
    closed: u64,
    failed: u64,
    denied: u64,
}

impl From<Counters> for Ends {
    fn from(c: Counters) -> Self {
        let failed = c.refused + c.timed_out + c.unreachable + c.aborted + c.unsent;
        Self {
            started: c.started,
            established: c.established,
            closed: c.closed,
            failed,
            denied: c.denied,
        }
    }
}

impl From<BackendCounters> for Ends {
    fn from(c: BackendCounters) -> Self {
        let failed = c.refused + c.timed_out + c.unreachable + c.aborted + c.unsent;
        Self { started: c.started, established: c.established, closed: c.closed, failed, denied: 0 }
    }
}

fn activity(was: &Ends, is: &Ends, seconds: f64) -> Activity {
    let rate = |was, is| rate(was, is, seconds);
    Activity {
        started_per_second: rate(was.started, is.started),
        established_per_second: rate(was.established, is.established),
        failed_per_second: rate(was.failed, is.failed),
        denied_per_second: rate(was.denied, is.denied),
        connecting: is.started.saturating_sub(is.established + is.failed),
        open: is.established.saturating_sub(is.closed),
        failed: is.failed,
    }
}

fn traffic(was: &Counters, is: &Counters, seconds: f64) -> Traffic {
    Traffic {
        rx_bytes_per_second: rate(was.rx_bytes, is.rx_bytes, seconds),
        tx_bytes_per_second: rate(was.tx_bytes, is.tx_bytes, seconds),
        retransmitted_per_second: rate(was.retransmitted, is.retransmitted, seconds),
        srtt_us: is
            .srtt_us
            .saturating_sub(was.srtt_us)
            .checked_div(is.closed.saturating_sub(was.closed)),
    }
}

/// Counters that decreased (a route was removed and added again) have no rate.
fn rate(was: u64, is: u64, seconds: f64) -> f64 {
    is.saturating_sub(was) as f64 / seconds
}

fn sum(counters: impl Iterator<Item = Counters>) -> Counters {
    counters.fold(Counters::default(), |sum, c| Counters {
        started: sum.started + c.started,
        established: sum.established + c.established,
        refused: sum.refused + c.refused,
        timed_out: sum.timed_out + c.timed_out,
        unreachable: sum.unreachable + c.unreachable,
        aborted: sum.aborted + c.aborted,
        unsent: sum.unsent + c.unsent,
        closed: sum.closed + c.closed,
        denied: sum.denied + c.denied,
        rx_bytes: sum.rx_bytes + c.rx_bytes,
        tx_bytes: sum.tx_bytes + c.tx_bytes,
        retransmitted: sum.retransmitted + c.retransmitted,
        srtt_us: sum.srtt_us + c.srtt_us,
        ..sum
    })
}

fn latency(was: &[u64; LATENCY_BUCKETS], is: &[u64; LATENCY_BUCKETS]) -> Option<Latency> {
    let recent: [u64; LATENCY_BUCKETS] =
        std::array::from_fn(|bucket| is[bucket].saturating_sub(was[bucket]));
    let (buckets, recent) =
        if recent.iter().any(|&count| count > 0) { (&recent, true) } else { (is, false) };
    Some(Latency {
        p50_ns: quantile(buckets, 0.5)?,
        p90_ns: quantile(buckets, 0.9)?,
        p99_ns: quantile(buckets, 0.99)?,
        recent,
    })
}

/// Where `share` of all that was counted lies, taking a bucket's counts for evenly spread. What
/// lies in the last bucket, which has no upper bound, is reported as its lower bound.
fn quantile(buckets: &[u64; LATENCY_BUCKETS], share: f64) -> Option<u64> {
    let all: u64 = buckets.iter().sum();
    let mut left = share * all as f64;
    for (bucket, &count) in buckets.iter().enumerate().filter(|(_, count)| **count > 0) {
        let from = bucket.checked_sub(1).and_then(latency_bound_ns).unwrap_or_default();
        let Some(to) = latency_bound_ns(bucket) else { return Some(from) };
        if left <= count as f64 {
            return Some(from + ((to - from) as f64 * left / count as f64) as u64);
        }
        left -= count as f64;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_lie_where_the_counts_are() {
        let mut buckets = [0; LATENCY_BUCKETS];
        assert_eq!(latency(&buckets, &buckets), None);
        buckets[0] = 100;
        assert_eq!(quantile(&buckets, 0.5), Some(1 << 16));
        // 90 below 131 µs, 10 from 1 to 2 ms.
        (buckets[0], buckets[4]) = (90, 10);
        assert_eq!(quantile(&buckets, 0.9), Some(1 << 17));
        let p99 = quantile(&buckets, 0.99).unwrap();
        assert!((1 << 20..1 << 21).contains(&p99), "{p99}");
        buckets[LATENCY_BUCKETS - 1] = 1000;
        assert_eq!(
            quantile(&buckets, 0.99),
            latency_bound_ns(LATENCY_BUCKETS - 2),
            "more than a second"
        );
    }

    #[test]
    fn an_idle_interval_shows_the_earlier_latency() {
        let mut buckets = [0; LATENCY_BUCKETS];
        buckets[3] = 5;
        assert!(latency(&[0; LATENCY_BUCKETS], &buckets).unwrap().recent);
        assert!(!latency(&buckets, &buckets).unwrap().recent);
    }

    #[test]
    fn rates_are_over_the_interval_and_never_negative() {
        let was = Ends { started: 100, established: 90, closed: 80, failed: 10, denied: 0 };
        let is = Ends { started: 140, established: 110, closed: 100, failed: 20, denied: 4 };
        let activity = activity(&was, &is, 2.0);
        let rates = (
            activity.started_per_second,
            activity.established_per_second,
            activity.failed_per_second,
            activity.denied_per_second,
        );
        assert_eq!(rates, (20.0, 10.0, 5.0, 2.0));
        assert_eq!((activity.connecting, activity.open), (10, 10));
        assert_eq!(rate(5, 3, 1.0), 0.0);
    }
}
