//! Reverse names (RFC 1035 section 3.5, RFC 3596 section 2.5): the address that one stands for.

use crate::addr::{Ip4Be, Ip6Be};

/// Octets of `in-addr.arpa` in wire form without its final zero.
pub const SUFFIX4: u64 = 13;
/// The last eight octets of `in-addr.arpa`.
pub const SUFFIX4_LAST: u64 = u64::from_le_bytes(*b"ddr\x04arpa");
/// The five before them.
pub const SUFFIX4_FIRST: u64 = u64::from_le_bytes(*b"\x07in-a\0\0\0");
/// The last eight octets of `ip6.arpa`; the one before them is 3.
pub const SUFFIX6_LAST: u64 = u64::from_le_bytes(*b"ip6\x04arpa");
/// Octets of the reverse name of an IPv6 address without its final zero.
pub const NAME6: u64 = 64 + 9;

/// The address of four labels with decimal numbers, which are the first `length` octets of the two
/// words.
#[inline(always)]
pub const fn address4(first: u64, second: u64, length: u64) -> Option<Ip4Be> {
    let (mut word, mut rest, mut left, mut address) = (first, second, length, 0);
    let mut octet = 0;
    while octet < 4 {
        let digits = word & 0xff;
        let Some(number) = decimal(digits, word >> 8) else { return None };
        address |= (number as u32) << (8 * octet);
        left = left.wrapping_sub(digits + 1);
        // At most 32 of 64 bits, and more than none.
        let shift = 8 * (digits + 1);
        word = word >> shift | rest << (64 - shift);
        rest >>= shift;
        octet += 1;
    }
    if left == 0 { Some(Ip4Be::from_bits(address)) } else { None }
}

/// The number of one to three digits, which begin in the lowest octet: at most 255, without leading
/// zeros.
#[inline(always)]
const fn decimal(digits: u64, text: u64) -> Option<u64> {
    let (a, b, c) = (digit(text), digit(text >> 8), digit(text >> 16));
    let (number, largest, first) = match digits {
        1 => (a, a, 1),
        2 => (a * 10 + b, larger(a, b), a),
        3 => (a * 100 + b * 10 + c, larger(larger(a, b), c), a),
        _ => return None,
    };
    if largest > 9 || first == 0 || number > 255 { None } else { Some(number) }
}

/// The digit in the lowest octet; above 9 for another character.
#[inline(always)]
const fn digit(text: u64) -> u64 {
    (text & 0xff).wrapping_sub(b'0' as u64) & 0xff
}

#[inline(always)]
const fn larger(a: u64, b: u64) -> u64 {
    if a > b { a } else { b }
}

/// The four hexadecimal digits of four labels in lower case, which are a word; the first one has
/// the lowest bits. None if they are anything else.
#[inline(always)]
pub const fn digits6(word: u64) -> Option<u64> {
    const LANES: u64 = 0x0001_0001_0001_0001;
    let digits = word >> 8 & (0xff * LANES);
    let letters = digits >> 6 & LANES;
    let values = (digits & (0xf * LANES)) + 9 * letters;
    let above_9 = (values + 6 * LANES) >> 4 & LANES;
    let text = values + u64::from_le_bytes([b'0', 0, b'0', 0, b'0', 0, b'0', 0]) + 0x27 * above_9;
    let is_labels = word & (0xff * LANES) == LANES;
    // A 'g' would be the digit 16.
    if is_labels && text == digits && values & (0x10 * LANES) == 0 {
        Some((values | values >> 12 | values >> 24 | values >> 36) & 0xffff)
    } else {
        None
    }
}

/// The address of the eight numbers of [`digits6`], from the first labels to the last.
#[inline(always)]
pub const fn address6(numbers: [u64; 8]) -> Ip6Be {
    let [a, b, c, d, e, f, g, h] = numbers;
    const fn word(upper: u64, lower: u64) -> u32 {
        ((upper << 16 | lower) as u32).to_be()
    }
    Ip6Be([word(h, g), word(f, e), word(d, c), word(b, a)])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn four(labels: &[u8]) -> Option<[u8; 4]> {
        let mut octets = [b'.'; 16];
        octets[..labels.len()].copy_from_slice(labels);
        let word = |at: usize| u64::from_le_bytes(octets[at..at + 8].try_into().unwrap());
        address4(word(0), word(8), labels.len() as u64).map(Ip4Be::octets)
    }

    #[test]
    fn four_decimal_labels_are_an_address() {
        assert_eq!(four(b"\x011\x010\x0218\x03198"), Some([198, 18, 0, 1]));
        assert_eq!(four(b"\x03255\x03255\x03255\x03255"), Some([255; 4]));
        assert_eq!(four(b"\x010\x010\x010\x010"), Some([0; 4]));
        for wrong in [
            &b"\x0201\x010\x010\x010"[..],
            b"\x03256\x010\x010\x010",
            b"\x011\x010\x0218\x04198 ",
            b"\x011\x010\x0218\x03",
            b"\x01a\x010\x0218\x03198",
            b"\x021:\x010\x0218\x03198",
            b"\x0300a\x010\x0218\x03198",
            b"\x03001\x010\x0218\x03198",
            b"\x011\x010\x0218\x03198\x01",
            b"\x00\x010\x0218\x03198",
        ] {
            assert_eq!(four(wrong), None, "{wrong:?}");
        }
    }

    #[test]
    fn each_octet_is_checked() {
        for octet in 0..=u8::MAX {
            let expected = octet.is_ascii_digit().then(|| [9, 8, 7, octet - b'0']);
            assert_eq!(four(&[1, octet, 1, b'7', 1, b'8', 1, b'9']), expected);
        }
        for number in 0..1000_u32 {
            let text = std::format!("{number}");
            let labels = [&[text.len() as u8][..], text.as_bytes(), b"\x010\x010\x010"].concat();
            let expected = u8::try_from(number).ok().map(|number| [0, 0, 0, number]);
            assert_eq!(four(&labels), expected);
        }
    }

    #[test]
    fn sixteen_bits_are_four_hexadecimal_labels() {
        for number in 0..=u16::MAX {
            let text = std::format!("{number:04x}");
            let mut labels = [1; 8];
            for (at, digit) in text.bytes().rev().enumerate() {
                labels[2 * at + 1] = digit;
            }
            assert_eq!(digits6(u64::from_le_bytes(labels)), Some(number.into()));
        }
        for octet in 0..=u8::MAX {
            for at in 0..8 {
                let mut labels = *b"\x010\x01f\x019\x01a";
                labels[at] = octet;
                let is_digit = octet.is_ascii_digit() || matches!(octet, b'a'..=b'f');
                let expected = if at % 2 == 0 { octet == 1 } else { is_digit };
                assert_eq!(digits6(u64::from_le_bytes(labels)).is_some(), expected, "{labels:?}");
            }
        }
        let ip = address6([0x7, 0, 0, 0, 0, 0, 0x18, 0xfd00]);
        assert_eq!(ip.0.map(u32::from_be), [0xfd00_0018, 0, 0, 7]);
    }
}
