//! The packet datapath, at the traffic-control hook of interfaces.

mod maps;

use aya_ebpf::programs::TcContext;

/// The verdict that leaves a packet to the next program: TCX_NEXT and TC_ACT_UNSPEC.
pub(crate) const NEXT: i32 = -1;

#[inline(always)]
pub(crate) fn ingress(_ctx: &TcContext) -> i32 {
    NEXT
}

#[inline(always)]
pub(crate) fn egress(_ctx: &TcContext) -> i32 {
    NEXT
}

#[inline(always)]
pub(crate) fn host_egress(_ctx: &TcContext) -> i32 {
    NEXT
}
