//! Writes TCP headers of our own.

use aya_ebpf::bindings::__sk_buff;

use super::{
    rewrite::{self, TCP_CHECK, fold16},
    segment::TCP,
    skb::{load, store},
};

/// Octets of a TCP header without options.
pub(crate) const TCP_HEADER: u32 = 20;

/// The sum of a pseudo-header's protocol and length; both families have the same.
#[inline(always)]
pub(crate) fn pseudo_header(octets: u32) -> u64 {
    u64::from(u16::from(TCP).to_be()) + u64::from((octets as u16).to_be())
}

/// The sum of words, of which each addend has 32 bits.
#[inline(always)]
pub(crate) fn sum_of<const N: usize>(words: [u64; N]) -> u64 {
    words.iter().fold(0, |sum, word| sum + (word & 0xffff_ffff) + (word >> 32))
}

/// Writes a header without options and its checksum at `at`; `sum`: of everything else that the
/// checksum covers, the pseudo-header included.
#[inline(always)]
pub(crate) fn write(skb: *mut __sk_buff, at: u32, header: [u64; 3], sum: u64) -> bool {
    let Some(partial) = is_partial(skb, at) else { return false };
    let [first, second, _] = header;
    let check = if partial { fold16(sum) } else { !fold16(sum + sum_of([first, second])) & 0xffff };
    store(skb, at, &[first, second, check], TCP_HEADER)
}

/// Whether the device completes the checksum of the header at `at` (CHECKSUM_PARTIAL): see
/// [`super::checksum::is_partial`]. Overwrites it.
#[inline(always)]
fn is_partial(skb: *mut __sk_buff, at: u32) -> Option<bool> {
    const PROBE: u64 = 0x1234;
    if !store(skb, at + TCP_CHECK, &PROBE, 2) || !rewrite::add(skb, at + TCP_CHECK, 1, 0) {
        return None;
    }
    Some(load::<u64>(skb, at + TCP_CHECK - 6)? >> 48 == PROBE)
}
