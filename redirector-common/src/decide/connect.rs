//! What a connect to an address of the pool does.

use super::{
    choice::{Candidates, Drawing, Drawn, Families, address, draw, is_v6, survey, zero_bit},
    unrolled::unrolled,
};
use crate::{
    addr::{Ip4Be, Ip6Be, PortBe},
    backend::{BackendId, Health},
    event::Event,
    route::{RouteEntry, Slot},
};

/// The IPv4 pool: contiguous and aligned, so that an address of it is an index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pool4 {
    /// The first address.
    pub base: Ip4Be,
    /// The netmask, in network order.
    pub mask: u32,
}

impl Pool4 {
    /// The pool `base/prefix`. Bits of `base` below the prefix are ignored.
    pub const fn new(base: Ip4Be, prefix: u32) -> Self {
        let mask = match prefix {
            0 => 0,
            1..=32 => (u32::MAX << (32 - prefix)).to_be(),
            _ => u32::MAX,
        };
        Self { base: Ip4Be(base.0 & mask), mask }
    }

    /// The index of `ip`, or nothing for an address outside: one masked comparison, the whole cost of a connect that is not ours.
    #[inline(always)]
    pub const fn index(self, ip: Ip4Be) -> Option<u32> {
        if ip.0 & self.mask == self.base.0 { Some(u32::from_be(ip.0 & !self.mask)) } else { None }
    }
}

/// The IPv6 pool: as many addresses as the IPv4 one, 65,536 at most, so that the last word tells them apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pool6 {
    /// The first address.
    pub base: Ip6Be,
    /// The netmask of the last word, in network order.
    pub mask: u32,
}

impl Pool6 {
    /// The pool of `size4`'s size that begins at `base`. Bits of `base` below its prefix are ignored.
    pub const fn new(base: Ip6Be, size4: Pool4) -> Self {
        let [a, b, c, d] = base.0;
        Self { base: Ip6Be([a, b, c, d & size4.mask]), mask: size4.mask }
    }

    /// The index of `ip`, or nothing for an address outside.
    #[inline(always)]
    pub const fn index(self, ip: Ip6Be) -> Option<u32> {
        let ([a, b, c, d], [e, f, g, h]) = (self.base.0, ip.0);
        if (a ^ e) | (b ^ f) | (c ^ g) | (d ^ (h & self.mask)) == 0 { Some(u32::from_be(h & !self.mask)) } else { None }
    }

    /// The address at `index`.
    #[inline(always)]
    pub const fn at(self, index: u32) -> Ip6Be {
        let [a, b, c, d] = self.base.0;
        Ip6Be([a, b, c, d | (index.to_be() & !self.mask)])
    }
}

/// The tables as a decision reads them, and the two things of the world that it depends on.
pub trait Tables {
    /// The route entry at `index`; one that says "no route" beyond the table's end.
    fn route(&self, index: u32) -> RouteEntry;
    /// The slot at `index`; one of generation 0, which no block has, beyond the table's end.
    fn slot(&self, index: u32) -> Slot;
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
    /// [`find_port()`] with these tables; the kernel's call it as a function of its own, which the verifier checks once.
    fn find_port(&self, ports: Ports, client: PortBe) -> Found {
        find_port(self, ports, client)
    }
    /// [`survey()`] with these tables; as above.
    fn survey(&self, candidates: Candidates, drawn: Drawn) -> Drawing {
        survey(self, candidates, drawn)
    }
    /// [`pick()`] with these tables; as above.
    fn pick(&self, index: u32, client: Client) -> Pick {
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

/// Who asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Client {
    /// The port it asks for.
    pub port: PortBe,
    /// The addresses it can have.
    pub families: Families,
    /// The last backend of this socket ([`BackendId::NONE`]: none).
    pub last: BackendId,
}

/// A [`Client`] in one word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(transparent)]
pub struct Asked(pub u64);

impl Asked {
    const SIX_FIRST: u32 = 16;
    const BOTH: u32 = 17;
    const LAST: u32 = 32;

    /// Of what a client asked.
    #[inline(always)]
    pub const fn new(client: Client) -> Self {
        let Families { six_first, both } = client.families;
        Self(
            client.port.0 as u64
                | (six_first as u64) << Self::SIX_FIRST
                | (both as u64) << Self::BOTH
                | (client.last.0 as u64) << Self::LAST,
        )
    }

    /// The port.
    #[inline(always)]
    pub const fn port(self) -> PortBe {
        PortBe(self.0 as u16)
    }

    /// With the destination's port, and with the family that the backend will have.
    #[inline(always)]
    const fn settled(self, port: PortBe, six: u32) -> Self {
        Self(self.0 & 0xffff_ffff_0000_0000 | (six as u64) << Self::SIX_FIRST | port.0 as u64)
    }

