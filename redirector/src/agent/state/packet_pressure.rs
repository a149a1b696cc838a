//! Whether the packet datapath refused flows lately. Its counters only grow, and an operator asks
//! what is wrong now.

use std::time::{Duration, Instant};

use crate::datapath::PacketStats;

/// How long a refusal counts as recent.
const RECENT: Duration = Duration::from_secs(60);

/// What the packet datapath lacked within the last minute.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Pressure {
    /// Flows were refused since their table was full.
    pub(crate) flows_full: bool,
    /// Flows were refused since their interface had too many.
    pub(crate) interface_over_limit: bool,
}

/// The counters at the last look, and when each last grew.
#[derive(Debug, Default)]
pub(crate) struct PacketPressure {
    last: Option<PacketStats>,
    flows_full_at: Option<Instant>,
    over_limit_at: Option<Instant>,
}

impl PacketPressure {
    /// Looks at the counters. What grew before the first look is not recent.
    pub(crate) fn update(&mut self, stats: PacketStats, now: Instant) {
        let last = self.last.replace(stats).unwrap_or(stats);
        if stats.flows_full > last.flows_full {
            self.flows_full_at = Some(now);
        }
        if stats.interface_over_limit > last.interface_over_limit {
            self.over_limit_at = Some(now);
        }
    }

    /// What was lacking within the last minute.
    pub(crate) fn at(&self, now: Instant) -> Pressure {
        let is_recent = |at: Option<Instant>| at.is_some_and(|at| now.duration_since(at) < RECENT);
        Pressure {
            flows_full: is_recent(self.flows_full_at),
            interface_over_limit: is_recent(self.over_limit_at),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_is_reported_for_a_minute() {
        let (mut pressure, start) = (PacketPressure::default(), Instant::now());
        let old = PacketStats { flows_full: 5, ..PacketStats::default() };
        pressure.update(old, start);
        assert_eq!(pressure.at(start), Pressure::default(), "before this agent");
        pressure.update(PacketStats { flows_full: 6, ..old }, start);
        assert!(pressure.at(start).flows_full && !pressure.at(start).interface_over_limit);
        assert_eq!(pressure.at(start + RECENT), Pressure::default());
        pressure.update(PacketStats { interface_over_limit: 1, ..old }, start);
        assert!(pressure.at(start).interface_over_limit);
    }
}
