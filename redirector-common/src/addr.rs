//! Addresses and ports in network byte order. They are converted once, at the edge.

use crate::table_type::table_type;

/// An IPv4 address whose bytes in memory are in network order, as in `bpf_sock_addr.user_ip4`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(transparent)]
pub struct Ip4Be(pub u32);
table_type!(Ip4Be, 4);

impl Ip4Be {
    /// From `[203, 0, 113, 7]`.
    pub const fn from_octets(octets: [u8; 4]) -> Self {
        Self(u32::from_ne_bytes(octets))
    }

    /// As `[203, 0, 113, 7]`.
    pub const fn octets(self) -> [u8; 4] {
        self.0.to_ne_bytes()
    }

    /// The address as a number in host order: 203.0.113.7 is `0xcb007107`.
    pub const fn to_bits(self) -> u32 {
        u32::from_be(self.0)
    }

    /// The inverse of [`Ip4Be::to_bits`].
    pub const fn from_bits(bits: u32) -> Self {
        Self(bits.to_be())
    }
}

/// A port whose bytes in memory are in network order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(transparent)]
pub struct PortBe(pub u16);
table_type!(PortBe, 2);

impl PortBe {
    /// From a port in host order.
    pub const fn new(port: u16) -> Self {
        Self(port.to_be())
    }

    /// The port in host order.
    pub const fn get(self) -> u16 {
        u16::from_be(self.0)
    }
}

/// An IPv6 address as four words, each with its bytes in network order, as in
/// `bpf_sock_addr.user_ip6`. An IPv4 address has its mapped form, `::ffff:a.b.c.d` (RFC 4291
/// section 2.5.5.2).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(transparent)]
pub struct Ip6Be(pub [u32; 4]);
table_type!(Ip6Be, 16);

/// The third word of every IPv4-mapped address.
pub const MAPPED_WORD: u32 = 0xffff_u32.to_be();

impl Ip6Be {
    /// `::ffff:a.b.c.d`.
    pub const fn mapped(ip: Ip4Be) -> Self {
        Self([0, 0, MAPPED_WORD, ip.0])
    }

    /// Whether it is `::`.
    pub const fn is_unspecified(self) -> bool {
        let [a, b, c, d] = self.0;
        a | b | c | d == 0
    }

    /// Whether both are the same address. Unlike `==`, it has no branches, each of which is one
    /// more state for the verifier.
    #[inline(always)]
    pub const fn is_same(self, other: Self) -> bool {
        let ([a, b, c, d], [e, f, g, h]) = (self.0, other.0);
        (a ^ e) | (b ^ f) | (c ^ g) | (d ^ h) == 0
    }

    /// Whether it is a loopback address, `::1` or a mapped one of 127.0.0.0/8, without a branch.
    #[inline(always)]
    pub const fn is_loopback(self) -> bool {
        let [a, b, c, d] = self.0;
        let six = a | b | c | (d ^ 1_u32.to_be());
        let four =
            a | b | (c ^ MAPPED_WORD) | ((d ^ 0x7f00_0000_u32.to_be()) & 0xff00_0000_u32.to_be());
        (six == 0) | (four == 0)
    }

    /// The IPv4 address, if this is a mapped one.
    pub const fn as_mapped(self) -> Option<Ip4Be> {
        let [a, b, c, d] = self.0;
        if a == 0 && b == 0 && c == MAPPED_WORD { Some(Ip4Be(d)) } else { None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_stay_in_network_order() {
        assert_eq!(Ip4Be::from_octets([203, 0, 113, 7]).octets(), [203, 0, 113, 7]);
        assert_eq!(Ip4Be::from_octets([203, 0, 113, 7]).to_bits(), 0xcb00_7107);
        assert_eq!(Ip4Be::from_bits(0xcb00_7107).octets(), [203, 0, 113, 7]);
        assert_eq!(PortBe::new(443).0.to_ne_bytes(), [0x01, 0xbb]);
        assert_eq!(PortBe::new(443).get(), 443);
    }

    #[test]
    fn loopback_is_one_address_or_one_network() {
        let mapped = |octets| Ip6Be::mapped(Ip4Be::from_octets(octets));
        assert!(Ip6Be([0, 0, 0, 1_u32.to_be()]).is_loopback());
        assert!(mapped([127, 0, 0, 1]).is_loopback() && mapped([127, 9, 8, 7]).is_loopback());
        assert!(!mapped([126, 0, 0, 1]).is_loopback() && !mapped([10, 0, 0, 127]).is_loopback());
        assert!(!Ip6Be([0; 4]).is_loopback() && !Ip6Be([0, 0, 0, 0x7f_u32]).is_loopback());
    }

    #[test]
    fn only_a_mapped_address_has_an_ipv4_form() {
        let ip = Ip4Be::from_octets([198, 18, 0, 1]);
        assert_eq!(Ip6Be::mapped(ip).as_mapped(), Some(ip));
        assert_eq!(Ip6Be([0, 0, 0, ip.0]).as_mapped(), None);
        assert_eq!(Ip6Be([1, 0, MAPPED_WORD, ip.0]).as_mapped(), None);
    }
}
