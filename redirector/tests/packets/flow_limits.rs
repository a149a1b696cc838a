//! Tables that are full, or wiped: new connections are refused, and old ones continue or end.

use aya::maps::{HashMap, MapData};
use redirector::datapath::FlowCounts;
use redirector_common::{
    names,
    packet::{
        flow::{BriefFlow, FLOW_ENTRIES, Flow, FlowKey, MAX_INTERFACE_FLOWS, MAX_WINDOW_FLOWS},
        interface::InterfaceFlows,
    },
};

use crate::{
    flow_field::{
        BACKEND_START, BACKENDS, FlowField, GUEST_START, LO, ROUTE, accepts, answer, guest, kinds,
        socket, vip,
    },
    rig::{NEXT, REDIRECT},
    segments::{ACK, FIN, RST, SYN, Segment},
};

/// Asserts that both directions of the guest's flow are translated.
#[track_caller]
fn assert_lives(field: &FlowField, sent: &Segment) {
    let data = Segment::new(guest(), vip(ROUTE), ACK).at(GUEST_START + 1, 1).with(b"x");
    let expected = Segment { destination: sent.destination, ..data.clone() };
    assert_eq!(field.guest_sends(&data), (NEXT, expected));
    let data = answer(sent, ACK).with(b"y");
    assert_eq!(field.backend_sends(&data), (NEXT, Segment { source: vip(ROUTE), ..data }));
}

/// A SYN from another port than the guest's other flow.
fn another_syn(port: u16) -> Segment {
    Segment::new((guest().ip(), port).into(), vip(ROUTE), SYN)
}

#[test]
fn an_interface_has_a_limit_of_flows() {
    let mut field = FlowField::new(&BACKENDS[..1]);
    let mut reader = field.events();
    let sent = field.establish(guest(), vip(ROUTE));
    let mut flows = field.bed.hash::<u32, InterfaceFlows>(names::INTERFACE_FLOWS);
    let element = flows.get(&LO, 0).unwrap();
    assert_eq!((element.opened, element.closed), (1, 0));
    let full = InterfaceFlows { opened: MAX_INTERFACE_FLOWS, ..element };
    flows.insert(LO, full, 0).unwrap();
    let (verdict, reset) = field.guest_sends(&another_syn(41_000));
    assert_eq!((verdict, reset.flags), (REDIRECT, RST | ACK));
    assert_eq!(field.stats().interface_over_limit, 1);
    assert_eq!(flows.get(&LO, 0).unwrap().refused, 1);
    assert_eq!(kinds(&reader.read(usize::MAX)), ["Established", "Denied: too many flows"]);
    assert_lives(&field, &sent);
    // Room for one.
    flows.insert(LO, InterfaceFlows { closed: 1, ..full }, 0).unwrap();
    field.redirect(&another_syn(41_001));
}

#[test]
fn syns_without_an_answer_have_a_limit() {
    let field = FlowField::new(&BACKENDS[..1]);
    let sent = field.establish(guest(), vip(ROUTE));
    let mut flows = field.bed.hash::<u32, InterfaceFlows>(names::INTERFACE_FLOWS);
    // The window lasts 100 ms, which a busy machine may spend between two lines.
    let refused = (0..50).any(|attempt| {
        field.redirect(&another_syn(41_000 + attempt));
        let element = flows.get(&LO, 0).unwrap();
        flows.insert(LO, InterfaceFlows { window_flows: MAX_WINDOW_FLOWS, ..element }, 0).unwrap();
        let (verdict, reset) = field.guest_sends(&another_syn(42_000 + attempt));
        verdict == REDIRECT && reset.flags == RST | ACK
    });
    assert!(refused, "{:?}", flows.get(&LO, 0));
    assert_eq!(field.stats().interface_over_limit, 1);
    assert_eq!(flows.get(&LO, 0).unwrap().refused, 1);
    assert_lives(&field, &sent);
}

