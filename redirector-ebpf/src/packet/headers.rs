//! Reads the headers of a frame: Ethernet without an inline tag, then IPv4 or IPv6.
//!
//! A single VLAN tag is in `vlan_tci`, where the kernel has put it, and not in the frame. A frame
//! with two tags has another protocol than IP.

use aya_ebpf::{bindings::__sk_buff, helpers::generated::bpf_skb_pull_data};
use redirector_common::addr::{Ip4Be, Ip6Be, PortBe};

use super::skb::{self, ETHERNET_LEN};

/// How headers are read.
#[derive(Clone, Copy)]
pub(crate) enum Access {
    /// From the packet's memory, which costs 10 ns less. Without CAP_PERFMON older kernels refuse
    /// it: "R3 pointer comparison prohibited" (5.10).
    Direct,
    /// By a helper that copies them.
    Copy,
}

/// `skb->protocol` of IPv4.
pub(crate) const IPV4: u32 = 0x0800_u16.to_be() as u32;
/// `skb->protocol` of IPv6.
pub(crate) const IPV6: u32 = 0x86dd_u16.to_be() as u32;

/// Offset of the header behind an IPv4 header without options.
pub(crate) const BEHIND_IPV4: u32 = ETHERNET_LEN + 20;
/// Offset of the header behind an IPv6 header.
pub(crate) const BEHIND_IPV6: u32 = ETHERNET_LEN + 40;

/// The number of UDP in an IP header.
pub(crate) const UDP: u8 = 17;

/// The port of DNS.
const DNS: PortBe = PortBe::new(53);

/// An IPv4 header as three words as they are in memory, the last two with what follows a header
/// without options: the ports of TCP and UDP.
#[derive(Clone, Copy)]
pub(crate) struct Ipv4 {
    /// Version and length, type of service, total length, identification, fragment.
    pub(crate) first: u64,
    /// Time to live, protocol, checksum, source.
    pub(crate) second: u64,
    /// Destination, ports.
    pub(crate) third: u64,
}

impl Ipv4 {
    /// Of the frame, unless it is too short.
    #[inline(always)]
    pub(crate) fn of(skb: *mut __sk_buff, access: Access) -> Option<Self> {
        if let Access::Copy = access {
            let [first, second, third] = skb::load::<[u64; 3]>(skb, ETHERNET_LEN)?;
            return Some(Self { first, second, third });
        }
        let start = linear(skb, BEHIND_IPV4 + 4)?;
        // SAFETY: these octets are in the packet.
        Some(unsafe {
            Self { first: word::<14>(start), second: word::<22>(start), third: word::<30>(start) }
        })
    }

    /// Octets of the header; none if it has another version, or says to be shorter than it is.
    #[inline(always)]
    pub(crate) fn header_length(self) -> Option<u32> {
        let version_and_words = self.first as u8;
        let is_valid = matches!(version_and_words, 0x45..=0x4f);
        is_valid.then_some(u32::from(version_and_words & 0xf) * 4)
    }

    /// Whether the header has no options.
    #[inline(always)]
    pub(crate) fn has_no_options(self) -> bool {
        self.first as u8 == 0x45
    }

    /// Whether the packet is a fragment: it has an offset, or more fragments follow.
    #[inline(always)]
    pub(crate) fn is_fragment(self) -> bool {
        const OFFSET_AND_MORE: u64 = (0x3fff_u16.to_be() as u64) << 48;
        self.first & OFFSET_AND_MORE != 0
    }

    /// The total length in octets.
    #[inline(always)]
    pub(crate) fn total_length(self) -> u32 {
        u32::from(u16::from_be((self.first >> 16) as u16))
    }

    /// Octets behind a header without options.
    #[inline(always)]
    pub(crate) fn payload_length(self) -> u32 {
        self.total_length().wrapping_sub(BEHIND_IPV4 - ETHERNET_LEN)
    }

    #[inline(always)]
    pub(crate) fn protocol(self) -> u8 {
        (self.second >> 8) as u8
    }

    #[inline(always)]
    pub(crate) fn source(self) -> Ip4Be {
        Ip4Be((self.second >> 32) as u32)
    }

    #[inline(always)]
    pub(crate) fn destination(self) -> Ip4Be {
        Ip4Be(self.third as u32)
    }

    /// The destination's port, if the header has no options.
    #[inline(always)]
    pub(crate) fn destination_port(self) -> PortBe {
        PortBe((self.third >> 48) as u16)
    }

    /// Whether the packet is a whole datagram to port 53.
    #[inline(always)]
    pub(crate) fn is_query(self) -> bool {
        self.protocol() == UDP
            && self.destination_port() == DNS
            && self.has_no_options()
            && !self.is_fragment()
    }
}

