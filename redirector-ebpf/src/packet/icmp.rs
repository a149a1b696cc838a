//! ICMP errors about a guest's flow: the packet that they quote, and their own address if it is the
//! backend's or the VIP's, are translated. An error about a SYN also speaks against its backend. A
//! guest's error that goes elsewhere than to the sender of what it quotes is left alone.

use aya_ebpf::bindings::{__sk_buff, BPF_F_PSEUDO_HDR};
use redirector_common::{
    addr::{Ip4Be, PortBe},
    packet::flow::{FlowKey, FlowState},
};

use super::{
    attempt::Failure,
    flow_tables as tables,
    headers::{Access, BEHIND_IPV6, Ipv4, Ipv6},
    maps::RD_PACKET_STATS,
    refusal, replies,
    rewrite::{add, address_difference, difference, fold16, fold32},
    scratch::work,
    segment::{TCP, write_scope},
    skb::{ETHERNET_LEN, load, store},
    work::{Work, address, copy_address, get, mapped, set, set_address},
};

use crate::{
    maps, opaque,
    verdict::{CONTINUE, DROP, NEXT},
};

/// The error is about what the guest has received.
pub(crate) const FROM_GUEST: u32 = 0;
/// The error is about what the guest has sent.
pub(crate) const TO_GUEST: u32 = 1;

/// Octets of an ICMP header.
const HEADER: u32 = 8;
/// Offset of the checksum in it.
const CHECK: u32 = 2;

// Types of ICMP (RFC 792) and ICMPv6 (RFC 4443).
const UNREACHABLE4: u8 = 3;
const TIME_EXCEEDED4: u8 = 11;
const PARAMETER_PROBLEM4: u8 = 12;
/// A code of [`UNREACHABLE4`]: the packet is too large for a link.
const FRAGMENTATION_NEEDED: u8 = 4;
const UNREACHABLE6: u8 = 1;
const PARAMETER_PROBLEM6: u8 = 4;

/// The addresses and the first word of the TCP header that an error quotes.
struct Quote {
    source: [u64; 2],
    destination: [u64; 2],
    /// Ports and sequence number.
    tcp: u64,
    /// The error says that the packet did not arrive.
    is_unreachable: bool,
    v6: u32,
}

/// An ICMP message to the pool ([`FROM_GUEST`]) or to a guest ([`TO_GUEST`]).
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn rd_icmp4(skb: *mut __sk_buff, direction: u32) -> i32 {
    let Some(work) = work() else { return NEXT };
    let Some(outer) = Ipv4::of(skb, Access::Copy) else { return NEXT };
    let Some(length) = outer.header_length() else { return NEXT };
    let at = ETHERNET_LEN + length;
    let Some(header) = load::<u64>(skb, at) else { return NEXT };
    let (kind, code) = (header as u8, (header >> 8) as u8);
    if kind != UNREACHABLE4 && kind != TIME_EXCEEDED4 && kind != PARAMETER_PROBLEM4 {
        return NEXT;
    }
    let quoted = at + HEADER;
    let Some([first, second, third]) = load::<[u64; 3]>(skb, quoted) else { return NEXT };
    let inner = Ipv4 { first, second, third };
    let Some(length) = inner.header_length() else { return NEXT };
    let inner_tcp = quoted + length;
    let Some(tcp) = load::<u64>(skb, inner_tcp) else { return NEXT };
    if inner.protocol() != TCP || direction == FROM_GUEST && outer.destination() != inner.source() {
        return NEXT;
    }
    let quote = Quote {
        source: mapped(inner.source()),
        destination: mapped(inner.destination()),
        tcp,
        is_unreachable: kind == UNREACHABLE4 && code != FRAGMENTATION_NEEDED,
        v6: 0,
    };
    let verdict = find(skb, work, &quote, direction);
    if verdict != CONTINUE {
        return verdict;
    }
    let (old, new) = (get!(work.key.remote.0[3]), get!(work.target.peer.0[3]));
    let check = !(inner.second >> 16) & 0xffff;
    let check = !fold16(check + difference(old, new)) & 0xffff;
    let address_at = quoted + if direction == FROM_GUEST { 12 } else { 16 };
    // The change of the quoted address and that of the quoted header's checksum cancel out.
    let done = store(skb, quoted + 10, &check, 2)
        && store(skb, address_at, &u64::from(new), 4)
        && replace_ports(skb, work, (at + CHECK, inner_tcp), (tcp as u32, direction))
        && replace_outer4(skb, outer, (Ip4Be(old), Ip4Be(new)), direction);
    finish(done)
}

/// The error's own address, where it is that of the quoted packet's other side.
#[inline(always)]
fn replace_outer4(
    skb: *mut __sk_buff,
    outer: Ipv4,
    (old, new): (Ip4Be, Ip4Be),
    direction: u32,
) -> bool {
    let (mut source, mut destination) = (outer.source(), outer.destination());
    if direction == FROM_GUEST {
        destination = new;
    } else if source == old {
        source = new;
    } else {
        return true;
    }
    let check = (!(outer.second >> 16) & 0xffff) + difference(old.0, new.0);
    let check = !fold16(check) & 0xffff;
    let (source, destination) = (u64::from(source.0), u64::from(destination.0));
    let header = [check | source << 16 | destination << 48, destination >> 16];
    store(skb, ETHERNET_LEN + 10, &header, 10)
}

