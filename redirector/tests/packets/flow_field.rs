//! Two routes to one backend, and the programs of a guest's interface.

use std::net::{IpAddr, SocketAddr};

use aya::maps::{HashMap, Map, MapData};
use redirector::{
    datapath::{self, Event, EventReader, FlowCounts, InterfaceRole, RouteCounters},
    plan::{Change, PlannedRoute},
    route::OnNoBackend,
};
use redirector_common::{
    abi, names,
    packet::{
        flow::{Flow, FlowKey},
        stats::PacketStats,
    },
};

use crate::{
    rig::{Bed, NEXT, Runner, settings},
    segments::{ACK, SYN, Segment},
};

/// The index of the route that most tests use; its IPv4 and IPv6 VIP end in it.
pub(crate) const ROUTE: u32 = 7;
/// Another route to the same backends.
pub(crate) const OTHER_ROUTE: u32 = 8;
/// The index of `lo`, which single packets come from.
pub(crate) const LO: u32 = 1;

pub(crate) const BACKENDS: [&str; 2] = ["203.0.113.7", "203.0.113.8"];
pub(crate) const BACKEND6: &str = "2001:db8::7";

pub(crate) fn socket(address: &str) -> SocketAddr {
    address.parse().unwrap()
}

/// The guest's end of connections.
pub(crate) fn guest() -> SocketAddr {
    socket("10.61.1.2:40000")
}

/// Port 443 of a route's IPv4 VIP.
pub(crate) fn vip(index: u32) -> SocketAddr {
    socket(&format!("198.18.0.{index}:443"))
}

/// The initial sequence number of guests, and that of backends.
pub(crate) const GUEST_START: u32 = 1000;
pub(crate) const BACKEND_START: u32 = 9000;

/// A bed whose programs are run on single packets.
pub(crate) struct FlowField {
    pub(crate) ingress: Runner,
    pub(crate) egress: Runner,
    pub(crate) bed: Bed,
}

impl FlowField {
    /// Both routes lead to these backends.
    pub(crate) fn new(backends: &[&str]) -> Self {
        let mut bed = Bed::new();
        bed.attach("lo", InterfaceRole::Guest);
        let (ingress, egress) = (bed.program(names::INGRESS), bed.program(names::EGRESS));
        let mut field = Self { ingress, egress, bed };
        field.put(ROUTE, backends);
        field.put(OTHER_ROUTE, backends);
        field
    }

    /// Writes a route.
    pub(crate) fn put(&mut self, index: u32, backends: &[&str]) {
        put(&mut self.bed, index, backends);
    }

    /// A reader of every event.
    pub(crate) fn events(&mut self) -> EventReader {
        self.bed.datapath.set_event_sampling(Some(0)).unwrap();
        self.bed.datapath.take_event_reader().unwrap()
    }

    /// What a guest's segment becomes, and the verdict.
    pub(crate) fn guest_sends(&self, segment: &Segment) -> (i32, Segment) {
        let mut frame = segment.frame();
        let verdict = self.ingress.run(&mut frame);
        (verdict, Segment::parse(&frame))
    }

    /// What a segment for a guest becomes, and the verdict.
    pub(crate) fn backend_sends(&self, segment: &Segment) -> (i32, Segment) {
        let mut frame = segment.frame();
        let verdict = self.egress.run(&mut frame);
        (verdict, Segment::parse(&frame))
    }

    /// The SYN as it leaves for its backend.
    #[track_caller]
    pub(crate) fn redirect(&self, syn: &Segment) -> Segment {
        let (verdict, sent) = self.guest_sends(syn);
        assert_eq!(verdict, NEXT, "{sent:?}");
        assert_ne!(sent.destination, syn.destination);
        sent
    }

