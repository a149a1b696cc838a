//! Where a query comes from, in the bits of one number.

use crate::packet::headers::{BEHIND_IPV4, BEHIND_IPV6};

/// The query is in an IPv4 packet.
pub(crate) const OVER_IPV4: u32 = 0;
/// The query is in an IPv6 packet.
pub(crate) const OVER_IPV6: u32 = 1;
/// The query comes from a guest.
pub(crate) const FROM_GUEST: u32 = 0;
/// The query leaves the host.
pub(crate) const FROM_HOST: u32 = 2;

/// The offset of a query's UDP header.
#[inline(always)]
pub(super) fn udp_at(origin: u32) -> u32 {
    if origin & OVER_IPV6 == 0 { BEHIND_IPV4 } else { BEHIND_IPV6 }
}
