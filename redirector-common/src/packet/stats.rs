//! Counters of the packet datapath.

use crate::table_type::table_type;

/// Declares the counters once: the struct and their names.
macro_rules! packet_counters {
    ($($(#[$doc:meta])* $name:ident,)+) => {
        /// Counters of the packet datapath, in the only element of their table. Each changes by
        /// atomic additions only.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        #[cfg_attr(feature = "user", derive(serde::Serialize, serde::Deserialize))]
        #[cfg_attr(feature = "user", serde(default))]
        #[repr(C)]
        pub struct PacketStats {
            $($(#[$doc])* pub $name: u64,)+
        }

        impl PacketStats {
            /// The counters' names, in the order of the fields.
            pub const NAMES: &[&str] = &[$(stringify!($name),)+];

            /// The counters with their names.
            pub fn iter(&self) -> impl Iterator<Item = (&'static str, u64)> + use<> {
                Self::NAMES.iter().copied().zip([$(self.$name),+])
            }
        }
    };
}

packet_counters! {
    /// Queries answered with a VIP.
    names_answered,
    /// Queries answered with no record of their type.
    names_nodata,
    /// Queries for a VIP's reverse name that were answered.
    names_reverse,
    /// Queries answered with SERVFAIL, since the route has no backend yet.
    names_servfail,
    /// Queries for a mapped name that could not be answered in place and were left alone.
    names_failed,
    /// Flows that were moved to another backend since the first one refused or did not answer.
    flows_moved,
    /// Flows whose source port was translated, since the backend's side of it was in use.
    ports_translated,
    /// New flows refused since the table of flows was full.
    flows_full,
    /// New flows refused since their interface had too many.
    interface_over_limit,
    /// Packets to the pool answered with a reset.
    resets_sent,
    /// Fragments to the pool, which are left alone.
    fragments,
    /// ICMP errors that were translated.
    icmp_translated,
    /// Packets dropped since they could not be rewritten.
    rewrite_failed,
}
table_type!(PacketStats, 104);
