//! Turns a packet for the guest into the guest's own SYN, which comes from its interface once more.

use aya_ebpf::{
    bindings::{__sk_buff, BPF_F_INGRESS},
    helpers::generated::{bpf_redirect, bpf_skb_change_tail, bpf_skb_store_bytes},
};
use redirector_common::packet::flow::BriefFlow;

use super::{
    built::{self, TCP_HEADER},
    flow_tables as tables,
    headers::{BEHIND_IPV4, BEHIND_IPV6},
    rewrite::fold16,
    scratch::work,
    segment::TCP,
    skb::{ETHERNET_LEN, store, swap_macs},
    work::{Work, address, get},
};
use crate::{opaque, verdict::DROP};

const TTL: u64 = 64;
/// "Don't fragment" in an IPv4 header.
const DF: u64 = 0x4000_u16.to_be() as u64;

/// The packet becomes the SYN of the half-open flow at `work.key`.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn rd_resend(skb: *mut __sk_buff) -> i32 {
    let Some(work) = work() else { return DROP };
    // SAFETY: the key is whole.
    let flow = tables::brief(unsafe { &raw const (*work).key });
    if flow.is_null() {
        return DROP;
    }
    let options = u32::from(get!(flow.syn.options_length));
    let octets = TCP_HEADER + options;
    let at = if get!(work.segment.v6) == 0 { BEHIND_IPV4 } else { BEHIND_IPV6 };
    // SAFETY: the helper checks the length.
    if unsafe { bpf_skb_change_tail(skb, at + octets, 0) } as i32 != 0 {
        return DROP;
    }
    let sum = if get!(work.segment.v6) == 0 {
        write_ip4(skb, work, octets)
    } else {
        write_ip6(skb, work, octets)
    };
    if sum == 0 || !write_options(skb, flow, at + TCP_HEADER) {
        return DROP;
    }
    let options = get!(flow.syn.options);
    let sum = sum + built::sum_of(options);
    let ports =
        u64::from(get!(work.key.guest_port.0)) | u64::from(get!(work.key.remote_port.0)) << 16;
    let sequence = get!(flow.flow.initial_sequence).to_be();
    let header = [
        ports | u64::from(sequence) << 32,
        u64::from(octets / 4) << 36
            | u64::from(get!(flow.syn.flags)) << 40
            | u64::from(get!(flow.syn.window)) << 48,
        0,
    ];
    if !built::write(skb, at, header, sum) || !swap_macs(skb) {
        return DROP;
    }
    // SAFETY: the context has this field; the helper takes integers only.
    unsafe { bpf_redirect((*skb).ifindex, BPF_F_INGRESS.into()) as i32 }
}

/// Returns the sum of the pseudo-header, 0 on failure.
#[inline(always)]
fn write_ip4(skb: *mut __sk_buff, work: *mut Work, octets: u32) -> u64 {
    let (source, destination) =
        (u64::from(get!(work.key.guest.0[3])), u64::from(get!(work.key.remote.0[3])));
    let length = u64::from(((BEHIND_IPV4 - ETHERNET_LEN + octets) as u16).to_be());
    let first = 0x45 | length << 16 | DF << 48;
    let second = TTL | u64::from(TCP) << 8 | source << 32;
    let check = !fold16(built::sum_of([first, second, destination])) & 0xffff;
    if !store(skb, ETHERNET_LEN, &[first, second | check << 16, destination], 20) {
        return 0;
    }
    source + destination + built::pseudo_header(octets)
}

/// As [`write_ip4`].
#[inline(always)]
fn write_ip6(skb: *mut __sk_buff, work: *mut Work, octets: u32) -> u64 {
    let ([a, b], [c, d]) = (address!(work.key.guest), address!(work.key.remote));
    let length = u64::from((octets as u16).to_be());
    let header = [0x60 | length << 32 | u64::from(TCP) << 48 | TTL << 56, a, b, c, d];
    if !store(skb, ETHERNET_LEN, &header, BEHIND_IPV6 - ETHERNET_LEN) {
        return 0;
    }
    built::sum_of([a, b, c, d]) + built::pseudo_header(octets)
}

/// Writes the options of the SYN.
#[inline(always)]
fn write_options(skb: *mut __sk_buff, flow: *mut BriefFlow, at: u32) -> bool {
    // Two comparisons that the compiler can't merge: see `rd_first_syn`.
    let length = opaque::number(u64::from(get!(flow.syn.options_length)));
    if length < 4 {
        return true;
    }
    let length = opaque::number(length);
    if length > 40 {
        return false;
    }
    // SAFETY: the field has room for the most options.
    unsafe {
        let options = (&raw const (*flow).syn.options).cast();
        bpf_skb_store_bytes(skb, at, options, length as u32, 0) as i32 == 0
    }
}
