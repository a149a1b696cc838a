//! One reading of a route's block: which port, which backend. Everything in words, since a value
//! that is kept costs, see [`super::Choice`].

use super::{
    balance::draw,
    packed::{Asked, Drawing, Pick, Read},
    port_map::translate,
    select_state::Known,
    tables::Tables,
};
use crate::route::RouteEntry;

/// One reading of the block of route `index`: the port and the backend.
#[inline(always)]
pub fn pick(tables: &(impl Tables + ?Sized), index: u32, asked: Asked) -> Pick {
    let asked = Asked(tables.afresh(asked.0));
    let entry = tables.route(index);
    if !entry.is_present() {
        return Pick::nowhere(Read::None, RouteEntry::default());
    }
    let found = translate(tables, entry, asked.port());
    if found.read() != Read::Done {
        return Pick::nowhere(found.read(), entry);
    }
    let mut known = Known { entry, asked: asked.settled(found.port(), asked.prefers_six(entry)) };
    known.afresh(tables);
    if known.candidates().count == 0 {
        return Pick::nowhere(Read::None, known.entry);
    }
    let drawing = draw(tables, &mut known);
    known.afresh(tables);
    if drawing.is_stale() {
        return Pick::nowhere(Read::Stale, known.entry);
    }
    let Known { entry, asked } = known;
    let slot = known.candidates().first.wrapping_add(drawing.offset()) & 0x00ff_ffff;
    let options =
        if entry.has_options() { entry.options_slot().wrapping_sub(slot) & 0xff } else { 0 };
    Pick(
        u64::from(slot)
            | u64::from(entry.generation) << Pick::GENERATION
            | u64::from(asked.port().0) << Pick::PORT
            | u64::from(options) << Pick::OPTIONS
            | u64::from(drawing.0 & Drawing::FLAGS) << Pick::DRAWING
            | Pick::passing(entry).0,
    )
}
