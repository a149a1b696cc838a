//! What was true when: the faults as they happened, and the addresses that were published.
//!
//! Times are microseconds of `CLOCK_MONOTONIC`, as in [`testbed::clients::Operation`].

use std::collections::BTreeSet;

use crate::fault::Condition;

/// How long a running agent may take to use changed addresses: the records' TTL of two seconds, a
/// look-up, and a busy machine.
const FOLLOW_US: u64 = 8_000_000;
/// The same after an outage: it tries again less and less often.
const FOLLOW_AFTER_OUTAGE_US: u64 = 20_000_000;

/// An address that comes back within this time shows that the name returns its addresses in turn:
/// then all of this time are used, for this long. It is documented as 60 s for a TTL of 2 s.
const TURN_US: u64 = 60_000_000 + FOLLOW_AFTER_OUTAGE_US;

/// What was replaced longer ago than this is not valid: no outage lasts that long.
const HORIZON_US: u64 = 300_000_000;

/// A fault that has begun.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Interval {
    /// When it began.
    pub(crate) from_us: u64,
    /// When its effect ended; `None` while it lasts.
    pub(crate) to_us: Option<u64>,
    /// What it may harm.
    pub(crate) condition: Option<Condition>,
    /// For a person.
    pub(crate) text: String,
}

impl Interval {
    /// Whether it overlaps a time, its end moved by `after_us`.
    pub(crate) fn overlaps(&self, from_us: u64, to_us: u64, after_us: u64) -> bool {
        self.from_us <= to_us && self.to_us.is_none_or(|end| end + after_us >= from_us)
    }
}

/// The faults and the publications of a soak so far.
#[derive(Clone, Debug, Default)]
pub(crate) struct Timeline {
    intervals: Vec<Interval>,
    published: Vec<(u64, BTreeSet<usize>)>,
}

impl Timeline {
    /// Notes that a fault begins; returns its number for [`Timeline::end`].
    pub(crate) fn begin(
        &mut self,
        at_us: u64,
        condition: Option<Condition>,
        text: String,
    ) -> usize {
        self.intervals.push(Interval { from_us: at_us, to_us: None, condition, text });
        self.intervals.len() - 1
    }

    /// Notes that the effect of a fault has ended.
    pub(crate) fn end(&mut self, number: usize, at_us: u64) {
        if let Some(interval) = self.intervals.get_mut(number) {
            interval.to_us = Some(at_us);
        }
    }

    /// Notes that nothing does such harm any more.
    pub(crate) fn end_all(&mut self, condition: Condition, at_us: u64) {
        let lasting = self.intervals.iter_mut().filter(|interval| interval.to_us.is_none());
        for interval in lasting.filter(|interval| interval.condition == Some(condition)) {
            interval.to_us = Some(at_us);
        }
    }

    /// Whether the agent does not answer now.
    pub(crate) fn is_away(&self) -> bool {
        self.with(Condition::AgentAway).any(|interval| interval.to_us.is_none())
    }

    /// Whether nothing is wrong now.
    pub(crate) fn is_calm(&self) -> bool {
        self.intervals.iter().all(|interval| interval.to_us.is_some())
    }

    /// Notes that the destination's name leads to these load balancers from now on.
    pub(crate) fn publish(&mut self, at_us: u64, backends: impl IntoIterator<Item = usize>) {
        self.published.push((at_us, backends.into_iter().collect()));
    }

    /// The faults, in the order in which they began.
    pub(crate) fn intervals(&self) -> &[Interval] {
        &self.intervals
    }

    /// Whether such a fault overlaps a time, its end moved by `after_us`.
    pub(crate) fn suffers(&self, condition: Condition, span_us: (u64, u64), after_us: u64) -> bool {
        self.with(condition).any(|interval| interval.overlaps(span_us.0, span_us.1, after_us))
    }

