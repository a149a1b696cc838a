//! Single segments of guests: what leaves for the backend, what the guest gets, and what is left
//! alone.

use std::net::IpAddr;

use redirector::datapath::EventKind;

use crate::{
    flow_field::{
        BACKEND_START, BACKEND6, BACKENDS, FlowField, GUEST_START, LO, OTHER_ROUTE, ROUTE, accepts,
        answer, guest, kinds, socket, vip,
    },
    rig::{DROP, NEXT, REDIRECT},
    segments::{ACK, FIN, RST, SYN, Segment, parse_too_big, too_big},
};

/// Maximum segment size 1460, selective acknowledgments permitted.
const OPTIONS: [u8; 8] = [2, 4, 5, 0xb4, 4, 2, 1, 1];

#[test]
fn a_connection_is_translated_both_ways() {
    let mut field = FlowField::new(&BACKENDS[..1]);
    let mut reader = field.events();
    let (guest, vip, backend) = (guest(), vip(ROUTE), socket("203.0.113.7:443"));
    let syn = Segment { options: OPTIONS.to_vec(), ..Segment::new(guest, vip, SYN) };
    let sent = field.redirect(&syn);
    assert_eq!(sent, Segment { destination: backend, ..syn });
    let accepted = Segment { options: OPTIONS.to_vec(), ..accepts(&sent) };
    assert_eq!(field.backend_sends(&accepted), (NEXT, Segment { source: vip, ..accepted }));
    // Odd lengths, and IP options in both directions.
    let router_alert = vec![0x94, 4, 0, 0];
    let own = Segment::new(guest, vip, ACK).at(GUEST_START + 1, BACKEND_START + 1);
    let data = Segment { ip_options: router_alert, ..own.clone().with(b"hello") };
    assert_eq!(field.guest_sends(&data), (NEXT, Segment { destination: backend, ..data.clone() }));
    let reply = Segment { ip_options: data.ip_options, ..answer(&sent, ACK).with(b"welcome") };
    assert_eq!(field.backend_sends(&reply), (NEXT, Segment { source: vip, ..reply }));
    let fin = Segment { flags: FIN | ACK, ..own };
    assert_eq!(field.guest_sends(&fin), (NEXT, Segment { destination: backend, ..fin.clone() }));
    let fin = answer(&sent, FIN | ACK);
    assert_eq!(field.backend_sends(&fin), (NEXT, Segment { source: vip, ..fin }));
    // What follows the end is translated, too.
    let last = Segment::new(guest, vip, ACK).at(GUEST_START + 7, BACKEND_START + 9);
    assert_eq!(field.guest_sends(&last), (NEXT, Segment { destination: backend, ..last.clone() }));
    let counters = field.bed.datapath.route_counters(ROUTE).unwrap();
    assert_eq!((counters.started, counters.established, counters.closed), (1, 1, 1));
    assert_eq!((counters.tx_bytes, counters.rx_bytes), (5, 7));
    let events = reader.read(usize::MAX);
    assert_eq!(kinds(&events), ["Established", "Closed"]);
    for event in &events {
        assert_eq!((event.index, event.vip_port, event.vip6), (ROUTE, 443, false), "{event:?}");
        assert_eq!((event.backend, event.interface), (Some(backend), Some(LO)), "{event:?}");
    }
    assert_eq!((events[1].tx_bytes, events[1].rx_bytes), (5, 7));
    assert_eq!(field.flows().keys().count(), 0, "ended flows are in the other table");
}

#[test]
fn an_ipv6_connection_is_translated_both_ways() {
    let field = FlowField::new(&[BACKEND6]);
    let (guest, vip) = (socket("[fd61::2]:40000"), socket("[fd00:18::7]:443"));
    let sent = field.establish(guest, vip);
    assert_eq!(sent.destination, socket("[2001:db8::7]:443"));
    let data = Segment::new(guest, vip, ACK).at(GUEST_START + 1, BACKEND_START + 1).with(b"odd");
    assert_eq!(
        field.guest_sends(&data),
        (NEXT, Segment { destination: sent.destination, ..data.clone() })
    );
    // The VIP without a backend of its family.
    let (verdict, reset) = field.guest_sends(&Segment::new(guest, socket("[fd00:18::9]:443"), SYN));
    assert_eq!((verdict, reset.flags), (REDIRECT, RST | ACK));
}

