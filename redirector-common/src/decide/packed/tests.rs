//! Every word keeps what was packed into it: global functions take and return words only.

use super::*;
use crate::{
    addr::PortBe,
    backend::{BackendId, Witness},
    event::EventKind,
    route::RouteEntry,
};

const PORTS: [u16; 4] = [0, 1, 443, 0xffff];
const FLAGS: [bool; 2] = [false, true];

#[test]
fn a_clients_key_keeps_all_four_parts_in_two_halves() {
    for (port, id) in PORTS.map(PortBe::new).into_iter().zip([0, 1, 7, BackendId::MAX]) {
        for (prefer_v6, dual_stack) in FLAGS.into_iter().flat_map(|v6| FLAGS.map(|dual| (v6, dual)))
        {
            let (families, witness) =
                (Families { prefer_v6, dual_stack }, Witness::from_bits(id ^ 0x2aaa));
            let key = ClientKey::new(port, families, witness, BackendId(id));
            let (lower, upper) = key.halves();
            assert_eq!(ClientKey::from_halves(lower, upper), key);
            assert_eq!(ClientKey::from_bits(key.to_bits()), key);
            assert_eq!((key.port(), key.last()), (port, BackendId(id)));
            assert_eq!(key.caller(), crate::backend::Caller::new(port, witness));
            for (no_v4, no_v6) in FLAGS.into_iter().flat_map(|four| FLAGS.map(|six| (four, six))) {
                let entry = RouteEntry {
                    block: RouteEntry::block(0, u8::from(!no_v6)),
                    backends4: u8::from(!no_v4),
                    ..RouteEntry::default()
                };
                let v6 = if prefer_v6 { !(dual_stack && no_v6) } else { dual_stack && no_v4 };
                assert_eq!(key.choose_v6(entry), u32::from(v6), "{families:?} {no_v4} {no_v6}");
                let resolved = key.resolved(PortBe::new(8443), u32::from(v6));
                assert_eq!((resolved.port(), resolved.last()), (PortBe::new(8443), key.last()));
                assert_eq!(
                    (resolved.v6_bit(), resolved.caller().port()),
                    (u32::from(v6), PortBe::new(8443),)
                );
            }
        }
    }
}

#[test]
fn a_denial_keeps_kind_family_and_memory() {
    for kind in [EventKind::Denied, EventKind::Passed] {
        for (vip6, no_memory) in FLAGS.into_iter().flat_map(|six| FLAGS.map(|none| (six, none))) {
            let denial = Denial::from_bits(Denial::new(kind, vip6, no_memory).to_bits());
            let found = (denial.kind(), denial.vip6(), denial.is_no_memory());
            assert_eq!(found, (kind as u8, u8::from(vip6), no_memory));
        }
    }
}

#[test]
fn a_draw_keeps_offset_and_flags_apart() {
    for offset in 0..64 {
        for flags in 0..8 {
            let mut draw = Draw::new(flags & 1 != 0).at(offset);
            draw = if flags & 2 != 0 { draw.with_all_ejected() } else { draw };
            draw = if flags & 4 != 0 { draw.with_trial() } else { draw };
            let moved = draw.moved_to(63 - offset);
            for (draw, offset) in [(Draw::from_bits(draw.to_bits()), offset), (moved, 63 - offset)]
            {
                assert_eq!((draw.offset(), draw.is_stale()), (offset, false));
                let found = (draw.has_alternative(), draw.all_ejected(), draw.is_trial());
                assert_eq!(found, (flags & 1 != 0, flags & 2 != 0, flags & 4 != 0));
            }
        }
    }
    assert!(Draw::STALE.is_stale() && Draw::STALE.offset() == 0);
}

#[test]
fn candidates_keep_count_and_generation() {
    for (count, generation) in [(0, 0), (1, 1), (64, 255), (255, 128)] {
        let shape = Candidates { first: 9, count, generation }.shape();
        let found = Candidates::from_shape(9, shape);
        assert_eq!((found.first, found.count, found.generation), (9, count, generation));
    }
}

#[test]
fn a_port_lookup_keeps_the_port_or_why_there_is_none() {
    for port in PORTS.map(PortBe::new) {
        let found = PortLookup::from_bits(PortLookup::found(port).to_bits());
        assert_eq!((found.read(), found.port()), (BlockRead::Found, port));
    }
    assert_eq!(PortLookup::MISSING.read(), BlockRead::Missing);
    assert_eq!(PortLookup::STALE.read(), BlockRead::Stale);
}

#[test]
fn a_selection_keeps_all_its_parts() {
    for (slot, generation, distance) in [(0, 0, 0), (1, 1, 1), (0x00ff_ffff, 255, 255)] {
        for port in PORTS.map(PortBe::new) {
            for policy in [0, RouteEntry::PASS] {
                let entry = RouteEntry { policy, ..RouteEntry::default() };
                let draw = Draw::new(true).with_trial();
                let selection = Selection::at(slot, generation)
                    .with_port(port)
                    .with_options_distance(distance)
                    .with_draw(draw)
                    .with_policy(entry);
                let found = Selection::from_bits(selection.to_bits());
                assert_eq!((found.slot(), found.generation()), (slot, generation));
                assert_eq!((found.port(), found.options_distance()), (port, distance));
                assert_eq!((found.read(), found.draw()), (BlockRead::Found, draw));
                assert_eq!(found.passes(), policy != 0);
                for read in [BlockRead::Missing, BlockRead::Stale] {
                    let none = Selection::none(read, entry);
                    assert_eq!((none.read(), none.passes()), (read, policy != 0));
                }
            }
        }
    }
}
