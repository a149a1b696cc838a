//! Selects the port and the backend of a connect from its route's block.

use super::{
    balance::pick_backend,
    packed::{BlockRead, ClientKey, Selection},
    port_map::translate,
    select_state::SelectState,
    tables::Tables,
};
use crate::route::RouteEntry;

/// Finds the destination's port and picks a backend in the block of route `index`, which it reads
/// once.
#[inline(always)]
pub fn select(tables: &(impl Tables + ?Sized), index: u32, key: ClientKey) -> Selection {
    let key = ClientKey::from_bits(tables.reload(key.to_bits()));
    let entry = tables.route(index);
    if !entry.is_present() {
        return Selection::none(BlockRead::Missing, RouteEntry::default());
    }
    let port = translate(tables, entry, key.port());
    if port.read() != BlockRead::Found {
        return Selection::none(port.read(), entry);
    }
    let mut state = SelectState::new(entry, key.resolved(port.port(), key.choose_v6(entry)));
    state.reload(tables);
    if state.candidates().count == 0 {
        return Selection::none(BlockRead::Missing, state.entry());
    }
    let draw = pick_backend(tables, &mut state);
    state.reload(tables);
    if draw.is_stale() {
        return Selection::none(BlockRead::Stale, state.entry());
    }
    let (entry, key) = (state.entry(), state.key());
    let slot = Selection::slot_bits(state.candidates().first.wrapping_add(draw.offset()));
    let options =
        if entry.has_options() { entry.options_slot().wrapping_sub(slot) & 0xff } else { 0 };
    Selection::at(slot, entry.generation)
        .with_port(key.port())
        .with_options_distance(options)
        .with_draw(draw)
        .with_policy(entry)
}
