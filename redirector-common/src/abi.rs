//! The version of everything that two releases share through pins, and the limits of tables.

use crate::names;

/// Version of the tables' layouts and meanings, and of the pins' names. The pins are under
/// `bpffs/v<ABI>/`.
///
/// Every change of a type that a table holds needs a new version; the test
/// `layout_is_pinned_to_the_version` in [`crate::names`] fails without one.
pub const ABI: u32 = 5;

/// Tables whose layout or meaning changed after [`FIRST`], with the version of the latest change.
/// An upgrade keeps using every pinned table, with its counters, that has not changed since the
/// version that created it, and recreates the others. A table that is new since [`FIRST`] needs no
/// entry.
pub const CHANGED: &[(&str, u32)] = &[
    (names::SHIM, 4),
    (names::RESOLVERS, 4),
    (names::DNS_STATS, 4),
    (names::HEALTH, 4),
    (names::INTERFACE_FLOWS, 5),
    (names::ROUTE_STATS, 5),
    (names::BACKEND_STATS, 5),
    (names::NAMES, 5),
    (names::NAME_SETTINGS, 5),
];

/// The version since which tables that are not in [`CHANGED`] have been the same. An upgrade shares
/// nothing with older versions.
pub const FIRST: u32 = 2;

/// The most port pairs of a route that the programs compare.
pub const MAX_PORTS: usize = 16;

/// The most backends of a route that the programs consider.
pub const MAX_BACKENDS: usize = 64;

/// The most source addresses of a route.
pub const MAX_SOURCES: usize = 15;

/// Elements of the slot table for each address of the pool, on average: port pairs, backends, and
/// room for the blocks of the next plan.
pub const SLOTS_PER_VIP: u32 = 8;

/// Backend IDs for each address of the pool, on average.
pub const BACKENDS_PER_VIP: u32 = 2;

/// Further slots and backend IDs of every pool, so that even the smallest one has room for two
/// versions of a route with the most ports and backends.
pub const SMALLEST_TABLE: u32 = 1024;

/// Elements of the slot table for a pool of `pool` addresses.
pub const fn slots(pool: u32) -> u32 {
    pool.saturating_mul(SLOTS_PER_VIP).saturating_add(SMALLEST_TABLE)
}

/// Elements of the backend tables for a pool of `pool` addresses; below the 2²³ that
/// [`crate::backend::BackendId`] can represent.
pub const fn backends(pool: u32) -> u32 {
    let wanted = pool.saturating_mul(BACKENDS_PER_VIP).saturating_add(SMALLEST_TABLE);
    if wanted > crate::backend::BackendId::MAX { crate::backend::BackendId::MAX } else { wanted }
}
