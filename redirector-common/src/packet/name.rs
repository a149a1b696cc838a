//! Names that are answered by packet. A name is in lower-case wire form (RFC 1035 section 3.1):
//! each label after an octet with its length. The final zero octet is not part of the length.

use crate::table_type::table_type;

/// Octets that a name's field holds: a name has at most 254 and is followed by zeros.
pub const NAME_OCTETS: usize = 256;

/// An exact name. The key of its table is the seeded hash of the name.
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

/// A wildcard, by the octets of its suffix in reverse order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct WildcardEntry {
    /// The route: the VIP's index in the pool.
    pub index: u32,
    /// The bits of [`NameEntry`].
    pub flags: u32,
    /// Octets of the suffix.
    pub length: u64,
}
table_type!(WildcardEntry, 16);

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
}
table_type!(NameSettings, 24);
