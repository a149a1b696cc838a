//! What a connect to an address of the pool does.

use super::choice::{Choice, Families, address, choose};
use crate::{
    abi::MAX_PORTS,
    addr::{Ip4Be, Ip6Be, PortBe},
    backend::{BackendId, Health},
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
    /// The route entry at `index`; nothing beyond the table's end.
    fn route(&self, index: u32) -> Option<RouteEntry>;
    /// The slot at `index`; nothing beyond the table's end.
    fn slot(&self, index: u32) -> Option<Slot>;
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
}

/// Goes round again when the block was replaced under the reader.
macro_rules! or_again {
    ($lookup:expr) => {
        match $lookup {
            Lookup::Stale => continue,
            other => other,
        }
    };
}

/// What a connect does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It goes to a backend.
    Redirect(Choice),
    /// It is refused at once.
    Refuse,
    /// It is left alone, since the route says so.
    Pass,
}

/// A block can be replaced while it is read; the next read of the entry finds its successor. More than this many in a row do not happen.
const READS: u32 = 2;

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

/// Decides a TCP connect to the pool's address `index`.
#[inline(always)]
pub fn connect(tables: &impl Tables, index: u32, client: Client) -> Verdict {
    let mut entry = RouteEntry::default();
    for _ in 0..READS {
        entry = match tables.route(index) {
            Some(entry) if entry.is_present() => entry,
            _ => return Verdict::Refuse,
        };
        let Lookup::Found(port) = or_again!(translate(tables, entry, client.port)) else { break };
        let Lookup::Found(mut choice) = or_again!(choose(tables, entry, client.families, client.last)) else { break };
        choice.port = port;
        if entry.has_options() {
            let Lookup::Found(extra) = or_again!(options(tables, entry, index, (client.families, choice.address.as_mapped().is_some())))
            else {
                break;
            };
            choice.idle_seconds = extra.idle_seconds;
            choice.source = extra.source;
        }
        return Verdict::Redirect(choice);
    }
    if entry.passes() { Verdict::Pass } else { Verdict::Refuse }
}

/// What a block's options come to for one connect.
struct Extra {
    idle_seconds: u16,
    source: Ip6Be,
}

/// The options, with the source address whose turn it is.
#[inline(always)]
fn options(tables: &impl Tables, entry: RouteEntry, index: u32, (families, four): (Families, bool)) -> Lookup<Extra> {
    let at = entry.options_slot();
    let options = match tables.slot(at) {
        Some(slot) if slot.generation() == entry.generation => slot.as_options(),
        _ => return Lookup::Stale,
    };
    let (before, count) = if four { (0, options.sources4) } else { (options.sources4, options.sources6) };
    let Some(turn) = tables.turn(index).checked_rem(u32::from(count)) else {
        return Lookup::Found(Extra { idle_seconds: options.idle_seconds, source: Ip6Be::default() });
    };
    match tables.slot(at.wrapping_add(1).wrapping_add(u32::from(before)).wrapping_add(turn)) {
        Some(slot) if slot.generation() == entry.generation => {
            Lookup::Found(Extra { idle_seconds: options.idle_seconds, source: address(tables, families, slot) })
        }
        _ => Lookup::Stale,
    }
}

/// What reading a block came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lookup<T> {
    /// It is there.
    Found(T),
    /// It is not there.
    None,
    /// The block was replaced under the reader.
    Stale,
}

/// The destination's port for the client's `port`.
#[inline(always)]
fn translate(tables: &impl Tables, entry: RouteEntry, port: PortBe) -> Lookup<PortBe> {
    if entry.ports == 0 {
        return Lookup::Found(port);
    }
    for offset in 0..MAX_PORTS as u32 {
        if offset >= u32::from(entry.ports) {
            return Lookup::None;
        }
        match tables.slot(entry.first().wrapping_add(offset)) {
            Some(slot) if slot.generation() == entry.generation => {
                if slot.client_port().0 == port.0 {
                    return Lookup::Found(slot.destination_port());
                }
            }
            _ => return Lookup::Stale,
        }
    }
    Lookup::None
}

#[cfg(test)]
mod tests {
    extern crate std;

    use super::*;
    use crate::decide::choice::test_tables::TestTables;

    const VIP: u32 = 7;

    fn connect(tables: &TestTables, index: u32, port: PortBe, last: BackendId) -> Verdict {
        super::connect(tables, index, Client { port, families: Families::ONLY4, last })
    }

