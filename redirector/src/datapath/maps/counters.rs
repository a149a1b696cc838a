//! The counters of the programs: outcomes of connects, and their durations. The agent adds the
//! flows that it removes.

use std::net::IpAddr;

use aya::maps::{Array, MapData};
use redirector_common::{
    backend::BackendId,
    names,
    stats::{BackendStats, BackendTimes, RouteCounters, RouteStats, RouteTimes},
};

use crate::datapath::{
    error::DatapathError,
    load::object::Object,
    maps::{
        arrays::{read, read_each, write},
        health_words::HealthWords,
    },
    pins::layout::{Pins, open_pin},
    status::BackendStatus,
};

/// The maps: three by route index, two by backend ID.
pub(crate) struct Counters {
    routes: Array<MapData, RouteStats>,
    route_times: Array<MapData, RouteTimes>,
    /// Written by the agent alone: the programs add to their counters at any time.
    expired: Array<MapData, u64>,
    /// Also written by the agent: the counters of a reused ID are reset.
    pub(crate) backends: Array<MapData, BackendStats>,
    pub(crate) backend_times: Array<MapData, BackendTimes>,
}

impl Counters {
    /// From maps that a test has created.
    #[cfg(test)]
    pub(crate) fn new(
        (routes, route_times, expired): (
            Array<MapData, RouteStats>,
            Array<MapData, RouteTimes>,
            Array<MapData, u64>,
        ),
        (backends, backend_times): (Array<MapData, BackendStats>, Array<MapData, BackendTimes>),
    ) -> Self {
        Self { routes, route_times, expired, backends, backend_times }
    }

    /// Takes the maps out of a loaded object.
    pub(crate) fn from_object(object: &mut Object) -> Result<Self, DatapathError> {
        Ok(Self {
            routes: object.array(names::ROUTE_STATS)?,
            route_times: object.array(names::ROUTE_TIMES)?,
            expired: object.array(names::EXPIRED_FLOWS)?,
            backends: object.array(names::BACKEND_STATS)?,
            backend_times: object.array(names::BACKEND_TIMES)?,
        })
    }

    /// Opens the pinned maps.
    pub(crate) fn open(pins: &Pins) -> Result<Self, DatapathError> {
        Ok(Self {
            routes: open_pin(pins, names::ROUTE_STATS)?,
            route_times: open_pin(pins, names::ROUTE_TIMES)?,
            expired: open_pin(pins, names::EXPIRED_FLOWS)?,
            backends: open_pin(pins, names::BACKEND_STATS)?,
            backend_times: open_pin(pins, names::BACKEND_TIMES)?,
        })
    }

    /// The counters of the route at `index`.
    pub(crate) fn route(&self, index: u32) -> Result<RouteCounters, DatapathError> {
        let stats = read(&self.routes, names::ROUTE_STATS, index)?;
        let expired = read(&self.expired, names::EXPIRED_FLOWS, index)?;
        let times = read(&self.route_times, names::ROUTE_TIMES, index)?;
        Ok((with_expired(stats, expired), times).into())
    }

    /// Counts flows of the route at `index` that have expired.
    pub(crate) fn count_expired(&mut self, index: u32, flows: u64) -> Result<(), DatapathError> {
        let before = read(&self.expired, names::EXPIRED_FLOWS, index)?;
        write(&mut self.expired, names::EXPIRED_FLOWS, index, before + flows)
    }

    /// The counters of many routes, whose indices ascend.
    pub(crate) fn routes(&self, indices: &[u32]) -> Result<Vec<RouteCounters>, DatapathError> {
        let mut stats = Vec::with_capacity(indices.len());
        read_each(&self.routes, names::ROUTE_STATS, indices, |_, read| stats.push(read))?;
        read_each(&self.expired, names::EXPIRED_FLOWS, indices, |at, expired| {
            stats[at] = with_expired(stats[at], expired);
        })?;
        let mut counters = Vec::with_capacity(indices.len());
        read_each(&self.route_times, names::ROUTE_TIMES, indices, |at, times| {
            counters.push((stats[at], times).into())
        })?;
        Ok(counters)
    }

    /// The counters of many backends, whose IDs ascend.
    pub(crate) fn each_backend(
        &self,
        numbers: &[u32],
        mut each: impl FnMut(usize, BackendStats, BackendTimes),
    ) -> Result<(), DatapathError> {
        let mut stats = Vec::with_capacity(numbers.len());
        read_each(&self.backends, names::BACKEND_STATS, numbers, |_, read| stats.push(read))?;
        read_each(&self.backend_times, names::BACKEND_TIMES, numbers, |at, times| {
            each(at, stats[at], times)
        })
    }

    /// The status of a backend, with its health at `now_ns` of the monotonic clock.
    pub(crate) fn backend(
        &self,
        (address, id): (IpAddr, BackendId),
        health: HealthWords,
        now_ns: u64,
    ) -> Result<BackendStatus, DatapathError> {
        let stats = read(&self.backends, names::BACKEND_STATS, id.0)?;
        let times = read(&self.backend_times, names::BACKEND_TIMES, id.0)?;
        Ok(BackendStatus::new(address, (health, now_ns), (stats, times)))
    }

    /// When a backend accepted its latest connect, in nanoseconds of the monotonic clock.
    pub(crate) fn succeeded_ns(&self, id: BackendId) -> Result<u64, DatapathError> {
        read(&self.backends, names::BACKEND_STATS, id.0).map(|stats| stats.succeeded_ns)
    }
}

/// An expired flow is closed: nobody saw its end.
fn with_expired(stats: RouteStats, expired: u64) -> RouteStats {
    RouteStats { closed: stats.closed + expired, ..stats }
}