    /// The faults that may harm this.
    pub(crate) fn with(&self, condition: Condition) -> impl Iterator<Item = &Interval> {
        self.intervals.iter().filter(move |interval| interval.condition == Some(condition))
    }

    /// The load balancers that a connect of this time may reach: those published then, and those
    /// published before until the agent must have noticed.
    pub(crate) fn valid_backends(&self, span_us: (u64, u64)) -> BTreeSet<usize> {
        let turn = if self.is_in_turn(span_us.0) { TURN_US } else { 0 };
        self.in_force(span_us, turn).flatten().copied().collect()
    }

    /// The load balancers that an agent knows throughout this time, whether or not it has noticed
    /// what was published last.
    pub(crate) fn known_backends(&self, span_us: (u64, u64)) -> BTreeSet<usize> {
        let sets = self.in_force(span_us, 0).cloned();
        sets.reduce(|known, set| &known & &set).unwrap_or_default()
    }

    /// What an agent may use at this time: the sets published then, and those published before
    /// until it must have noticed, at least for `turn_us`.
    fn in_force(
        &self,
        span_us: (u64, u64),
        turn_us: u64,
    ) -> impl Iterator<Item = &BTreeSet<usize>> {
        let published = self.published.iter().enumerate();
        published.filter_map(move |(at, (from_us, backends))| {
            let replaced = self.published.get(at + 1).map(|(next_us, _)| *next_us);
            if replaced.is_some_and(|replaced| replaced + HORIZON_US < span_us.0) {
                return None;
            }
            let until = replaced
                .map_or(u64::MAX, |replaced| self.noticed_by(replaced).max(replaced + turn_us));
            (*from_us <= span_us.1 && span_us.0 <= until).then_some(backends)
        })
    }

    /// Whether an address has come back recently.
    fn is_in_turn(&self, at_us: u64) -> bool {
        self.published.windows(2).enumerate().any(|(last, pair)| {
            let ((left_us, before), (back_us, after)) = (&pair[0], &pair[1]);
            let recent = *back_us <= at_us && at_us <= back_us + TURN_US;
            let is_back =
                |set: &BTreeSet<usize>| after.difference(before).any(|at| set.contains(at));
            recent
                && back_us - left_us <= TURN_US
                && self.published[..last].iter().any(|(_, set)| is_back(set))
        })
    }

    /// When a running agent must use what was published at this time.
    fn noticed_by(&self, published_us: u64) -> u64 {
        let mut by = published_us + FOLLOW_US;
        let outages = [Condition::AgentAway, Condition::DnsAway, Condition::Uplink];
        // An outage defers it, so that it may meet a further one.
        let mut met: Vec<&Interval> =
            outages.into_iter().flat_map(|condition| self.with(condition)).collect();
        met.sort_by_key(|interval| interval.from_us);
        for outage in met {
            if outage.overlaps(published_us, by, FOLLOW_AFTER_OUTAGE_US) {
                let end = outage.to_us.unwrap_or(u64::MAX);
                by = by.max(end.saturating_add(FOLLOW_AFTER_OUTAGE_US));
            }
        }
        by
    }

