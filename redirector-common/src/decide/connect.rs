//! What a connect to an address of the pool does.

use super::choice::{Choice, choose};
use crate::{
    abi::MAX_PORTS,
    addr::{Ip4Be, PortBe},
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

/// The tables as a decision reads them, and the two things of the world that it depends on.
pub trait Tables {
    /// The route entry at `index`; nothing beyond the table's end.
    fn route(&self, index: u32) -> Option<RouteEntry>;
    /// The slot at `index`; nothing beyond the table's end.
    fn slot(&self, index: u32) -> Option<Slot>;
    /// The health of backend `id`.
    fn health(&self, id: BackendId) -> Health;
    /// `CLOCK_MONOTONIC` in nanoseconds. Asked only when a backend has failed before.
    fn now_ns(&self) -> u64;
    /// A uniformly distributed number.
    fn random(&self) -> u32;
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

/// Decides a TCP connect to the pool's address `index` at `port`, by a socket whose last backend was `last` ([`BackendId::NONE`]: none).
#[inline(always)]
pub fn connect(tables: &impl Tables, index: u32, port: PortBe, last: BackendId) -> Verdict {
    let mut entry = RouteEntry::default();
    for _ in 0..READS {
        entry = match tables.route(index) {
            Some(entry) if entry.is_present() => entry,
            _ => return Verdict::Refuse,
        };
        match translate(tables, entry, port) {
            Lookup::Stale => continue,
            Lookup::None => break,
            Lookup::Found(port) => match choose(tables, entry, last) {
                Lookup::Stale => continue,
                Lookup::None => break,
                Lookup::Found(mut choice) => {
                    choice.port = port;
                    return Verdict::Redirect(choice);
                }
            },
        }
    }
    if entry.passes() { Verdict::Pass } else { Verdict::Refuse }
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
        match tables.slot(entry.first.wrapping_add(offset)) {
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
    use super::*;
    use crate::decide::choice::test_tables::TestTables;

    const VIP: u32 = 7;

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
}
