//! The pools of virtual addresses (VIPs), in which an address is an index.

use crate::addr::{Ip4Be, Ip6Be};

/// The IPv4 pool: contiguous and aligned, so that the bits below the netmask are an index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pool4 {
    /// The first address.
    pub base: Ip4Be,
    /// The netmask, in network order.
    pub mask: u32,
}

impl Pool4 {
    /// The pool `base/prefix`. Bits of `base` below the prefix are ignored.
    pub const fn new(base: Ip4Be, prefix: u32) -> Self {
        let mask = match prefix {
            0 => 0,
            1..=32 => (u32::MAX << (32 - prefix)).to_be(),
            _ => u32::MAX,
        };
        Self { base: Ip4Be(base.0 & mask), mask }
    }

    /// The index of `ip`, or none for an address outside: one masked comparison, which is all that
    /// a connect elsewhere costs.
    #[inline(always)]
    pub const fn index(self, ip: Ip4Be) -> Option<u32> {
        if ip.0 & self.mask == self.base.0 { Some(u32::from_be(ip.0 & !self.mask)) } else { None }
    }
}

/// The IPv6 pool: as many addresses as the IPv4 one, at most 65,536, so that they differ in the
/// last word only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pool6 {
    /// The first address.
    pub base: Ip6Be,
    /// The netmask of the last word, in network order.
    pub mask: u32,
}

impl Pool6 {
    /// The pool of the size of `size4` that begins at `base`. Bits of `base` below the prefix are
    /// ignored.
    pub const fn new(base: Ip6Be, size4: Pool4) -> Self {
        let [a, b, c, d] = base.0;
        Self { base: Ip6Be([a, b, c, d & size4.mask]), mask: size4.mask }
    }

    /// The index of `ip`, or none for an address outside.
    #[inline(always)]
    pub const fn index(self, ip: Ip6Be) -> Option<u32> {
        let ([a, b, c, d], [e, f, g, h]) = (self.base.0, ip.0);
        if (a ^ e) | (b ^ f) | (c ^ g) | (d ^ (h & self.mask)) == 0 {
            Some(u32::from_be(h & !self.mask))
        } else {
            None
        }
    }

    /// The address at `index`.
    #[inline(always)]
    pub const fn at(self, index: u32) -> Ip6Be {
        let [a, b, c, d] = self.base.0;
        Ip6Be([a, b, c, d | (index.to_be() & !self.mask)])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pool_is_one_masked_comparison() {
        let pool = Pool4::new(Ip4Be::from_octets([198, 18, 0, 0]), 16);
        assert_eq!(pool.index(Ip4Be::from_octets([198, 18, 0, 0])), Some(0));
        assert_eq!(pool.index(Ip4Be::from_octets([198, 18, 1, 2])), Some(258));
        assert_eq!(pool.index(Ip4Be::from_octets([198, 18, 255, 255])), Some(65535));
        assert_eq!(pool.index(Ip4Be::from_octets([198, 19, 0, 0])), None);
        assert_eq!(pool.index(Ip4Be::from_octets([198, 17, 255, 255])), None);
        assert_eq!(
            Pool4::new(Ip4Be::from_octets([10, 0, 0, 9]), 32)
                .index(Ip4Be::from_octets([10, 0, 0, 9])),
            Some(0)
        );
    }

    #[test]
    fn the_ipv6_pool_is_as_large_as_the_ipv4_one() {
        let base = Ip6Be([0xfd00_u32.to_be(), 3, 5, 0x1_0000_u32.to_be()]);
        let pool = Pool6::new(base, Pool4::new(Ip4Be::from_octets([198, 18, 0, 0]), 16));
        let last = |word: u32| Ip6Be([base.0[0], 3, 5, word.to_be()]);
        assert_eq!(
            (pool.index(last(0x1_0000)), pool.index(last(0x1_0102)), pool.index(last(0x1_ffff))),
            (Some(0), Some(258), Some(65535))
        );
        assert_eq!(
            (
                pool.index(last(0xffff)),
                pool.index(last(0x2_0000)),
                pool.index(Ip6Be([0, 0, 0, base.0[3]]))
            ),
            (None, None, None)
        );
        assert_eq!((pool.at(0), pool.at(258)), (base, last(0x1_0102)));
        for word in 0..4 {
            let mut words = base.0;
            words[word] ^= 1;
            assert_eq!(pool.index(Ip6Be(words)), None, "{word}");
        }
        // Differences in two words do not cancel each other.
        for (one, other) in [(0, 1), (0, 2), (0, 3), (1, 2), (1, 3), (2, 3)] {
            let mut words = base.0;
            words[one] ^= 1;
            words[other] ^= 1;
            assert_eq!(pool.index(Ip6Be(words)), None, "{one} and {other}");
        }
    }
}
