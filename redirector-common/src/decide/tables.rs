//! The inputs of a decision: the tables, the clock, random numbers and the client.

use super::packed::{
    Candidates, ClientKey, Draw, DrawInput, Families, PortLookup, PortPairs, Selection,
};
use crate::{
    addr::{Ip6Be, PortBe},
    backend::{BackendId, Health, Witness},
    route::{RouteEntry, Slot},
};

/// The tables, the clock and the random numbers that a decision reads.
///
/// The kernel's tables implement the searches as global functions, each of which the verifier
/// checks once.
pub trait Tables {
    /// The route entry at `index`; an absent one if `index` is beyond the table's end.
    fn route(&self, index: u32) -> RouteEntry;
    /// The slot at `index`; beyond the table's end a slot of generation 0, which no block has.
    fn slot(&self, index: u32) -> Slot;
    /// The slot at `index`, if it belongs to a block of this generation.
    fn slot_in_block(&self, index: u32, generation: u8) -> Option<Slot> {
        Some(self.slot(index)).filter(|slot| slot.generation() == generation)
    }
    /// The IPv6 address of backend or source `id`.
    fn address6(&self, id: BackendId) -> Ip6Be;
    /// Connects of route `index` so far; the number may lag behind.
    fn connects(&self, index: u32) -> u32;
    /// The health of backend `id` at `port`, or at another port with the same element.
    fn health(&self, id: BackendId, port: PortBe) -> Health;
    /// The same; `None` beyond the table's end.
    fn known_health(&self, id: BackendId, port: PortBe) -> Option<Health> {
        Some(self.health(id, port))
    }
    /// When backend `id` accepted its latest connect, in nanoseconds of `CLOCK_MONOTONIC`; `None`
    /// beyond the table's end.
    fn succeeded_ns(&self, id: BackendId) -> Option<u64>;
    /// `CLOCK_MONOTONIC` in nanoseconds. Read only when a backend has failed before.
    fn now_ns(&self) -> u64;
    /// A uniformly distributed number.
    fn random(&self) -> u32;
    /// [`find_port`](super::find_port) with these tables.
    fn find_port(&self, pairs: PortPairs, client: PortBe) -> PortLookup;
    /// [`scan_eligible`](super::scan_eligible) with these tables.
    fn scan_eligible(&self, candidates: Candidates, input: DrawInput) -> Draw;
    /// [`latest_success`](super::latest_success) with these tables.
    fn latest_success(&self, candidates: Candidates, input: DrawInput) -> u32;
    /// [`select`](super::select) with these tables.
    fn select(&self, index: u32, key: ClientKey) -> Selection;
    /// The same word, opaque to the compiler: see `SelectState`.
    fn reload(&self, word: u64) -> u64;
}

/// The client of a connect. Read each property where it is used: keeping a value across a call is
/// expensive, see `decide/packed/mod.rs`.
pub trait Client {
    /// The port that it connects to.
    fn port(&self) -> PortBe;
    /// The address families it can use.
    fn families(&self) -> Families;
    /// The last backend of this socket; [`BackendId::NONE`] if it had none.
    fn last(&self) -> BackendId;
    /// Who it is. Needed only where a backend has failed before.
    fn witness(&self) -> Witness;
    /// All four in one word.
    #[inline(always)]
    fn key(&self) -> ClientKey {
        ClientKey::new(self.port(), self.families(), self.witness(), self.last())
    }
}
