//! Removes established flows of guests that nothing else would remove: those that are idle for
//! hours, and those of interfaces that are gone.

use std::collections::BTreeMap;

use aya::maps::{HashMap, MapData};
use redirector_common::{
    names,
    packet::flow::{Flow, FlowKey},
};

use crate::datapath::{
    error::DatapathError,
    load::object::Object,
    sys::{lookup_hash_batch, monotonic_ns},
};

/// A flow that is idle for longer than this is removed. Keepalive probes come every two hours (RFC
/// 9293 section 3.8.4).
const IDLE_NS: u64 = 3 * 3600 * 1_000_000_000;

/// The time from the beginning of a walk through the table to the next one: the kernel takes a
/// millisecond for a whole empty table.
const WALK_INTERVAL_NS: u64 = 60 * 1_000_000_000;

/// Entries that are read in one step.
const STEP: usize = 4096;

/// The interfaces whose flows are kept: their indices, each with the time in nanoseconds of
/// `CLOCK_MONOTONIC` before which an established flow is of another interface, which had the same
/// index.
pub(crate) type Guests = BTreeMap<u32, u64>;

/// How many flows have expired.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Expired {
    /// By the index of the guest's interface, of those that are kept.
    pub(crate) by_guest: BTreeMap<u32, u64>,
    /// By the route's index in the pool.
    pub(crate) by_route: BTreeMap<u32, u64>,
}

/// The table of established flows, and how far it was read.
pub(crate) struct FlowExpiry {
    flows: HashMap<MapData, FlowKey, Flow>,
    position: Option<u32>,
    /// No flow counts as idle before: while no agent ran, the programs did not note the time.
    started_ns: u64,
    keys: Vec<FlowKey>,
    entries: Vec<Flow>,
    /// When the next walk is due, in nanoseconds of `CLOCK_MONOTONIC`.
    next_walk_ns: u64,
}

impl FlowExpiry {
    /// Takes the map out of a loaded object.
    pub(crate) fn from_object(object: &mut Object) -> Result<Self, DatapathError> {
        Ok(Self::new(object.hash(names::FLOWS)?, monotonic_ns()))
    }

    fn new(flows: HashMap<MapData, FlowKey, Flow>, started_ns: u64) -> Self {
        Self {
            flows,
            position: None,
            started_ns,
            keys: Vec::new(),
            entries: Vec::new(),
            next_walk_ns: 0,
        }
    }

    /// Whether no walk is under way or due at `now_ns`.
    pub(crate) fn rests(&self, now_ns: u64) -> bool {
        self.position.is_none() && now_ns < self.next_walk_ns
    }

    /// Makes a walk due, after the one that is under way: the flows of an interface that is gone
    /// are not kept for long.
    pub(crate) fn end_rest(&mut self) {
        self.next_walk_ns = 0;
    }

    /// Reads the next entries and removes flows that have expired by `now_ns`. Returns how many
    /// they were.
    pub(crate) fn step(&mut self, guests: &Guests, now_ns: u64) -> Result<Expired, DatapathError> {
        if self.position.is_none() {
            self.next_walk_ns = now_ns + WALK_INTERVAL_NS;
        }
        self.keys.resize(STEP, FlowKey::default());
        self.entries.resize(STEP, Flow::default());
        let (read, position) =
            lookup_hash_batch(&self.flows, self.position, &mut self.keys, &mut self.entries)
                .map_err(|error| {
                    DatapathError::call(format!("read the map {}", names::FLOWS), error)
                })?;
        self.position = position;
        let mut expired = Expired::default();
        for at in 0..read {
            let (key, flow) = (self.keys[at], self.entries[at]);
            let is_kept =
                guests.get(&key.interface).is_some_and(|&since_ns| flow.started_ns >= since_ns);
            let ended = if is_kept { self.expire(&key, &flow, now_ns) } else { self.forget(&key) };
            if ended {
                *expired.by_route.entry(flow.route).or_default() += 1;
            }
            if ended && is_kept {
                *expired.by_guest.entry(key.interface).or_default() += 1;
            }
        }
        if self.position.is_none() {
            self.keys = Vec::new();
            self.entries = Vec::new();
        }
        Ok(expired)
    }

    /// Removes the entry of an interface that is gone. Returns whether that ended a flow: its
    /// forward entry stands for it.
    fn forget(&mut self, key: &FlowKey) -> bool {
        self.remove(key) && key.direction != FlowKey::REVERSE
    }

    /// Removes the entry if it has expired. Returns whether that ended a flow.
    fn expire(&mut self, key: &FlowKey, flow: &Flow, now_ns: u64) -> bool {
        let other = key.other_side(flow);
        let other_side = self.flows.get(&other, 0).ok();
        if key.direction == FlowKey::REVERSE {
            // The forward entry is written first and removed last.
            if other_side.is_none() {
                self.remove(key);
            }
            return false;
        }
        let seen_ns = flow.seen_ns.max(other_side.map_or(0, |other| other.seen_ns));
        let last_ns = seen_ns.max(flow.started_ns).max(self.started_ns);
        if now_ns.saturating_sub(last_ns) < IDLE_NS {
            return false;
        }
        self.remove(&other);
        self.remove(key)
    }