#[test]
fn a_full_table_refuses_new_flows_only() {
    let mut field = FlowField::new(&BACKENDS[..1]);
    let mut reader = field.events();
    let sent = field.establish(guest(), vip(ROUTE));
    let mut table = field.flows();
    let other = |number| FlowKey { interface: 9999, vlan: number, ..FlowKey::default() };
    let filled = (0..FLOW_ENTRIES).find(|&n| table.insert(other(n), Flow::default(), 0).is_err());
    assert_eq!(filled, Some(FLOW_ENTRIES - 2));
    // The SYN leaves, since half-open flows are elsewhere; the backend's answer becomes a reset.
    let second = field.redirect(&another_syn(41_000));
    let (verdict, reset) = field.backend_sends(&accepts(&second));
    assert_eq!((verdict, reset.flags, reset.source), (NEXT, RST | ACK, vip(ROUTE)));
    assert_eq!(reset.acknowledgment, GUEST_START + 1);
    assert_eq!(field.stats().flows_full, 1);
    assert_eq!(field.flow_counts().1.refused, 1);
    assert_eq!(kinds(&reader.read(usize::MAX)), ["Established", "Denied: no memory"]);
    let counters = field.bed.datapath.route_counters(ROUTE).unwrap();
    assert_eq!((counters.started, counters.established, counters.aborted), (2, 1, 1));
    assert_lives(&field, &sent);
    // Room for one direction only: still refused, and nothing is left behind.
    table.remove(&other(0)).unwrap();
    let third = field.redirect(&another_syn(41_001));
    assert_eq!(field.backend_sends(&accepts(&third)).1.flags, RST | ACK);
    table.remove(&other(1)).unwrap();
    field.establish(socket("10.61.1.2:41002"), vip(ROUTE));
    assert_lives(&field, &sent);
}

#[test]
fn flows_are_counted_by_interface() {
    let field = FlowField::new(&BACKENDS[..1]);
    assert_eq!(field.flow_counts(), (0, FlowCounts::default()));
    let sent = field.establish(guest(), vip(ROUTE));
    field.establish(socket("10.61.1.2:41002"), vip(ROUTE));
    field.redirect(&another_syn(41_000));
    field.redirect(&another_syn(41_001));
    let counts = FlowCounts { open: 2, half_open: 2, refused: 0 };
    assert_eq!(field.flow_counts(), (1, counts));
    // A guest that has given up long ago is not about to connect.
    let mut brief = field.bed.lru_hash::<FlowKey, BriefFlow>(names::BRIEF_FLOWS);
    let is_given_up =
        |key: &FlowKey| (key.direction, key.guest_port.get()) == (FlowKey::FORWARD, 41_000);
    let given_up = brief.keys().map(Result::unwrap).find(is_given_up).unwrap();
    let mut entry = brief.get(&given_up, 0).unwrap();
    entry.flow.started_ns -= 64_000_000_000;
    brief.insert(given_up, entry, 0).unwrap();
    assert_eq!(field.flow_counts().1, FlowCounts { half_open: 1, ..counts });
    // The backend ends one, and refuses the other.
    assert_eq!(field.backend_sends(&answer(&sent, RST | ACK)).0, NEXT);
    let refused = field.redirect(&another_syn(41_003));
    field.backend_sends(&answer(&refused, RST | ACK));
    assert_eq!(field.flow_counts().1, FlowCounts { open: 1, half_open: 1, refused: 0 });
}

#[test]
fn connections_of_a_guest_that_is_gone_count_as_closed() {
    let mut field = FlowField::new(&BACKENDS[..1]);
    field.establish(guest(), vip(ROUTE));
    field.establish(socket("10.61.1.2:41002"), vip(ROUTE));
    assert_eq!(field.route_counters().open(), 2);
    // A micro-VM that is killed ends no connection.
    field.bed.detach(LO);
    field.bed.datapath.expire_flows().unwrap();
    assert_eq!(field.flows().keys().count(), 0);
    let counters = field.route_counters();
    assert_eq!((counters.established, counters.open()), (2, 0), "{counters:?}");
    // Nor does the next agent count them again.
    field.bed.reopen();
    field.bed.datapath.expire_flows().unwrap();
    assert_eq!(field.route_counters(), counters);
}