    /// 1 for IPv6 backends, once it is settled.
    #[inline(always)]
    const fn six(self) -> u32 {
        (self.0 >> Self::SIX_FIRST) as u32 & 1
    }

    /// `if six_first { !(both && there are no IPv6 ones) } else { both && there are no IPv4 ones }`, in arithmetic.
    #[inline(always)]
    const fn prefers_six(self, entry: RouteEntry) -> u32 {
        let (six_first, both) = ((self.0 >> Self::SIX_FIRST) as u32, (self.0 >> Self::BOTH) as u32);
        let (no_four, no_six) = (zero_bit(entry.backends4 as u32) as u32, zero_bit(entry.backends6() as u32) as u32);
        (six_first & !(both & no_six) | !six_first & both & no_four) & 1
    }

    #[inline(always)]
    pub(super) const fn last(self) -> BackendId {
        BackendId((self.0 >> Self::LAST) as u32)
    }
}

/// Decides a TCP connect to the pool's address `index`. The backend, if it gets one, is put into `choice`.
///
/// The result goes to a place that is initialised, not into an enum: parts of an enum that are not set make the compiler copy undefined stack,
/// "invalid read from stack off -40+0 size 8" without CAP_PERFMON (6.18).
#[inline(always)]
pub fn connect(tables: &impl Tables, index: u32, client: impl Fn() -> Client, choice: &mut Choice) -> Verdict {
    let mut pick = tables.pick(index, client());
    let mut read = fill(tables, pick, choice);
    if read == Read::Stale {
        // The route's new block.
        pick = tables.pick(index, client());
        read = fill(tables, pick, choice);
    }
    match read {
        Read::Done => Verdict::Redirect,
        _ if pick.passes() => Verdict::Pass,
        _ => Verdict::Refuse,
    }
}

/// A backend for one connect: two words, as they stand in the tables. What is made of them is made where it is used, since each value that is kept
/// over a call takes a place on the stack, and without CAP_PERFMON the kernel puts a barrier behind the first store to each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Choice {
    pick: Pick,
    slot: Slot,
}

impl Choice {
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

    /// It has failed, its time is over, and there is another: nobody else is to try it until this connect's fate is known.
    #[inline(always)]
    pub const fn trial(self) -> bool {
        self.pick.drawing().trial()
    }

    /// Whether the route says more than ports and backends.
    #[inline(always)]
    pub const fn has_options(self) -> bool {
        self.pick.options() != 0
    }

    /// The options of route `index`, with the source address whose turn it is, for a client of `families`. None, if the block was replaced since:
    /// what they were is unknown then, and this connect goes without.
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
        let (before, count) = if is_v6(families, self.slot) { (options.sources4, options.sources6) } else { (0, options.sources4) };
        if count == 0 {
            return extras;
        }
        let turn = tables.turn(index) % u32::from(count);
        let slot = tables.slot(at.wrapping_add(1).wrapping_add(u32::from(before)).wrapping_add(turn));
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

/// Where a reading of a route's block led, in one word: to a backend's slot, or nowhere.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(transparent)]
pub struct Pick(pub u64);

impl Pick {
    const GENERATION: u32 = 24;
    const PORT: u32 = 32;
    /// Slots from the backend's to the options'.
    const OPTIONS: u32 = 48;
    const READ: u32 = 56;
    /// The flags of a [`Drawing`] are moved here.
    const DRAWING: u32 = 50;
    /// [`RouteEntry::PASS`] is moved here.
    const POLICY: u32 = 61;

    const fn passing(entry: RouteEntry) -> Self {
        Self(((entry.policy & RouteEntry::PASS) as u64) << Self::POLICY)
    }

    const fn nowhere(read: Read, entry: RouteEntry) -> Self {
        Self((read.word() as u64) << Self::READ | Self::passing(entry).0)
    }

    const fn slot(self) -> u32 {
        self.0 as u32 & 0x00ff_ffff
    }

    const fn generation(self) -> u8 {
        (self.0 >> Self::GENERATION) as u8
    }

    const fn port(self) -> PortBe {
        PortBe((self.0 >> Self::PORT) as u16)
    }

    const fn options(self) -> u32 {
        (self.0 >> Self::OPTIONS) as u8 as u32
    }

    const fn read(self) -> Read {
        Read::of_word((self.0 >> Self::READ) as u32 & 3)
    }

    const fn drawing(self) -> Drawing {
        Drawing((self.0 >> Self::DRAWING) as u32 & Drawing::FLAGS)
    }