    #[test]
    fn the_pool_is_one_masked_comparison() {
        let pool = Pool4::new(Ip4Be::from_octets([198, 18, 0, 0]), 16);
        assert_eq!(pool.index(Ip4Be::from_octets([198, 18, 0, 0])), Some(0));
        assert_eq!(pool.index(Ip4Be::from_octets([198, 18, 1, 2])), Some(258));
        assert_eq!(pool.index(Ip4Be::from_octets([198, 18, 255, 255])), Some(65535));
        assert_eq!(pool.index(Ip4Be::from_octets([198, 19, 0, 0])), None);
        assert_eq!(pool.index(Ip4Be::from_octets([198, 17, 255, 255])), None);
        assert_eq!(Pool4::new(Ip4Be::from_octets([10, 0, 0, 9]), 32).index(Ip4Be::from_octets([10, 0, 0, 9])), Some(0));
    }

    #[test]
    fn a_vip_without_a_route_is_refused() {
        assert_eq!(connect(&TestTables::default(), VIP, PortBe::new(443), BackendId::NONE), Verdict::Refuse);
    }

    #[test]
    fn without_a_port_list_every_port_passes_unchanged() {
        let tables = TestTables::with_route(VIP, &[], &[1], 0);
        for port in [1, 443, 65535] {
            let Verdict::Redirect(choice) = connect(&tables, VIP, PortBe::new(port), BackendId::NONE) else { panic!("not redirected") };
            assert_eq!(choice.port.get(), port);
        }
    }

    #[test]
    fn a_listed_port_is_mapped_and_any_other_is_refused() {
        let tables = TestTables::with_route(VIP, &[(443, 443), (80, 8080)], &[1], 0);
        let port = |asked| match connect(&tables, VIP, PortBe::new(asked), BackendId::NONE) {
            Verdict::Redirect(choice) => Some(choice.port.get()),
            _ => None,
        };
        assert_eq!((port(443), port(80), port(8080), port(22)), (Some(443), Some(8080), None, None));
    }

    #[test]
    fn pass_leaves_alone_what_refuse_refuses() {
        let pass = RouteEntry::PASS;
        assert_eq!(connect(&TestTables::with_route(VIP, &[(443, 443)], &[1], pass), VIP, PortBe::new(22), BackendId::NONE), Verdict::Pass);
        assert_eq!(connect(&TestTables::with_route(VIP, &[], &[], pass), VIP, PortBe::new(443), BackendId::NONE), Verdict::Pass);
        assert_eq!(connect(&TestTables::with_route(VIP, &[], &[], 0), VIP, PortBe::new(443), BackendId::NONE), Verdict::Refuse);
    }

    #[test]
    fn a_block_that_was_replaced_meanwhile_is_read_again() {
        let mut tables = TestTables::with_route(VIP, &[(443, 443)], &[1], 0);
        tables.flip_after_first_read(VIP);
        let Verdict::Redirect(choice) = connect(&tables, VIP, PortBe::new(443), BackendId::NONE) else { panic!("not redirected") };
        assert_eq!(choice.address, TestTables::address(9));
    }

    #[test]
    fn the_ipv6_pool_is_as_large_as_the_ipv4_one() {
        let base = Ip6Be([0xfd00_u32.to_be(), 0, 0, 0x1_0000_u32.to_be()]);
        let pool = Pool6::new(base, Pool4::new(Ip4Be::from_octets([198, 18, 0, 0]), 16));
        let last = |word: u32| Ip6Be([base.0[0], 0, 0, word.to_be()]);
        assert_eq!((pool.index(last(0x1_0000)), pool.index(last(0x1_0102)), pool.index(last(0x1_ffff))), (Some(0), Some(258), Some(65535)));
        assert_eq!((pool.index(last(0xffff)), pool.index(last(0x2_0000)), pool.index(Ip6Be([0, 0, 0, base.0[3]]))), (None, None, None));
        assert_eq!((pool.at(0), pool.at(258)), (base, last(0x1_0102)));
    }

    #[test]
    fn sources_of_the_backends_family_are_taken_in_turn() {
        let tables = TestTables::with_options(VIP, &[1, 101], 350, &[2, 3, 4, 102, 103]);
        let sources = |families| -> std::vec::Vec<Ip6Be> {
            let client = Client { port: PortBe::new(443), families, last: BackendId::NONE };
            let source = |_| match super::connect(&tables, VIP, client) {
                Verdict::Redirect(choice) => {
                    assert_eq!(choice.idle_seconds, 350);
                    choice.source
                }
                other => panic!("{other:?}"),
            };
            (0..6).map(source).collect()
        };
        let [two, three, four] = [2, 3, 4].map(TestTables::address);
        assert_eq!(sources(Families::ONLY4), [three, four, two, three, four, two]);
        let [two, three] = [102, 103].map(TestTables::address);
        assert_eq!(sources(Families { six_first: true, both: true }), [three, two, three, two, three, two]);
        let tables = TestTables::with_options(VIP, &[1], 0, &[]);
        let Verdict::Redirect(choice) = connect(&tables, VIP, PortBe::new(443), BackendId::NONE) else { panic!("not redirected") };
        assert_eq!((choice.source, choice.idle_seconds), (Ip6Be::default(), 0));
    }
}