    /// Whether there was such an entry.
    fn remove(&mut self, key: &FlowKey) -> bool {
        self.flows.remove(key).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use redirector_common::addr::{Ip4Be, Ip6Be, PortBe};

    use super::*;

    const GUEST: u32 = 7;
    const ROUTE: u32 = 3;
    const START: u64 = 1_000_000_000_000;

    fn expiry() -> FlowExpiry {
        FlowExpiry::new(HashMap::create(4096, 0).expect("a map"), START)
    }

    /// Adds both entries of a flow, seen last at `seen_ns` by its reverse side.
    fn add(expiry: &mut FlowExpiry, interface: u32, port: u16, (started_ns, seen_ns): (u64, u64)) {
        let address = |last| Ip6Be::mapped(Ip4Be::from_octets([10, 0, 0, last]));
        let forward = FlowKey {
            guest: address(2),
            remote: address(3),
            guest_port: PortBe::new(port),
            remote_port: PortBe::new(443),
            interface,
            ..FlowKey::default()
        };
        let flow = Flow {
            peer: address(4),
            peer_port: PortBe::new(8443),
            guest_port: PortBe::new(port),
            route: ROUTE,
            started_ns,
            ..Flow::default()
        };
        let reverse = forward.other_side(&flow);
        let back = Flow {
            peer: forward.remote,
            peer_port: forward.remote_port,
            guest_port: forward.guest_port,
            seen_ns,
            ..flow
        };
        assert_eq!(reverse.other_side(&back), forward);
        expiry.flows.insert(forward, flow, 0).expect("an element");
        expiry.flows.insert(reverse, back, 0).expect("an element");
    }

    /// So many flows of the guest, and of the route.
    fn counted(guest: u64, route: u64) -> Expired {
        let flows = |index, count| (count > 0).then_some((index, count)).into_iter().collect();
        Expired { by_guest: flows(GUEST, guest), by_route: flows(ROUTE, route) }
    }

    fn left(expiry: &FlowExpiry) -> usize {
        expiry.flows.keys().filter(Result::is_ok).count()
    }

    #[test]
    fn idle_flows_and_those_of_other_interfaces_go() {
        let mut expiry = expiry();
        let now = START + 2 * IDLE_NS;
        add(&mut expiry, GUEST, 1, (START, now - 1));
        add(&mut expiry, GUEST, 2, (START, 0));
        add(&mut expiry, GUEST, 3, (now - 1, 0));
        add(&mut expiry, 8, 4, (now, now));
        let expired = expiry.step(&Guests::from([(GUEST, 0)]), now).expect("a step");
        assert_eq!((expired, left(&expiry)), (counted(1, 2), 4));
        // The index was given to a new interface.
        let expired = expiry.step(&Guests::from([(GUEST, now)]), now).expect("a step");
        assert_eq!((expired, left(&expiry)), (counted(0, 2), 0));
    }

    #[test]
    fn a_flow_is_not_idle_before_the_agent_is() {
        let mut expiry = expiry();
        add(&mut expiry, GUEST, 1, (1, 1));
        let guests = Guests::from([(GUEST, 0)]);
        let expired = expiry.step(&guests, START + IDLE_NS - 1).expect("a step");
        assert_eq!((expired, left(&expiry)), (Expired::default(), 2));
        let expired = expiry.step(&guests, START + IDLE_NS).expect("a step");
        assert_eq!((expired, left(&expiry)), (counted(1, 1), 0));
    }

    #[test]
    fn a_walk_to_the_end_is_followed_by_a_rest() {
        let mut expiry = FlowExpiry::new(HashMap::create(32768, 0).expect("a map"), START);
        (0..STEP as u16).for_each(|port| add(&mut expiry, GUEST, port, (START, START)));
        assert!(!expiry.rests(START));
        expiry.step(&Guests::from([(GUEST, 0)]), START).expect("a step");
        assert!(!expiry.rests(START), "half of the entries are not read yet");
        while !expiry.rests(START) {
            expiry.step(&Guests::from([(GUEST, 0)]), START).expect("a step");
        }
        assert!(expiry.rests(START + WALK_INTERVAL_NS - 1));
        assert!(!expiry.rests(START + WALK_INTERVAL_NS));
        expiry.end_rest();
        assert!(!expiry.rests(START));
    }

    #[test]
    fn steps_reach_every_flow_and_orphans() {
        let mut expiry = FlowExpiry::new(HashMap::create(32768, 0).expect("a map"), START);
        for port in 0..10_000 {
            add(&mut expiry, GUEST, port, (START, 0));
        }
        let orphan =
            FlowKey { direction: FlowKey::REVERSE, interface: GUEST, ..FlowKey::default() };
        expiry.flows.insert(orphan, Flow { started_ns: START, ..Flow::default() }, 0).unwrap();
        let (mut removed, mut steps) = (0, 0);
        while left(&expiry) > 0 {
            let guests = Guests::from([(GUEST, 0)]);
            let expired = expiry.step(&guests, START + IDLE_NS).expect("a step");
            assert_eq!(expired.by_route.get(&ROUTE), expired.by_guest.get(&GUEST));
            removed += expired.by_guest.get(&GUEST).copied().unwrap_or(0);
            steps += 1;
            assert!(steps < 100, "{} left", left(&expiry));
        }
        assert_eq!(removed, 10_000);
    }
}