/// An IPv6 header as words as they are in memory, with what follows it: the ports of TCP and UDP.
#[derive(Clone, Copy)]
pub(crate) struct Ipv6 {
    /// Version, class and label; payload length, next header, hop limit.
    pub(crate) first: u64,
    pub(crate) source: [u64; 2],
    pub(crate) destination: [u64; 2],
    pub(crate) ports: u32,
}

impl Ipv6 {
    /// Of the frame, unless it is too short.
    #[inline(always)]
    pub(crate) fn of(skb: *mut __sk_buff, access: Access) -> Option<Self> {
        if let Access::Copy = access {
            // From the last octets of the Ethernet header on: whole words only.
            let [head, a, b, c, d, ports] = skb::load::<[u64; 6]>(skb, ETHERNET_LEN - 4)?;
            let [first, source, more, destination, rest] =
                [(head, a), (a, b), (b, c), (c, d), (d, ports)]
                    .map(|(left, right)| left >> 32 | right << 32);
            return Some(Self {
                first,
                source: [source, more],
                destination: [destination, rest],
                ports: (ports >> 32) as u32,
            });
        }
        let start = linear(skb, BEHIND_IPV6 + 4)?;
        // SAFETY: these octets are in the packet.
        Some(unsafe {
            Self {
                first: word::<14>(start),
                source: [word::<22>(start), word::<30>(start)],
                destination: [word::<38>(start), word::<46>(start)],
                ports: (word::<50>(start) >> 32) as u32,
            }
        })
    }

    /// Whether the header has the version that the frame's protocol says.
    #[inline(always)]
    pub(crate) fn is_valid(self) -> bool {
        self.first as u8 >> 4 == 6
    }

    /// Octets behind the header.
    #[inline(always)]
    pub(crate) fn payload_length(self) -> u32 {
        u32::from(u16::from_be((self.first >> 32) as u16))
    }

    /// The protocol behind the header; an extension header is one, too.
    #[inline(always)]
    pub(crate) fn protocol(self) -> u8 {
        (self.first >> 48) as u8
    }

    #[inline(always)]
    pub(crate) fn source(self) -> Ip6Be {
        address(self.source)
    }

    #[inline(always)]
    pub(crate) fn destination(self) -> Ip6Be {
        address(self.destination)
    }

    #[inline(always)]
    pub(crate) fn destination_port(self) -> PortBe {
        PortBe((self.ports >> 16) as u16)
    }

    /// Whether the packet is a whole datagram to port 53.
    #[inline(always)]
    pub(crate) fn is_query(self) -> bool {
        self.protocol() == UDP && self.destination_port() == DNS
    }
}

#[inline(always)]
fn address([left, right]: [u64; 2]) -> Ip6Be {
    Ip6Be([left as u32, (left >> 32) as u32, right as u32, (right >> 32) as u32])
}

/// The start of the frame, with `octets` of it in one piece; none if it is shorter.
///
/// Reading there costs 10 ns less than `bpf_skb_load_bytes`. Earlier starts become invalid.
#[inline(always)]
pub(crate) fn linear(skb: *mut __sk_buff, octets: u32) -> Option<usize> {
    // SAFETY: the context has these fields.
    let (start, end) = unsafe { ((*skb).data as usize, (*skb).data_end as usize) };
    if start + octets as usize <= end {
        return Some(start);
    }
    // SAFETY: as above; the helper fails for a frame that is shorter.
    let (start, end) = unsafe {
        if (*skb).len < octets || bpf_skb_pull_data(skb, octets) != 0 {
            return None;
        }
        ((*skb).data as usize, (*skb).data_end as usize)
    };
    if start + octets as usize <= end { Some(start) } else { None }
}

/// Eight octets of the packet at any alignment. The compiler would read them one by one.
///
/// # Safety
///
/// They are between the start and the end of the packet: the verifier checks it.
#[inline(always)]
pub(crate) unsafe fn word<const AT: usize>(start: usize) -> u64 {
    #[cfg(target_arch = "bpf")]
    {
        let word: u64;
        // SAFETY: reads memory that the verifier has checked.
        unsafe {
            core::arch::asm!(
                "{0} = *(u64 *)({1} + {2})",
                out(reg) word, in(reg) start, const AT,
                options(pure, readonly, nostack)
            );
        }
        word
    }
    #[cfg(not(target_arch = "bpf"))]
    // SAFETY: the caller's promise.
    unsafe {
        core::ptr::read_unaligned((start + AT) as *const u64)
    }
}
