//! Reads and writes octets of a frame by helpers, wherever they are in memory.

use core::mem::MaybeUninit;

use aya_ebpf::{
    bindings::__sk_buff,
    helpers::generated::{bpf_skb_load_bytes, bpf_skb_store_bytes},
};

/// Octets of the Ethernet header: the offset of the IP header.
pub(crate) const ETHERNET_LEN: u32 = 14;

/// The plain data at an offset: whole words of 64 bits, or "attempt to corrupt spilled pointer on
/// stack" (5.10 and 6.1).
#[inline(always)]
pub(crate) fn load<T: Copy>(skb: *const __sk_buff, at: u32) -> Option<T> {
    const { assert!(size_of::<T>().is_multiple_of(8)) };
    let mut value = MaybeUninit::<T>::uninit();
    // SAFETY: the helper writes all of `value`, or fails.
    unsafe {
        let size = size_of::<T>() as u32;
        let result = bpf_skb_load_bytes(skb.cast(), at, value.as_mut_ptr().cast(), size);
        if result == 0 { Some(value.assume_init()) } else { None }
    }
}

/// Writes the first `octets` of `value` at an offset. Returns whether it did.
#[inline(always)]
pub(crate) fn store<T: Copy>(skb: *mut __sk_buff, at: u32, value: &T, octets: u32) -> bool {
    // SAFETY: callers pass at most the size of `value`, a constant that the verifier checks.
    unsafe { bpf_skb_store_bytes(skb, at, (&raw const *value).cast(), octets, 0) == 0 }
}

/// Exchanges the Ethernet addresses.
#[inline(always)]
pub(crate) fn swap_macs(skb: *mut __sk_buff) -> bool {
    let Some([first, second]) = load::<[u64; 2]>(skb, 0) else { return false };
    let (destination, source) = (first & 0xffff_ffff_ffff, first >> 48 | second << 16);
    let swapped = [source & 0xffff_ffff_ffff | destination << 48, destination >> 16];
    store(skb, 0, &swapped, ETHERNET_LEN - 2)
}