#[test]
fn fragments_pass_and_are_counted() {
    let field = FlowField::new(&BACKENDS[..1]);
    let mut first = Segment::new(guest(), vip(ROUTE), SYN).frame();
    // "More fragments", with the header's checksum.
    first[20] = 0x20;
    let checksum = u16::from_be_bytes([first[24], first[25]]);
    let checksum = checksum + 0x2000;
    first[24..26].copy_from_slice(&checksum.to_be_bytes());
    let mut later = first.clone();
    later[21] = 185;
    let before = Segment::new(socket("[fd61::2]:40000"), socket("[fd00:18::7]:443"), SYN).frame();
    // A fragment header in front of the segment.
    let mut six = before;
    six[20] = 44;
    six[18..20].copy_from_slice(&28_u16.to_be_bytes());
    six.splice(54..54, [6, 0, 0, 1, 0, 0, 0, 7]);
    for frame in [first, later, six] {
        let mut seen = frame.clone();
        assert_eq!(field.ingress.run(&mut seen), NEXT);
        assert_eq!(seen, frame);
    }
    let stats = field.stats();
    assert_eq!((stats.fragments, stats.resets_sent), (3, 0), "{stats:?}");
    assert_eq!(field.bed.datapath.route_counters(ROUTE).unwrap().started, 0);
}

#[test]
fn a_segment_without_a_flow_is_reset() {
    let field = FlowField::new(&BACKENDS[..1]);
    let stray = Segment::new(guest(), vip(ROUTE), ACK).at(77, 4321).with(b"hello");
    let reset = Segment::new(stray.destination, stray.source, RST).at(4321, 0);
    assert_eq!(field.guest_sends(&stray), (REDIRECT, reset));
    // A reset is never answered.
    let mut frame = Segment { flags: RST, ..stray }.frame();
    assert_eq!(field.ingress.run(&mut frame), DROP);
    assert_eq!(field.stats().resets_sent, 1);
    // A backend's segment without a flow is the guest's own business.
    let foreign = Segment::new(socket("203.0.113.7:443"), guest(), ACK).at(1, 2).with(b"data");
    assert_eq!(field.backend_sends(&foreign), (NEXT, foreign));
}

/// TCP fast open: the SYN has data, which the backend may accept, leave out, or refuse.
#[test]
fn a_syn_with_data_is_redirected() {
    let field = FlowField::new(&BACKENDS[..1]);
    for (number, accepted) in [(1, 5), (2, 0)] {
        let guest = socket(&format!("10.61.1.2:{}", 40_000 + number));
        let syn = Segment::new(guest, vip(ROUTE), SYN).with(b"hello");
        let sent = field.redirect(&syn);
        assert_eq!((&sent.data[..], sent.sequence), (&b"hello"[..], GUEST_START));
        let accepts = accepts(&sent).at(BACKEND_START, GUEST_START + 1 + accepted);
        assert_eq!(
            field.backend_sends(&accepts),
            (NEXT, Segment { source: vip(ROUTE), ..accepts })
        );
    }
    assert_eq!(field.bed.datapath.route_counters(ROUTE).unwrap().established, 2);
    // An answer to more than the SYN is none to it.
    let sent = field.redirect(&Segment::new(guest(), vip(ROUTE), SYN).with(b"hello"));
    let foreign = accepts(&sent).at(BACKEND_START, GUEST_START + 7);
    assert_eq!(field.backend_sends(&foreign), (NEXT, foreign));
    assert_eq!(field.bed.datapath.route_counters(ROUTE).unwrap().established, 2);
}

