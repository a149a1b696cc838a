//! The filter of names: one bit for each hash of an exact name, and for each hash of the last
//! octets of a wildcard's zone. Most queries are for other names, and end here instead of in the
//! tables, whose elements are in no cache.
//!
//! A name may pass without being mapped. Each name and zone has its bits before it is in its table.

use super::octets::mix;

/// Bits for each address of the pool: one of eight other names passes if the pool is full, and the
/// filter of a pool of 65,536 addresses takes 64 KiB.
const BITS_PER_ADDRESS: u32 = 8;
/// Addresses that share a word.
const ADDRESSES_PER_WORD: u32 = u64::BITS / BITS_PER_ADDRESS;

/// Words of the filter for a pool of `addresses`, which are a power of two.
pub const fn words(addresses: u32) -> u32 {
    last_word(addresses.wrapping_sub(1)) + 1
}

/// The last word of the filter for a pool with this last index.
#[inline(always)]
pub const fn last_word(last_index: u32) -> u32 {
    last_index / ADDRESSES_PER_WORD
}

/// The word of a hash, and the bit in it.
#[inline(always)]
pub const fn place(hash: u64, last_word: u32) -> (u32, u64) {
    ((hash >> 6) as u32 & last_word, 1 << (hash & 63))
}

/// The last sixteen octets of a name in lower case, in memory order.
pub type Tail = [u64; 2];

/// The hash of the last octets of a zone of at least sixteen octets, and of a name below it.
#[inline(always)]
pub const fn sixteen(seed: u64, tail: Tail) -> u64 {
    mix(mix(seed, tail[0]), tail[1])
}

/// The hash of the last octets of a zone of eight to fifteen octets, and of a name below it.
#[inline(always)]
pub const fn eight(seed: u64, tail: Tail) -> u64 {
    mix(seed, tail[1])
}

/// Bits of [`super::name::NameSettings::zones`]: lengths that some wildcard's zone has.
pub mod lengths {
    /// Less than eight octets: too short for the filter, so every name passes.
    pub const SHORT: u64 = 1;
    /// Eight to fifteen octets.
    pub const EIGHT: u64 = 2;
    /// At least sixteen octets.
    pub const SIXTEEN: u64 = 4;

    /// The bit of a zone of `octets`.
    pub const fn of(octets: u64) -> u64 {
        match octets {
            0..8 => SHORT,
            8..16 => EIGHT,
            _ => SIXTEEN,
        }
    }
}

/// The hash for the zone of `length` octets with this tail; none if the zone is too short.
pub const fn of_zone(seed: u64, tail: Tail, length: u64) -> Option<u64> {
    match lengths::of(length) {
        lengths::SHORT => None,
        lengths::EIGHT => Some(eight(seed, tail)),
        _ => Some(sixteen(seed, tail)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::names::Name;

    #[test]
    fn every_pool_has_words() {
        assert_eq!([1, 2, 4, 8, 256, 65_536].map(words), [1, 1, 1, 1, 32, 8192]);
        for last in [0, 1, 31, 8191] {
            for hash in [0, u64::MAX, 0x1234_5678_9abc_def0] {
                let (word, bit) = place(hash, last);
                assert!(word <= last && bit.count_ones() == 1);
            }
        }
    }

    #[test]
    fn a_name_has_the_hash_of_its_zone() {
        for (zone, name) in [
            ("internal.company.net", "art.internal.company.net"),
            ("company.net", "a.b.company.net"),
            ("fifteen.octets", "x.fifteen.octets"),
            ("a.company.nets0", "b.a.company.nets0"),
            ("ab.cde", "x.ab.cde"),
        ] {
            let [zone, name] = [zone, name].map(|text| Name::new(text).unwrap());
            let hash = zone.zone_hash(7);
            let of_name = [eight(7, name.tail()), sixteen(7, name.tail())];
            assert_eq!(hash.is_none(), zone.length() < 8);
            assert!(hash.is_none_or(|hash| of_name[usize::from(zone.length() >= 16)] == hash));
        }
    }
}