/// As [`rd_icmp4`], for ICMPv6.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn rd_icmp6(skb: *mut __sk_buff, direction: u32) -> i32 {
    let Some(work) = work() else { return NEXT };
    let Some(outer) = Ipv6::of(skb, Access::Copy) else { return NEXT };
    let Some(header) = load::<u64>(skb, BEHIND_IPV6) else { return NEXT };
    let kind = header as u8;
    if kind.wrapping_sub(UNREACHABLE6) > PARAMETER_PROBLEM6 - UNREACHABLE6 {
        return NEXT;
    }
    let quoted = BEHIND_IPV6 + HEADER;
    let Some([first, a, b, c, d]) = load::<[u64; 5]>(skb, quoted) else { return NEXT };
    let inner = Ipv6 { first, source: [a, b], destination: [c, d], ports: 0 };
    if !outer.is_valid() || !inner.is_valid() {
        return NEXT;
    }
    let inner_tcp = quoted + 40;
    let Some(tcp) = load::<u64>(skb, inner_tcp) else { return NEXT };
    if inner.protocol() != TCP || direction == FROM_GUEST && outer.destination != inner.source {
        return NEXT;
    }
    let quote = Quote {
        source: inner.source,
        destination: inner.destination,
        tcp,
        is_unreachable: kind == UNREACHABLE6,
        v6: 1,
    };
    let verdict = find(skb, work, &quote, direction);
    if verdict != CONTINUE {
        return verdict;
    }
    let (old, new) = (address!(work.key.remote), address!(work.target.peer));
    let change = address_difference(old, new);
    let (inner_at, outer_at, outer_address) = if direction == FROM_GUEST {
        (quoted + 8, ETHERNET_LEN + 24, outer.destination)
    } else {
        (quoted + 24, ETHERNET_LEN + 8, outer.source)
    };
    let done = add(skb, BEHIND_IPV6 + CHECK, change, 0)
        && store(skb, inner_at, &new, 16)
        && replace_ports(skb, work, (BEHIND_IPV6 + CHECK, inner_tcp), (tcp as u32, direction))
        && (outer_address != old
            || add(skb, BEHIND_IPV6 + CHECK, change, BPF_F_PSEUDO_HDR)
                && store(skb, outer_at, &new, 16));
    finish(done)
}

/// Finds the flow of the quoted packet. [`CONTINUE`]: its other side is `work.target`.
#[inline(always)]
fn find(skb: *mut __sk_buff, work: *mut Work, quote: &Quote, direction: u32) -> i32 {
    let (source_port, destination_port) =
        (PortBe(quote.tcp as u16), PortBe((quote.tcp >> 16) as u16));
    if direction == FROM_GUEST {
        set_address!(work.key.guest = quote.destination);
        set_address!(work.key.remote = quote.source);
        set!(work.key.guest_port = destination_port);
        set!(work.key.remote_port = source_port);
        set!(work.key.direction = FlowKey::FORWARD);
    } else {
        set_address!(work.key.guest = quote.source);
        set_address!(work.key.remote = quote.destination);
        set!(work.key.guest_port = source_port);
        set!(work.key.remote_port = destination_port);
        set!(work.key.direction = FlowKey::REVERSE);
    }
    write_scope(skb, work);
    set!(work.segment.v6 = quote.v6);
    // SAFETY: the key is whole.
    let flow = tables::any(unsafe { &raw const (*work).key });
    if flow.is_null() {
        return NEXT;
    }
    copy_address!(work.target.peer = flow.peer);
    set!(work.target.peer_port = get!(flow.peer_port));
    set!(work.target.guest_port = get!(flow.guest_port));
    if direction == TO_GUEST && quote.is_unreachable {
        return rd_undeliverable(skb, u32::from_be((quote.tcp >> 32) as u32));
    }
    CONTINUE
}

/// A packet of the guest with this sequence number did not arrive.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn rd_undeliverable(skb: *mut __sk_buff, sequence: u32) -> i32 {
    let Some(work) = work() else { return NEXT };
    replies::to_forward(work);
    let flow = replies::own_flow(work);
    let mut verdict = CONTINUE;
    if !flow.is_null() && get!(flow.initial_sequence) == sequence {
        let state: FlowState = get!(flow.state);
        if state.is_half_open() {
            verdict = refusal::rd_refused(skb, Failure::Unreachable as u32);
        }
    }
    replies::to_reverse(work);
    verdict
}

/// `check` and `ports`: offsets; `old`: the quoted ports.
#[inline(always)]
fn replace_ports(
    skb: *mut __sk_buff,
    work: *mut Work,
    (check, ports): (u32, u32),
    (old, direction): (u32, u32),
) -> bool {
    let (guest, peer) =
        (u32::from(get!(work.target.guest_port.0)), u32::from(get!(work.target.peer_port.0)));
    let new = if direction == FROM_GUEST { peer | guest << 16 } else { guest | peer << 16 };
    add(skb, check, fold32(difference(old, new)), 0) && store(skb, ports, &u64::from(new), 4)
}

#[inline(always)]
fn finish(done: bool) -> i32 {
    // Choosing one of two counters would be arithmetic on a pointer that differs by path.
    let done = opaque::number(u64::from(done));
    if let Some(stats) = maps::counters(&RD_PACKET_STATS, 0) {
        maps::add(&mut stats.icmp_translated, done);
        maps::add(&mut stats.rewrite_failed, opaque::number(done ^ 1));
    }
    if done == 0 { DROP } else { NEXT }
}