#[test]
fn a_refused_syn_moves_with_its_options() {
    let mut field = FlowField::new(&BACKENDS);
    let mut reader = field.events();
    for data in [&b""[..], b"fast"] {
        let syn = Segment {
            options: OPTIONS.to_vec(),
            ..Segment::new(guest(), vip(ROUTE), SYN).with(data)
        };
        let sent = field.redirect(&syn);
        let (verdict, resent) = field.backend_sends(&answer(&sent, RST | ACK));
        // The guest's own SYN, which enters the interface again; data comes with a retransmission.
        assert_eq!((verdict, &resent), (REDIRECT, &Segment { data: Vec::new(), ..syn.clone() }));
        let moved = field.redirect(&resent);
        assert_ne!(moved.destination, sent.destination);
        let (verdict, accepted) = field.backend_sends(&accepts(&moved));
        assert_eq!((verdict, accepted.source), (NEXT, vip(ROUTE)));
        // The second backend is the only one that is eligible.
        let (_, reset) = field.guest_sends(&Segment::new(guest(), vip(99), SYN));
        assert_eq!(reset.flags, RST | ACK);
        // The next connection begins with both again.
        field.put(ROUTE, &[]);
        field.put(ROUTE, &BACKENDS);
        let reset = Segment::new(guest(), vip(ROUTE), RST).at(GUEST_START + 1, 0);
        assert_eq!(field.guest_sends(&reset).0, NEXT);
    }
    let kinds = kinds(&reader.read(usize::MAX));
    let one = ["Refused", "Established", "Denied: no route", "Closed"];
    assert_eq!(kinds, [one, one].concat());
    let counters = field.bed.datapath.route_counters(ROUTE).unwrap();
    assert_eq!((counters.started, counters.refused, counters.established), (4, 2, 2));
}

/// Both sides send a SYN; neither is an answer to the other.
#[test]
fn a_simultaneous_open_is_established() {
    let mut field = FlowField::new(&BACKENDS);
    let mut reader = field.events();
    let sent = field.redirect(&Segment::new(guest(), vip(ROUTE), SYN));
    let own = Segment::new(sent.destination, guest(), SYN).at(BACKEND_START, 0);
    assert_eq!(field.backend_sends(&own), (NEXT, Segment { source: vip(ROUTE), ..own.clone() }));
    let both = Segment::new(guest(), vip(ROUTE), SYN | ACK).at(GUEST_START, BACKEND_START + 1);
    let expected = Segment { destination: sent.destination, ..both.clone() };
    assert_eq!(field.guest_sends(&both), (NEXT, expected));
    let both = accepts(&sent);
    assert_eq!(field.backend_sends(&both), (NEXT, Segment { source: vip(ROUTE), ..both }));
    // A reset ends it now, and moves nothing.
    let reset = answer(&sent, RST | ACK);
    assert_eq!(field.backend_sends(&reset), (NEXT, Segment { source: vip(ROUTE), ..reset }));
    assert_eq!(kinds(&reader.read(usize::MAX)), ["Established", "Reset"]);
    assert_eq!(field.stats().flows_moved, 0);
}

#[test]
fn one_port_to_two_vips_of_a_backend_is_translated() {
    let field = FlowField::new(&BACKENDS[..1]);
    let first = field.establish(guest(), vip(ROUTE));
    let second = field.establish(guest(), vip(OTHER_ROUTE));
    assert_eq!((first.source, first.destination), (guest(), second.destination));
    assert_eq!(second.source.ip(), guest().ip());
    assert_ne!(second.source.port(), guest().port());
    assert_eq!(field.stats().ports_translated, 1);
    for (sent, vip) in [(first, vip(ROUTE)), (second, vip(OTHER_ROUTE))] {
        let data = Segment::new(guest(), vip, ACK).at(GUEST_START + 1, 1).with(b"x");
        let (_, there) = field.guest_sends(&data);
        assert_eq!((there.source, there.destination), (sent.source, sent.destination));
        let (_, back) = field.backend_sends(&answer(&sent, ACK).with(b"y"));
        assert_eq!((back.source, back.destination), (vip, guest()));
    }
}

