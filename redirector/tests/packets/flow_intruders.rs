//! Segments that another guest sends with the address of a backend: they change no flow.

use redirector_common::packet::flow::FlowKey;

use crate::{
    flow_field::{
        BACKEND_START, BACKENDS, FlowField, GUEST_START, ROUTE, accepts, answer, guest, kinds, vip,
    },
    rig::NEXT,
    segments::{ACK, FIN, RST, SYN, Segment},
};

/// The interface that backends are behind, and that of another guest.
const UPLINK: u32 = 2;
const INTRUDER: u32 = 77;

impl FlowField {
    /// As [`FlowField::backend_sends`], by this interface.
    fn sent_by(&self, interface: u32, segment: &Segment) -> (i32, Segment) {
        let mut frame = segment.frame();
        let verdict = self.egress.run_from(interface, &mut frame);
        (verdict, Segment::parse(&frame))
    }
}

/// Entries of ended flows are dropped when others need the room, which a flood can bring about. So
/// a guest that guesses no sequence number must not be able to end another one's flow.
#[test]
fn a_reset_of_another_guest_ends_no_flow() {
    let mut field = FlowField::new(&BACKENDS);
    let mut reader = field.events();
    let sent = field.redirect(&Segment::new(guest(), vip(ROUTE), SYN));
    assert_eq!(field.sent_by(UPLINK, &accepts(&sent)).0, NEXT);
    let established: Vec<FlowKey> = field.flows().keys().map(Result::unwrap).collect();
    assert_eq!(established.len(), 2);
    for (flags, sequence) in [(RST, 1), (RST | ACK, 2), (RST, BACKEND_START + 1), (FIN | ACK, 3)] {
        let forged = answer(&sent, flags).at(sequence, GUEST_START + 1);
        // The guest's kernel judges it, as without us.
        let expected = Segment { source: vip(ROUTE), ..forged.clone() };
        assert_eq!(field.sent_by(INTRUDER, &forged), (NEXT, expected), "{flags}");
        assert_eq!(field.flows().keys().count(), 2, "{flags}");
    }
    assert_eq!(kinds(&reader.read(usize::MAX)), ["Established"]);
    let data = Segment::new(guest(), vip(ROUTE), ACK).at(GUEST_START + 1, 1).with(b"x");
    let expected = Segment { destination: sent.destination, ..data.clone() };
    assert_eq!(field.guest_sends(&data), (NEXT, expected));
    // The guest's own end is not one of both sides.
    let fin = Segment::new(guest(), vip(ROUTE), FIN | ACK).at(GUEST_START + 2, 1);
    assert_eq!(field.guest_sends(&fin).0, NEXT);
    assert_eq!(field.flows().keys().count(), 2);
    // The backend's is.
    assert_eq!(field.sent_by(UPLINK, &answer(&sent, RST)).0, NEXT);
    assert_eq!(field.flows().keys().count(), 0);
    assert_eq!(kinds(&reader.read(usize::MAX)), ["Closed"]);
}

/// Without the sequence number of its SYN, nobody accepts or refuses a guest's connect.
#[test]
fn a_forged_answer_neither_accepts_nor_refuses() {
    let mut field = FlowField::new(&BACKENDS);
    let mut reader = field.events();
    let sent = field.redirect(&Segment::new(guest(), vip(ROUTE), SYN));
    for flags in [SYN | ACK, RST | ACK, RST, FIN | ACK] {
        let forged = answer(&sent, flags).at(1, GUEST_START + 7);
        assert_eq!(field.sent_by(INTRUDER, &forged).0, NEXT, "{flags}");
    }
    assert_eq!(kinds(&reader.read(usize::MAX)), [""; 0]);
    let counters = field.bed.datapath.route_counters(ROUTE).unwrap();
    assert_eq!((counters.started, counters.established, counters.refused), (0, 0, 0));
    assert_eq!(field.sent_by(UPLINK, &accepts(&sent)).0, NEXT);
    assert_eq!(kinds(&reader.read(usize::MAX)), ["Established"]);
}
