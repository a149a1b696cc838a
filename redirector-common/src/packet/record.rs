//! The records of a reply in words as they are in memory. Their owner is the question's name. They
//! are octet for octet those of the user-space authority.

use crate::addr::{Ip4Be, Ip6Be};

/// The type of an IPv4 address.
pub const A: u16 = 1;
/// The type of the start of a zone.
pub const SOA: u16 = 6;
/// The type of a reverse name's target.
pub const PTR: u16 = 12;
/// The type of an IPv6 address.
pub const AAAA: u16 = 28;
/// The type of the EDNS record.
pub const OPT: u16 = 41;
/// The type that asks for any record.
pub const ANY: u16 = 255;
/// The class of the Internet.
pub const IN: u16 = 1;

/// Octets of an A record.
pub const A_LEN: u32 = 16;
/// Octets of an AAAA record.
pub const AAAA_LEN: u32 = 28;
/// Octets of an SOA record.
pub const SOA_LEN: u32 = 35;
/// Octets of a PTR record before its name.
pub const PTR_HEAD: u32 = 12;
/// Octets of an OPT record.
pub const OPT_LEN: u32 = 11;

/// The UDP payload size that replies announce: the value of the DNS flag day 2020.
pub const EDNS_PAYLOAD: u16 = 1232;

/// A compression pointer to the question's name, behind the 12 octets of the header.
const QUESTION: u64 = 0x0cc0;
/// [`IN`] as it is in memory.
const CLASS: u64 = IN.to_be() as u64;

/// A record's name, type and class, and the first half of its TTL.
#[inline(always)]
const fn head(record_type: u16, ttl: u32) -> u64 {
    QUESTION | (record_type.to_be() as u64) << 16 | CLASS << 32 | (ttl.to_be() as u64) << 48
}

/// The second half of a TTL and the length of the data.
#[inline(always)]
const fn tail(ttl: u32, length: u16) -> u64 {
    (ttl.to_be() as u64) >> 16 | (length.to_be() as u64) << 16
}

/// An A record.
#[inline(always)]
pub const fn a(ttl: u32, address: Ip4Be) -> [u64; 2] {
    [head(A, ttl), tail(ttl, 4) | (address.0 as u64) << 32]
}

/// An AAAA record, with four zero octets behind it.
#[inline(always)]
pub const fn aaaa(ttl: u32, address: Ip6Be) -> [u64; 4] {
    let [a, b, c, d] = address.0;
    [head(AAAA, ttl), tail(ttl, 16) | (a as u64) << 32, b as u64 | (c as u64) << 32, d as u64]
}

/// The first twelve octets of a PTR record whose name has `length` octets, then four zero octets.
#[inline(always)]
pub const fn ptr(ttl: u32, length: u16) -> [u64; 2] {
    [head(PTR, ttl), tail(ttl, length)]
}

/// An SOA record that lets a client cache a negative answer for `ttl` seconds (RFC 2308 section 3),
/// with five zero octets behind it. Its zone is the question's name, since the parent's is not
/// ours; its mailbox is the root, so there is none.
#[inline(always)]
pub const fn soa(ttl: u32) -> [u64; 5] {
    // Serial 1, refresh 3600, retry 600, expire 86400.
    const NUMBERS: u64 = u64::from_le_bytes([0, 0, 1, 0, 0, 14, 16, 0]);
    const EXPIRE: u64 = u64::from_le_bytes([0, 2, 88, 0, 1, 81, 128, 0]);
    let minimum = ttl.to_be() as u64;
    [head(SOA, ttl), tail(ttl, 23) | QUESTION << 32, NUMBERS, EXPIRE | minimum << 56, minimum >> 8]
}

/// An OPT record with the upper bits of the response code and the client's DO bit (0x80 or 0), with
/// five zero octets behind it.
#[inline(always)]
pub const fn opt(upper_code: u8, dnssec_ok: u8) -> [u64; 2] {
    let head = (OPT.to_be() as u64) << 8 | (EDNS_PAYLOAD.to_be() as u64) << 24;
    [head | (upper_code as u64) << 40 | (dnssec_ok as u64) << 56, 0]
}

#[cfg(test)]
mod tests {
    use std::vec::Vec;

    use super::*;

    fn octets(words: &[u64]) -> Vec<u8> {
        words.iter().flat_map(|word| word.to_le_bytes()).collect()
    }

    #[test]
    fn records_are_in_network_order() {
        let head = |record_type: u8, length: u8| {
            [0xc0, 12, 0, record_type, 0, 1, 0x12, 0x34, 0x56, 0x78, 0, length].to_vec()
        };
        let ttl = 0x1234_5678;
        let ip = Ip4Be::from_octets([198, 18, 0, 7]);
        assert_eq!(octets(&a(ttl, ip)), [head(1, 4), [198, 18, 0, 7].to_vec()].concat());
        let ip = Ip6Be([1, 2, 3, 4].map(u32::to_be));
        let address = [0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 3, 0, 0, 0, 4];
        assert_eq!(octets(&aaaa(ttl, ip))[..28], [head(28, 16), address.to_vec()].concat());
        assert_eq!(octets(&ptr(ttl, 17))[..12], head(12, 17));
        let numbers = [1, 3600, 600, 86400, ttl].map(u32::to_be_bytes).concat();
        let expected = [head(6, 23), [0xc0, 12, 0].to_vec(), numbers, [0; 5].to_vec()].concat();
        assert_eq!(octets(&soa(ttl)), expected);
        assert_eq!(octets(&opt(1, 0x80)), [0, 0, 41, 4, 208, 1, 0, 0x80, 0, 0, 0, 0, 0, 0, 0, 0]);
    }
}
