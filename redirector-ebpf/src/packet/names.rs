//! Answers queries for mapped names in place.

use aya_ebpf::bindings::__sk_buff;
use redirector_common::dns::MARK;

use super::NEXT;

/// The query is in an IPv4 packet.
pub(crate) const OVER_IPV4: u32 = 0;
/// The query is in an IPv6 packet.
pub(crate) const OVER_IPV6: u32 = 1;
/// The query comes from a guest.
pub(crate) const FROM_GUEST: u32 = 0;
/// The query leaves the host.
pub(crate) const FROM_HOST: u32 = 2;

/// A whole datagram to port 53.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn rd_query(skb: *mut __sk_buff, origin: u32) -> i32 {
    // SAFETY: the context has this field.
    if origin & FROM_HOST != 0 && unsafe { (*skb).mark } == MARK {
        return NEXT;
    }
    NEXT
}