    const fn passes(self) -> bool {
        self.0 >> Self::POLICY & RouteEntry::PASS as u64 != 0
    }
}

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
    let options = if entry.has_options() { entry.options_slot().wrapping_sub(slot) & 0xff } else { 0 };
    Pick(
        u64::from(slot)
            | u64::from(entry.generation) << Pick::GENERATION
            | u64::from(asked.port().0) << Pick::PORT
            | u64::from(options) << Pick::OPTIONS
            | u64::from(drawing.0 & Drawing::FLAGS) << Pick::DRAWING
            | Pick::passing(entry).0,
    )
}

/// What is known of a route and of its client while its block is read: two words.
///
/// After each look at a table everything is worked out [`afresh`](Known::afresh) from them: a value that is kept over it would be stored on the stack,
/// and that costs more, see [`Choice`].
pub(super) struct Known {
    pub(super) entry: RouteEntry,
    pub(super) asked: Asked,
}

impl Known {
    #[inline(always)]
    pub(super) fn afresh(&mut self, tables: &(impl Tables + ?Sized)) {
        self.entry = RouteEntry::of_word(tables.afresh(self.entry.word()));
        self.asked = Asked(tables.afresh(self.asked.0));
    }

    /// The backends of the family that was settled on.
    #[inline(always)]
    pub(super) fn candidates(&self) -> Candidates {
        let (four, six) = (u32::from(self.entry.backends4), u32::from(self.entry.backends6()));
        // All ones for IPv6, or 0.
        let mask = self.asked.six().wrapping_neg();
        Candidates {
            first: self.entry.first_backend().wrapping_add(four & mask),
            count: four ^ (four ^ six) & mask,
            generation: self.entry.generation,
        }
    }
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

/// What reading a part of a block came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Read {
    /// It is there.
    Done,
    /// It is not there.
    None,
    /// The block was replaced under the reader.
    Stale,
}

impl Read {
    pub(super) const fn word(self) -> u32 {
        self as u32
    }

    pub(super) const fn of_word(word: u32) -> Self {
        match word {
            0 => Self::Done,
            1 => Self::None,
            _ => Self::Stale,
        }
    }
}

/// Finds the destination's port for the client's `port`.
#[inline(always)]
fn translate(tables: &(impl Tables + ?Sized), entry: RouteEntry, port: PortBe) -> Found {
    if entry.ports == 0 {
        return Found::at(port);
    }
    tables.find_port(Ports { first: entry.first(), count: u32::from(entry.ports), generation: entry.generation }, port)
}

/// Why a connect to address `index` and `port` gets no backend: one of the `REASON_` constants of [`Event`].
#[inline(always)]
pub fn refusal(tables: &(impl Tables + ?Sized), index: u32, port: PortBe) -> u8 {
    let entry = tables.route(index);
    if !entry.is_present() {
        return Event::REASON_NO_ROUTE;
    }
    if translate(tables, entry, port).read() == Read::None { Event::REASON_PORT } else { Event::REASON_NO_BACKEND }
}

/// The port pairs of a block.
#[derive(Clone, Copy, Debug)]
pub struct Ports {
    /// The first one's slot.
    pub first: u32,
    /// How many; no more than [`MAX_PORTS`](crate::abi::MAX_PORTS) are looked at.
    pub count: u32,
    /// The block's generation.
    pub generation: u8,
}

/// What [`find_port`] found, in one word: the destination's port in the low half, a [`Read`] in the high half.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(transparent)]
pub struct Found(pub u32);

impl Found {
    const STALE: Self = Self(Read::Stale.word() << 16);
    const NONE: Self = Self(Read::None.word() << 16);

    const fn at(port: PortBe) -> Self {
        Self(Read::Done.word() << 16 | port.0 as u32)
    }

    /// The destination's port, when [`Found::read`] says that there is one.
    pub const fn port(self) -> PortBe {
        PortBe(self.0 as u16)
    }

    /// What the search came to.
    pub const fn read(self) -> Read {
        Read::of_word(self.0 >> 16)
    }
}

/// Finds the pair for the port that the client asks for.
#[inline(always)]
pub fn find_port(tables: &(impl Tables + ?Sized), ports: Ports, client: PortBe) -> Found {
    unrolled!(offset in 0..16 {
        if offset >= ports.count {
            break;
        }
        let slot = tables.slot(ports.first.wrapping_add(offset));
        if slot.generation() != ports.generation {
            return Found::STALE;
        }
        if slot.client_port().0 == client.0 {
            return Found::at(slot.destination_port());
        }
    });
    Found::NONE
}

#[cfg(test)]
#[path = "connect_tests.rs"]
mod tests;
