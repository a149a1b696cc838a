//! What a connect to an address of the pool does.

use super::{
    balance::{Candidates, Drawing, Drawn, Families, address, is_v6, survey},
    lookup::{Asked, Pick, Read, pick},
    port_map::{Found, Ports, find_port, translate},
};
use crate::{
    addr::{Ip6Be, PortBe},
    backend::{BackendId, Health},
    event::Event,
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
    /// [`find_port()`] with these tables; the kernel's call it as a function of its own, which the
    /// verifier checks once.
    fn find_port(&self, ports: Ports, client: PortBe) -> Found {
        find_port(self, ports, client)
    }
    /// [`survey()`] with these tables; as above.
    fn survey(&self, candidates: Candidates, drawn: Drawn) -> Drawing {
        survey(self, candidates, drawn)
    }
    /// [`pick()`] with these tables; as above.
    fn pick(&self, index: u32, client: &impl Client) -> Pick {
        pick(self, index, Asked::new(client))
    }
    /// The same word; a compiler must not know that it is, see `Known`.
    fn afresh(&self, word: u64) -> u64 {
        word
    }
}

/// What a connect does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It goes to the backend that was chosen.
    Redirect,
    /// It is refused at once.
    Refuse,
    /// It is left alone, since the route says so.
    Pass,
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
}

/// Decides a TCP connect to the pool's address `index`. The backend, if it gets one, is put into
/// `choice`.
///
/// The result goes to a place that is initialised, not into an enum: parts of an enum that are not
/// set make the compiler copy undefined stack, "invalid read from stack off -40+0 size 8" without
/// CAP_PERFMON (6.18).
#[inline(always)]
pub fn connect(
    tables: &impl Tables,
    index: u32,
    client: &impl Client,
    choice: &mut Choice,
) -> Verdict {
    let mut pick = tables.pick(index, client);
    let mut read = fill(tables, pick, choice);
    if read == Read::Stale {
        // The route's new block.
        pick = tables.pick(index, client);
        read = fill(tables, pick, choice);
    }
    match read {
        Read::Done => Verdict::Redirect,
        _ if pick.passes() => Verdict::Pass,
        _ => Verdict::Refuse,
    }
}

/// A backend for one connect: two words, as they stand in the tables. What is made of them is made
/// where it is used, since each value that is kept over a call takes a place on the stack, and
/// without CAP_PERFMON the kernel puts a barrier behind the first store to each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Choice {
    pick: Pick,
    slot: Slot,
}

impl Choice {
    /// The backend in `slot`, when there is no other one and nothing else to say.
    #[inline(always)]
    pub(super) const fn only(slot: Slot, port: PortBe) -> Self {
        Self { pick: Pick::only(port), slot }
    }

    /// The backend in `slot`, when there are others, all eligible, and nothing else to say.
    #[inline(always)]
    pub(super) const fn one_of(slot: Slot, port: PortBe) -> Self {
        Self { pick: Pick::one_of(port), slot }
    }

    /// Its number.
    #[inline(always)]
    pub const fn id(self) -> BackendId {
        self.slot.id()
    }

    /// Its address for a client of `families`; an IPv4 one in its mapped form.
    #[inline(always)]
    pub fn address(self, tables: &impl Tables, families: Families) -> Ip6Be {
        address(tables, families, self.slot)
    }

    /// The port to connect to.
    #[inline(always)]
    pub const fn port(self) -> PortBe {
        self.pick.port()
    }

    /// It is set aside, but so is every other.
    #[inline(always)]
    pub const fn desperate(self) -> bool {
        self.pick.drawing().desperate()
    }

    /// The route has another one that is eligible.
    #[inline(always)]
    pub const fn another(self) -> bool {
        self.pick.drawing().another()
    }

    /// It has failed, its time is over, and there is another: nobody else is to try it until this
    /// connect's fate is known.
    #[inline(always)]
    pub const fn trial(self) -> bool {
        self.pick.drawing().trial()
    }

    /// Whether the route says more than ports and backends.
    #[inline(always)]
    pub const fn has_options(self) -> bool {
        self.pick.options() != 0
    }

    /// The options of route `index`, with the source address whose turn it is, for a client of
    /// `families`. None, if the block was replaced since: what they were is unknown then, and this
    /// connect goes without.
    #[inline(always)]
    pub fn options(self, tables: &impl Tables, index: u32, families: Families) -> Extras {
        let mut extras = Extras::default();
        let at = self.pick.slot().wrapping_add(self.pick.options());
        let slot = tables.slot(at);
        if slot.generation() != self.pick.generation() {
            return extras;
        }
        let options = slot.as_options();
        extras.idle_seconds = options.idle_seconds;
        let (before, count) = if is_v6(families, self.slot) {
            (options.sources4, options.sources6)
        } else {
            (0, options.sources4)
        };
        if count == 0 {
            return extras;
        }
        let turn = tables.turn(index) % u32::from(count);
        let slot =
            tables.slot(at.wrapping_add(1).wrapping_add(u32::from(before)).wrapping_add(turn));
        if slot.generation() == self.pick.generation() {
            extras.source = address(tables, families, slot);
        }
        extras
    }
}

/// What a route says beyond ports and backends, for one connect.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Extras {
    /// The load balancer's idle time-out in seconds; 0: none is known.
    pub idle_seconds: u16,
    /// The address to connect from, of the backend's family; `::` leaves it to the kernel.
    pub source: Ip6Be,
}

/// Takes the backend that was picked.
#[inline(always)]
fn fill(tables: &impl Tables, pick: Pick, choice: &mut Choice) -> Read {
    if pick.read() != Read::Done {
        return pick.read();
    }
    let slot = tables.slot(pick.slot());
    if slot.generation() != pick.generation() {
        return Read::Stale;
    }
    *choice = Choice { pick, slot };
    Read::Done
}

/// Why a connect to address `index` and `port` gets no backend: one of the `REASON_` constants of
/// [`Event`].
#[inline(always)]
pub fn refusal(tables: &(impl Tables + ?Sized), index: u32, port: PortBe) -> u8 {
    let entry = tables.route(index);
    if !entry.is_present() {
        return Event::REASON_NO_ROUTE;
    }
    if translate(tables, entry, port).read() == Read::None {
        Event::REASON_PORT
    } else {
        Event::REASON_NO_BACKEND
    }
}

#[cfg(test)]
#[path = "connect_tests.rs"]
mod tests;
