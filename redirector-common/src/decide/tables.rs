//! What a decision reads: the tables, and who asks.

use super::packed::{Asked, Candidates, Drawing, Drawn, Families, Found, Pick, Ports};
use crate::{
    addr::{Ip6Be, PortBe},
    backend::{BackendId, Health},
    route::{RouteEntry, Slot},
};

/// The tables as a decision reads them, and the two things of the world that it depends on.
pub trait Tables {
    /// The route entry at `index`; one that says "no route" beyond the table's end.
    fn route(&self, index: u32) -> RouteEntry;
    /// The slot at `index`; one of generation 0, which no block has, beyond the table's end.
    fn slot(&self, index: u32) -> Slot;
    /// The slot at `index`, if it was written for a block of this generation.
    fn slot_of(&self, index: u32, generation: u8) -> Option<Slot> {
        Some(self.slot(index)).filter(|slot| slot.generation() == generation)
    }
    /// The IPv6 address of backend or source `id`.
    fn address6(&self, id: BackendId) -> Ip6Be;
    /// A number that grows with the connects of route `index`.
    fn turn(&self, index: u32) -> u32;
    /// The health of backend `id`.
    fn health(&self, id: BackendId) -> Health;
    /// `CLOCK_MONOTONIC` in nanoseconds. Asked only when a backend has failed before.
    fn now_ns(&self) -> u64;
    /// A uniformly distributed number.
    fn random(&self) -> u32;
    /// [`find_port`](super::find_port) with these tables; the kernel's call it as a function of its own, which the
    /// verifier checks once.
    fn find_port(&self, ports: Ports, client: PortBe) -> Found;
    /// [`survey`](super::survey) with these tables; as above.
    fn survey(&self, candidates: Candidates, drawn: Drawn) -> Drawing;
    /// [`pick`](super::pick) with these tables; as above.
    fn pick(&self, index: u32, asked: Asked) -> Pick;
    /// The same word; a compiler must not know that it is, see [`Known`](super::select_state::Known).
    fn afresh(&self, word: u64) -> u64 {
        word
    }
}

/// Who asks. What is told of it is read where it is needed, since a value that is kept costs, see
/// [`Choice`].
pub trait Client {
    /// The port it asks for.
    fn port(&self) -> PortBe;
    /// The addresses it can have.
    fn families(&self) -> Families;
    /// The last backend of this socket ([`BackendId::NONE`]: none).
    fn last(&self) -> BackendId;
    /// The three in one word.
    #[inline(always)]
    fn asked(&self) -> Asked {
        Asked::new(self.port(), self.families(), self.last())
    }
}
