//! Checksums of TCP and UDP in a frame.

use aya_ebpf::{
    bindings::{__sk_buff, BPF_F_MARK_MANGLED_0, BPF_F_PSEUDO_HDR},
    helpers::generated::bpf_l4_csum_replace,
};

/// Adjusts the checksum at `at` after a change of the data by `difference`, a sum of 16-bit words.
/// A checksum of the pseudo-header alone stays, and so does that of UDP without one.
#[inline(always)]
pub(crate) fn add(skb: *mut __sk_buff, at: u32, difference: u64) -> bool {
    // SAFETY: the context; the helper checks the offset.
    unsafe { bpf_l4_csum_replace(skb, at, 0, difference, BPF_F_MARK_MANGLED_0.into()) == 0 }
}

/// Adjusts the checksum at `at` after a change of the pseudo-header by `difference`.
#[inline(always)]
pub(crate) fn add_to_pseudo_header(skb: *mut __sk_buff, at: u32, difference: u64) -> bool {
    let flags = u64::from(BPF_F_MARK_MANGLED_0 | BPF_F_PSEUDO_HDR);
    // SAFETY: as above.
    unsafe { bpf_l4_csum_replace(skb, at, 0, difference, flags) == 0 }
}