/// Drops entries of half-open and ended flows, as the table does when it is full.
fn drop_brief(field: &FlowField, dropped: impl Fn(&FlowKey) -> bool) {
    let mut brief: HashMap<MapData, FlowKey, BriefFlow> = field.bed.lru_hash(names::BRIEF_FLOWS);
    let keys: Vec<FlowKey> = brief.keys().map(Result::unwrap).collect();
    keys.iter().filter(|key| dropped(key)).for_each(|key| brief.remove(key).unwrap());
}

#[test]
fn a_half_open_flow_that_is_dropped_counts_once() {
    let field = FlowField::new(&BACKENDS[..1]);
    let syn = Segment::new(guest(), vip(ROUTE), SYN);
    field.redirect(&syn);
    drop_brief(&field, |_| true);
    // The same SYN is a new flow now. The outcome of the first one is never known.
    field.establish(guest(), vip(ROUTE));
    let counters = field.route_counters();
    assert_eq!((counters.started, counters.established), (1, 1), "{counters:?}");
    // Nor of one whose guest gives up.
    field.redirect(&another_syn(41_001));
    drop_brief(&field, |_| true);
    assert_eq!(field.route_counters(), counters);
}

/// The table of half-open and ended flows drops either entry of a flow first.
#[test]
fn a_repeated_syn_or_fin_gets_its_answer_after_a_flood() {
    let field = FlowField::new(&BACKENDS[..1]);
    let drop_reverse = || drop_brief(&field, |key| key.direction == FlowKey::REVERSE);
    let syn = Segment::new(guest(), vip(ROUTE), SYN);
    field.redirect(&syn);
    drop_reverse();
    let sent = field.redirect(&syn);
    let (verdict, accepted) = field.backend_sends(&accepts(&sent));
    assert_eq!((verdict, accepted.source, accepted.flags), (NEXT, vip(ROUTE), SYN | ACK));
    let fin = Segment::new(guest(), vip(ROUTE), FIN | ACK).at(GUEST_START + 1, BACKEND_START + 1);
    let sent = field.redirect(&fin);
    field.backend_sends(&answer(&sent, FIN | ACK));
    assert_eq!(field.flows().keys().count(), 0);
    drop_reverse();
    let sent = field.redirect(&fin);
    let (verdict, acknowledged) = field.backend_sends(&answer(&sent, ACK));
    assert_eq!((verdict, acknowledged.source, acknowledged.flags), (NEXT, vip(ROUTE), ACK));
}

#[test]
fn wiped_tables_end_connections_at_once() {
    let field = FlowField::new(&BACKENDS[..1]);
    let sent = field.establish(guest(), vip(ROUTE));
    let mut table = field.flows();
    let keys: Vec<FlowKey> = table.keys().map(Result::unwrap).collect();
    assert_eq!(keys.len(), 2);
    for key in keys {
        table.remove(&key).unwrap();
    }
    // The guest's next segment is reset, with the sequence number that it expects.
    let next = BACKEND_START + 1;
    let data = Segment::new(guest(), vip(ROUTE), ACK).at(GUEST_START + 1, next).with(b"x");
    let reset = Segment::new(vip(ROUTE), guest(), RST).at(next, 0);
    assert_eq!(field.guest_sends(&data), (REDIRECT, reset));
    // The backend's next segment reaches the guest's kernel, which resets what it does not know.
    let data = answer(&sent, ACK).with(b"y");
    assert_eq!(field.backend_sends(&data), (NEXT, data));
    field.establish(guest(), vip(ROUTE));
}