    /// The faults that led up to a time: all since the last calm, in which none was active. It is
    /// the shortest account of what happened.
    pub(crate) fn trace(&self, at_us: u64, calm_us: u64) -> Vec<&Interval> {
        let mut begun: Vec<&Interval> =
            self.intervals.iter().filter(|interval| interval.from_us <= at_us).collect();
        begun.sort_by_key(|interval| interval.from_us);
        let mut needed_from = at_us;
        let mut trace = Vec::new();
        // From the last one back, until nothing reaches what is in the trace already.
        loop {
            let before = trace.len();
            begun.retain(|interval| {
                let reaches = interval.overlaps(needed_from, at_us, calm_us);
                if reaches {
                    trace.push(*interval);
                }
                !reaches
            });
            if trace.len() == before {
                break;
            }
            needed_from = trace.iter().map(|interval| interval.from_us).min().unwrap_or(at_us);
        }
        trace.sort_by_key(|interval| interval.from_us);
        trace
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: u64 = 1_000_000;

    fn set(numbers: &[usize]) -> BTreeSet<usize> {
        numbers.iter().copied().collect()
    }

    fn with(faults: &[(u64, u64, Condition)]) -> Timeline {
        let mut timeline = Timeline::default();
        timeline.publish(0, [0, 1]);
        for (from, to, condition) in faults {
            let number = timeline.begin(from * S, Some(*condition), format!("{condition:?}"));
            timeline.end(number, to * S);
        }
        timeline
    }

    #[test]
    fn a_replaced_address_is_valid_until_the_agent_must_know() {
        let mut timeline = with(&[]);
        timeline.publish(100 * S, [1]);
        let at = |second: u64| timeline.valid_backends((second * S, second * S));
        assert_eq!((at(50), at(105), at(109)), (set(&[0, 1]), set(&[0, 1]), set(&[1])));
        // A long operation may have begun before.
        assert_eq!(timeline.valid_backends((107 * S, 120 * S)), set(&[0, 1]));
    }

    #[test]
    fn an_outage_defers_the_end_of_a_replaced_address() {
        for condition in [Condition::AgentAway, Condition::DnsAway, Condition::Uplink] {
            let mut timeline = with(&[(103, 130, condition)]);
            timeline.publish(100 * S, [1]);
            let at = |second: u64| timeline.valid_backends((second * S, second * S));
            assert_eq!((at(149), at(151)), (set(&[0, 1]), set(&[1])), "{condition:?}");
        }
    }

    #[test]
    fn an_added_address_is_known_once_the_agent_must_know() {
        let mut timeline = with(&[(103, 130, Condition::AgentAway)]);
        timeline.publish(50 * S, [1]);
        timeline.publish(100 * S, [0, 1]);
        let known = |second: u64| timeline.known_backends((second * S, second * S));
        assert_eq!((known(40), known(90), known(149)), (set(&[0, 1]), set(&[1]), set(&[1])));
        assert_eq!(known(151), set(&[0, 1]));
        assert_eq!(timeline.known_backends((140 * S, 160 * S)), set(&[1]));
    }

    #[test]
    fn an_address_that_comes_back_makes_all_recent_ones_valid() {
        let mut timeline = with(&[]);
        timeline.publish(100 * S, [1]);
        timeline.publish(110 * S, [0, 1]);
        timeline.publish(130 * S, [0]);
        timeline.publish(400 * S, [1]);
        let at = |second: u64| timeline.valid_backends((second * S, second * S));
        assert_eq!((at(109), at(150), at(250)), (set(&[1]), set(&[0, 1]), set(&[0])));
        // The second one has not come back: it was away for too long.
        assert_eq!(at(420), set(&[1]));
    }

    #[test]
    fn a_fault_that_lasts_overlaps_everything_after_its_start() {
        let mut timeline = Timeline::default();
        timeline.begin(10 * S, Some(Condition::Uplink), String::new());
        assert!(timeline.suffers(Condition::Uplink, (90 * S, 91 * S), 0));
        assert!(!timeline.suffers(Condition::Uplink, (8 * S, 9 * S), 0));
        assert!(!timeline.suffers(Condition::AgentAway, (90 * S, 91 * S), 0));
    }

    #[test]
    fn a_trace_goes_back_to_the_last_calm() {
        let timeline = with(&[
            (10, 20, Condition::Uplink),
            (50, 55, Condition::AgentAway),
            (54, 58, Condition::Backend(0)),
            (59, 61, Condition::Backend(1)),
        ]);
        let froms: Vec<u64> =
            timeline.trace(60 * S, 2 * S).iter().map(|interval| interval.from_us / S).collect();
        assert_eq!(froms, [50, 54, 59]);
        assert!(timeline.trace(40 * S, 2 * S).is_empty());
    }
}
