//! The version of everything that two binaries of different age share through pins.

/// Version of the table layouts, their meaning, and the names of the pins. The pins live under
/// `bpffs/v<ABI>/`.
///
/// It moves with every change of a type in this crate that a map holds;
/// `layout_is_pinned_to_the_version` in [`crate::names`] notices.
pub const ABI: u32 = 3;

/// Tables whose layout or meaning changed after [`FIRST`], with the version of the latest change.
/// An upgrade goes on with every pinned table that has not changed since the version that made it,
/// counters and all, and makes the others anew; so a changed layout belongs in here. A table that
/// an older version did not have needs no place: it is made, and the counters beside it go on.
pub const CHANGED: &[(&str, u32)] = &[];

/// The version that every table not in [`CHANGED`] has had its layout and its meaning since.
/// Nothing of older versions is taken over.
pub const FIRST: u32 = 2;

/// Port pairs that one route can have: the programs compare at most this many.
pub const MAX_PORTS: usize = 16;

/// Backends that one route can have: the programs look at most at this many.
pub const MAX_BACKENDS: usize = 64;

/// Source addresses that one route can have.
pub const MAX_SOURCES: usize = 15;

/// Slots of [`crate::route::Slot`] for each address of the pool, on average: port pairs, backends,
/// and room for the blocks of the next plan.
pub const SLOTS_PER_VIP: u32 = 8;

/// Backend numbers for each address of the pool, on average.
pub const BACKENDS_PER_VIP: u32 = 2;

/// Slots and backend numbers that even the smallest pool has, so that one route can be full twice
/// over.
pub const SMALLEST_TABLE: u32 = 1024;

/// Entries of the slot table for a pool of `pool` addresses.
pub const fn slots(pool: u32) -> u32 {
    pool.saturating_mul(SLOTS_PER_VIP).saturating_add(SMALLEST_TABLE)
}

/// Entries of the backend tables for a pool of `pool` addresses; below the 2²³ that
/// [`crate::backend::BackendId`] can number.
pub const fn backends(pool: u32) -> u32 {
    let wanted = pool.saturating_mul(BACKENDS_PER_VIP).saturating_add(SMALLEST_TABLE);
    if wanted > crate::backend::BackendId::MAX { crate::backend::BackendId::MAX } else { wanted }
}
