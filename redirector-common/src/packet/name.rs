//! Names that are answered by packet. A name is in lower-case wire form (RFC 1035 section 3.1):
//! each label after an octet with its length. The final zero octet is not part of the length.

use crate::table_type::table_type;

/// Octets that a name's field holds: a name has at most 254 and is followed by zeros.
pub const NAME_OCTETS: usize = 256;

/// Octets of the longest name that is a [`ShortEntry`].
pub const SHORT_OCTETS: u64 = 56;

/// An exact name of at most [`SHORT_OCTETS`] octets. The key of its table is the seeded hash of the
/// name.
///
/// With the kernel's header and the key, an element takes 128 octets, of which the second half is
/// this one: two cache lines instead of the eight of a [`NameEntry`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct ShortEntry {
    /// The route: the VIP's index in the pool.
    pub index: u32,
    /// `FLAG_` bits of [`NameEntry`].
    pub flags: u16,
    /// Octets of the name.
    pub length: u16,
    /// The name, padded with zeros.
    pub name: [u64; SHORT_OCTETS as usize / 8],
}
table_type!(ShortEntry, 64);

/// A longer exact name, by the seeded hash of the name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct NameEntry {
    /// The route: the VIP's index in the pool.
    pub index: u32,
    /// `FLAG_` bits.
    pub flags: u32,
    /// Octets of the name.
    pub length: u64,
    /// The name, padded with zeros; in words, since the programs compare words.
    pub name: [u64; NAME_OCTETS / 8],
}
table_type!(NameEntry, 272);

impl NameEntry {
    /// The route has no backend yet: the answer is SERVFAIL.
    pub const FLAG_PENDING: u32 = 1;
}

/// The wildcards of a zone, by the octets of the zone's name in reverse order: `**.zone`, `*.zone`
/// or both. An element of an agent that knew `**.zone` only has no other bits or octets set.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct WildcardEntry {
    /// The route of `**.zone`: the VIP's index in the pool.
    pub index: u32,
    /// `FLAG_` bits.
    pub flags: u32,
    /// Octets of the zone's name.
    pub length: u32,
    /// The route of `*.zone`: the VIP's index in the pool.
    pub label_index: u32,
}
table_type!(WildcardEntry, 16);

impl WildcardEntry {
    /// The route of `**.zone` has no backend yet: the answer is SERVFAIL.
    pub const FLAG_PENDING: u32 = NameEntry::FLAG_PENDING;
    /// There is no `**.zone`.
    pub const FLAG_NOT_DEEP: u32 = 2;
    /// There is `*.zone`.
    pub const FLAG_LABEL: u32 = 4;
    /// The route of `*.zone` has no backend yet.
    pub const FLAG_LABEL_PENDING: u32 = 8;

    /// The index and the flags of [`NameEntry`] for a name below the zone, none if no wildcard of
    /// the zone matches it. `one_label`: the name has one label more than the zone.
    #[inline(always)]
    pub const fn select(&self, one_label: bool) -> Option<(u32, u32)> {
        if one_label && self.flags & Self::FLAG_LABEL != 0 {
            let pending = (self.flags & Self::FLAG_LABEL_PENDING != 0) as u32;
            return Some((self.label_index, pending * NameEntry::FLAG_PENDING));
        }
        if self.flags & Self::FLAG_NOT_DEEP != 0 {
            return None;
        }
        Some((self.index, self.flags & Self::FLAG_PENDING))
    }
}

/// The source of a VIP, for questions about its reverse name. The key is the VIP's index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct ReverseEntry {
    /// Octets of the name, with its final zero octet.
    pub length: u64,
    /// The name; that of a wildcard begins with the label `*`.
    pub name: [u64; NAME_OCTETS / 8],
}
table_type!(ReverseEntry, 264);

/// The only element of the table with the settings of names.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct NameSettings {
    /// The seed of the names' hash. It changes after every name is in the table by its hash with
    /// the new seed, too.
    pub seed: u64,
    /// Bit n is set when some attached cgroup is at level n of the hierarchy; the root is level 0.
    pub cgroup_levels: u64,
    /// The TTL of answers in seconds.
    pub ttl: u32,
    /// 1 when names are answered by packet.
    pub enabled: u32,
    /// The lengths of the wildcards' zones: bits of [`super::name_filter::lengths`].
    pub zones: u64,
}
table_type!(NameSettings, 32);