    /// An established flow of the guest: its SYN as the backend gets it.
    #[track_caller]
    pub(crate) fn establish(&self, guest: SocketAddr, vip: SocketAddr) -> Segment {
        let sent = self.redirect(&Segment::new(guest, vip, SYN));
        let (verdict, accepted) = self.backend_sends(&accepts(&sent));
        let expected = (NEXT, vip, guest, SYN | ACK);
        assert_eq!((verdict, accepted.source, accepted.destination, accepted.flags), expected);
        sent
    }

    pub(crate) fn stats(&self) -> PacketStats {
        self.bed.datapath.packet_stats().unwrap()
    }

    /// The number of interfaces with flows and the flows of ours, which an agent and a command
    /// without one see alike.
    pub(crate) fn flow_counts(&self) -> (usize, FlowCounts) {
        let read = || {
            let counts = self.bed.datapath.flow_counts().unwrap();
            let pinned = datapath::inspect(&settings().bpffs).unwrap().unwrap();
            assert_eq!(pinned.flows, counts);
            counts
        };
        let counts = self.bed.rig.node.sandbox().namespaces().run(read).unwrap();
        (counts.len(), counts.get(&LO).copied().unwrap_or_default())
    }

    /// The counters of the route, which an agent and a command without one see alike.
    pub(crate) fn route_counters(&self) -> RouteCounters {
        let read = || {
            let counters = self.bed.datapath.route_counters(ROUTE).unwrap();
            let pinned = datapath::inspect(&settings().bpffs).unwrap().unwrap();
            let route = pinned.routes.iter().find(|route| route.vip == vip(ROUTE).ip());
            assert_eq!(route.unwrap().counters, counters);
            counters
        };
        self.bed.rig.node.sandbox().namespaces().run(read).unwrap()
    }

    /// The established flows.
    pub(crate) fn flows(&self) -> HashMap<MapData, FlowKey, Flow> {
        self.bed.hash(names::FLOWS)
    }
}

impl Bed {
    /// A pinned hash map.
    pub(crate) fn hash<K: aya::Pod, V: aya::Pod>(&self, name: &str) -> HashMap<MapData, K, V> {
        HashMap::try_from(Map::HashMap(self.map(name))).unwrap()
    }

    /// A pinned hash map that drops its oldest elements.
    pub(crate) fn lru_hash<K: aya::Pod, V: aya::Pod>(&self, name: &str) -> HashMap<MapData, K, V> {
        HashMap::try_from(Map::LruHashMap(self.map(name))).unwrap()
    }

    fn map(&self, name: &str) -> MapData {
        let pin = settings().bpffs.join(format!("v{}/maps/{name}", abi::ABI));
        let open = || MapData::from_pin(pin).unwrap();
        self.rig.node.sandbox().namespaces().run(open).unwrap()
    }
}

/// Writes a route.
pub(crate) fn put(bed: &mut Bed, index: u32, backends: &[&str]) {
    let backends: Vec<IpAddr> = backends.iter().map(|text| text.parse().unwrap()).collect();
    let route = PlannedRoute {
        backends: Some(backends),
        on_no_backend: OnNoBackend::Refuse,
        ..PlannedRoute::default()
    };
    bed.datapath.apply(&[Change::Put { index, route }]).unwrap();
}

/// The answer of a backend with these flags to what it was sent.
pub(crate) fn answer(sent: &Segment, flags: u8) -> Segment {
    let octets = u32::try_from(sent.data.len()).unwrap();
    let next = sent.sequence + octets + u32::from(sent.flags & SYN != 0);
    Segment::new(sent.destination, sent.source, flags).at(BACKEND_START, next)
}

/// A backend accepts a SYN.
pub(crate) fn accepts(syn: &Segment) -> Segment {
    answer(syn, SYN | ACK)
}

/// The kinds of events, each with the reason of a denial.
pub(crate) fn kinds(events: &[Event]) -> Vec<String> {
    let text = |event: &Event| match event.reason {
        Some(reason) => format!("{:?}: {}", event.kind, reason.label()),
        None => format!("{:?}", event.kind),
    };
    events.iter().map(text).collect()
}
