//! Reads a TCP segment and the addresses of its flow into [`Work`].

use aya_ebpf::bindings::__sk_buff;
use redirector_common::{addr::PortBe, packet::flow::FlowKey};

use super::{
    headers::{BEHIND_IPV4, BEHIND_IPV6, Ipv4, Ipv6},
    scratch::work,
    skb::{ETHERNET_LEN, load},
    work::{Work, mapped, set, set_address},
};

/// The number of TCP in an IP header.
pub(crate) const TCP: u8 = 6;

/// A guest has sent the packet.
pub(crate) const FROM_GUEST: u32 = 0;
/// A backend has sent the packet.
pub(crate) const FROM_BACKEND: u32 = 1;

/// Reads an IPv4 packet, which is TCP and no fragment. Returns 0 if it is too short or malformed. A
/// function of its own, as are finding the flow and rewriting: the verifier multiplies the paths of
/// one.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn rd_read4(skb: *mut __sk_buff, from: u32) -> u32 {
    let Some(work) = work() else { return 0 };
    let Some([first, second, third, fourth, fifth]) = load::<[u64; 5]>(skb, ETHERNET_LEN) else {
        return 0;
    };
    let ip = Ipv4 { first, second, third };
    let Some(length) = ip.header_length() else { return 0 };
    let at = ETHERNET_LEN + length;
    let mut tcp = [third >> 32 | fourth << 32, fourth >> 32 | fifth << 32];
    if at != BEHIND_IPV4 {
        let Some(behind_options) = load::<[u64; 2]>(skb, at) else { return 0 };
        tcp = behind_options;
    }
    set!(work.segment.v6 = 0);
    set!(work.segment.check = (ip.second >> 16) as u32 & 0xffff);
    let octets = if ip.total_length() == 0 {
        octets_behind(skb, at)
    } else {
        ip.total_length().wrapping_sub(length)
    };
    read_tcp(work, tcp, at, octets);
    write_key(skb, work, from, (mapped(ip.source()), mapped(ip.destination())));
    1
}

/// As [`rd_read4`], an IPv6 packet without extension headers.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn rd_read6(skb: *mut __sk_buff, from: u32) -> u32 {
    let Some(work) = work() else { return 0 };
    let Some([first, a, b, c, d, tcp @ ..]) = load::<[u64; 7]>(skb, ETHERNET_LEN) else {
        return 0;
    };
    let ip = Ipv6 { first, source: [a, b], destination: [c, d], ports: 0 };
    if !ip.is_valid() {
        return 0;
    }
    set!(work.segment.v6 = 1);
    set!(work.segment.check = 0);
    let octets = if ip.payload_length() == 0 {
        octets_behind(skb, BEHIND_IPV6)
    } else {
        ip.payload_length()
    };
    read_tcp(work, tcp, BEHIND_IPV6, octets);
    write_key(skb, work, from, (ip.source, ip.destination));
    1
}

/// Octets from `at` to the end of the frame: the length of a packet that is too large for its
/// header's field.
#[inline(always)]
fn octets_behind(skb: *mut __sk_buff, at: u32) -> u32 {
    // SAFETY: the context has this field.
    unsafe { (*skb).len }.wrapping_sub(at)
}

/// `octets`: of the header and the data.
#[inline(always)]
fn read_tcp(work: *mut Work, [first, second]: [u64; 2], at: u32, octets: u32) {
    let header_length = (second >> 36) as u32 & 0xf;
    set!(work.segment.ports = first as u32);
    set!(work.segment.sequence = u32::from_be((first >> 32) as u32));
    set!(work.segment.acknowledgment = u32::from_be(second as u32));
    set!(work.segment.at = at);
    set!(work.segment.flags = (second >> 40) as u32 & 0xff);
    set!(work.segment.header_length = header_length * 4);
    set!(work.segment.payload = octets.wrapping_sub(header_length * 4));
    set!(work.segment.window = (second >> 48) as u32);
}

#[inline(always)]
fn write_key(
    skb: *mut __sk_buff,
    work: *mut Work,
    from: u32,
    (source, destination): ([u64; 2], [u64; 2]),
) {
    // SAFETY: read above.
    let ports = unsafe { (*work).segment.ports };
    let (source_port, destination_port) = (PortBe(ports as u16), PortBe((ports >> 16) as u16));
    if from == FROM_GUEST {
        set_address!(work.key.guest = source);
        set_address!(work.key.remote = destination);
        set!(work.key.guest_port = source_port);
        set!(work.key.remote_port = destination_port);
    } else {
        set_address!(work.key.guest = destination);
        set_address!(work.key.remote = source);
        set!(work.key.guest_port = destination_port);
        set!(work.key.remote_port = source_port);
    }
    // The directions of keys have the same numbers.
    set!(work.key.direction = from);
    write_scope(skb, work);
}

/// The interface and the VLAN of a key. Of a tag only the VLAN's ID counts: the priority of a
/// flow's packets may differ.
#[inline(always)]
pub(crate) fn write_scope(skb: *mut __sk_buff, work: *mut Work) {
    // SAFETY: the context has these fields.
    let (interface, present, tag) =
        unsafe { ((*skb).ifindex, (*skb).vlan_present, (*skb).vlan_tci) };
    set!(work.key.interface = interface);
    set!(work.key.vlan = if present == 0 { 0 } else { tag & 0xfff | FlowKey::TAGGED });
}