#[test]
fn a_direct_connection_is_left_alone() {
    let field = FlowField::new(&BACKENDS[..1]);
    let backend = socket("203.0.113.7:443");
    // From the port of an ended flow, whose entries are still there.
    let sent = field.establish(guest(), vip(ROUTE));
    field.backend_sends(&answer(&sent, RST | ACK));
    let syn = Segment::new(guest(), backend, SYN).at(5_000_000, 0);
    assert_eq!(field.guest_sends(&syn), (NEXT, syn.clone()));
    let accepted = accepts(&syn);
    assert_eq!(field.backend_sends(&accepted), (NEXT, accepted));
    let data = answer(&syn, ACK).with(b"direct");
    assert_eq!(field.backend_sends(&data), (NEXT, data));
    // While a flow lives, what answers the direct SYN does not reach that flow.
    let sent = field.establish(guest(), vip(ROUTE));
    let accepted = accepts(&syn);
    assert_eq!(field.backend_sends(&accepted), (NEXT, accepted));
    let data = answer(&sent, ACK).with(b"redirected");
    assert_eq!(field.backend_sends(&data), (NEXT, Segment { source: vip(ROUTE), ..data }));
}

#[test]
fn path_mtu_errors_are_translated() {
    let field = FlowField::new(&[BACKENDS[0], BACKEND6]);
    let (guest6, vip6) = (socket("[fd61::2]:40000"), socket("[fd00:18::7]:443"));
    for (guest, vip, router) in
        [(guest(), vip(ROUTE), "198.51.100.1"), (guest6, vip6, "2001:db8:1::1")]
    {
        let sent = field.establish(guest, vip);
        let data = |flags| Segment { flags, ..sent.clone() }.with(&[7; 64]);
        let router: IpAddr = router.parse().unwrap();
        let mut frame = too_big(router, guest.ip(), &data(ACK), 1300);
        assert_eq!(field.egress.run(&mut frame), NEXT);
        let quoted = Segment { destination: vip, ..data(ACK) };
        assert_eq!(parse_too_big(&frame), (router, 1300, quoted));
        // The other way: the guest's router cannot take what the backend has sent.
        let reply = answer(&sent, ACK).with(&[8; 64]);
        let quoted = Segment { source: vip, ..reply.clone() };
        let mut frame = too_big(guest.ip(), vip.ip(), &quoted, 1300);
        assert_eq!(field.ingress.run(&mut frame), NEXT);
        assert_eq!(parse_too_big(&frame), (guest.ip(), 1300, reply));
        // Of a packet that belongs to no flow, nothing changes.
        let foreign = Segment { source: (guest.ip(), 1).into(), ..data(ACK) };
        let before = too_big(router, guest.ip(), &foreign, 1300);
        let mut frame = before.clone();
        assert_eq!(field.egress.run(&mut frame), NEXT);
        assert_eq!(frame, before);
    }
    assert_eq!(field.stats().icmp_translated, 4);
}

#[test]
fn every_denial_has_its_reason() {
    let mut field = FlowField::new(&[]);
    let mut reader = field.events();
    let deny = |field: &FlowField, index: u32| {
        let (verdict, reset) = field.guest_sends(&Segment::new(guest(), vip(index), SYN));
        assert_eq!((verdict, reset.flags), (REDIRECT, RST | ACK));
        assert_eq!((reset.source, reset.acknowledgment), (vip(index), GUEST_START + 1));
    };
    deny(&field, ROUTE);
    deny(&field, 99);
    let events = reader.read(usize::MAX);
    assert_eq!(kinds(&events), ["Denied: no backend", "Denied: no route"]);
    assert!(events.iter().all(|event| event.interface == Some(LO)), "{events:?}");
    assert!(events.iter().all(|event| event.kind == EventKind::Denied), "{events:?}");
    assert_eq!(field.stats().resets_sent, 2);
}
