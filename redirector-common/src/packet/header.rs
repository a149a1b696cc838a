//! The headers of a reply in words as they are in memory: of DNS with UDP, and of IP with Ethernet.

use super::checksum::{complement, fold, negated, sum};

/// The first octets of a UDP datagram with a DNS message: ports, length and checksum; ID, flags,
/// count of questions and of answers; the other two counts, then four octets of the question.
pub type QueryHead = [u64; 3];

/// Octets of the UDP header.
pub const UDP_LEN: u32 = 8;
/// Octets of the UDP header and the DNS header.
pub const HEAD_LEN: u32 = UDP_LEN + 12;

/// The octet with RD, TC, AA, the opcode and QR is the lower one in memory.
const RD: u64 = 0x0001;
const AA: u64 = 0x0004;
const OPCODE_AND_QR: u64 = 0x00f8;
const QR: u64 = 0x0080;
const CD: u64 = 0x1000;
const RA: u64 = 0x8000;
const SERVFAIL: u64 = 0x0200;
/// The number 1 in network order.
const ONE: u64 = 0x0100;

/// The result that a reply's header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReplyCode {
    /// No error: the reply is authoritative.
    NoError,
    /// The query's EDNS version is unknown; the rest of the code is in the OPT record.
    BadVersion,
    /// The name has no address yet.
    ServFail,
}

/// Whether this is a query with one question, no records, and at most one additional record.
#[inline(always)]
pub const fn is_plain_query([_, flags, counts]: QueryHead) -> bool {
    const MASK: u64 = OPCODE_AND_QR << 16 | 0xffff << 32 | 0xffff << 48;
    (flags & MASK == ONE << 32) & (counts as u32 & !((ONE as u32) << 16) == 0)
}

/// Whether it has an additional record.
#[inline(always)]
pub const fn has_additional([_, _, counts]: QueryHead) -> bool {
    counts as u32 != 0
}

/// The length of the datagram.
#[inline(always)]
pub const fn udp_length([ports, _, _]: QueryHead) -> u32 {
    u16::from_be((ports >> 32) as u16) as u32
}

/// The records of a reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counts {
    /// Records in the answer section, 0 or 1.
    pub answers: u64,
    /// Records in the authority section, 0 or 1.
    pub authorities: u64,
    /// Records in the additional section, 0 or 1.
    pub additional: u64,
}

/// The head of the reply to a query: ports exchanged, the checksum unchanged. As the user-space
/// authority does, it copies RD and CD, sets RA, and never sets AD.
#[inline(always)]
pub const fn reply_head(
    query: QueryHead,
    length: u32,
    code: ReplyCode,
    counts: Counts,
) -> QueryHead {
    let [ports, flags, rest] = query;
    let code = match code {
        ReplyCode::NoError => AA,
        ReplyCode::BadVersion => 0,
        ReplyCode::ServFail => SERVFAIL,
    };
    let word = flags >> 16 & (RD | CD) | QR | RA | code;
    let length = (length as u16).to_be() as u64;
    [
        ports >> 16 & 0xffff | (ports & 0xffff) << 16 | length << 32 | ports & 0xffff << 48,
        flags & 0xffff | word << 16 | ONE << 32 | (counts.answers * ONE) << 48,
        (counts.authorities * ONE) | (counts.additional * ONE) << 16 | rest & !0xffff_ffff,
    ]
}

/// The sum of a head without its checksum.
#[inline(always)]
pub const fn head_sum([ports, flags, counts]: QueryHead) -> u64 {
    sum(ports & 0xffff_ffff_ffff) + sum(flags) + (counts & 0xffff_ffff)
}

/// The difference of two heads, for the checksum.
#[inline(always)]
pub const fn head_difference(query: QueryHead, reply: QueryHead) -> u64 {
    fold(head_sum(reply)) + negated(head_sum(query))
}

/// The difference that the datagram's length makes in the pseudo-header.
#[inline(always)]
pub const fn length_difference(query: QueryHead, reply: QueryHead) -> u64 {
    fold((reply[0] >> 32 & 0xffff) + negated(query[0] >> 32 & 0xffff))
}

/// Octets of an Ethernet and an IPv4 header.
pub const FRAME4_LEN: u32 = 34;
/// Octets of an Ethernet and an IPv6 header.
pub const FRAME6_LEN: u32 = 54;
/// Time to live and hop limit of replies.
const HOPS: u64 = 64;

/// The Ethernet and IPv4 headers of the reply to a packet without options, with this total length.
#[inline(always)]
pub const fn reply_frame4(frame: [u64; 5], length: u32) -> [u64; 5] {
    let [_, _, middle, _, _] = frame;
    let [first, second] = swapped_macs(frame[0], frame[1]);
    let source = frame[3] >> 16 & 0xffff_ffff;
    let destination = frame[3] >> 48 | (frame[4] & 0xffff) << 16;
    let length = (length as u16).to_be() as u64;
    let middle = middle & 0xff00_ffff_ffff_0000 | length | HOPS << 48;
    let total = (second >> 48) + sum(middle) + source + destination;
    let checksum = complement(total) as u64;
    let third = checksum | destination << 16 | source << 48;
    [first, second, middle, third, frame[4] & !0xffff | source >> 16]
}

/// The Ethernet and IPv6 headers of the reply to a packet, with this payload length.
#[inline(always)]
pub const fn reply_frame6(frame: [u64; 7], length: u32) -> [u64; 7] {
    let [_, _, c, d, e, f, g] = frame;
    let [first, second] = swapped_macs(frame[0], frame[1]);
    let source = [c >> 48 | d << 16, d >> 48 | e << 16];
    let destination = [e >> 48 | f << 16, f >> 48 | g << 16];
    let length = (length as u16).to_be() as u64;
    let head = c & 0xffff | length << 16 | c & 0xff << 32 | HOPS << 40;
    [
        first,
        second,
        head | destination[0] << 48,
        destination[0] >> 16 | destination[1] << 48,
        destination[1] >> 16 | source[0] << 48,
        source[0] >> 16 | source[1] << 48,
        g & !0xffff_ffff_ffff | source[1] >> 16,
    ]
}

/// The first 16 octets of a frame with its Ethernet addresses exchanged.
#[inline(always)]
pub const fn swapped_macs(first: u64, second: u64) -> [u64; 2] {
    let destination = first & 0xffff_ffff_ffff;
    let source = first >> 48 | (second & 0xffff_ffff) << 16;
    [source | destination << 48, second & !0xffff_ffff | destination >> 16]
}

#[cfg(test)]
mod tests {
    use std::vec::Vec;

    use super::*;

    fn words<const N: usize>(octets: &[u8]) -> [u64; N] {
        let mut padded = octets.to_vec();
        padded.resize(N * 8, 0xee);
        core::array::from_fn(|at| {
            u64::from_le_bytes(padded[at * 8..][..8].try_into().expect("eight octets"))
        })
    }

    fn octets(words: &[u64]) -> Vec<u8> {
        words.iter().flat_map(|word| word.to_le_bytes()).collect()
    }

    const QUERY: [u8; 24] = [
        0x9c, 0x40, 0, 53, 0, 40, 0xab, 0xcd, 0x12, 0x34, 0x01, 0x30, 0, 1, 0, 0, 0, 0, 0, 1, 3,
        b'a', b'r', b't',
    ];

    #[test]
    fn the_head_keeps_id_rd_and_cd() {
        let query = words::<3>(&QUERY);
        assert!(is_plain_query(query) && has_additional(query));
        assert_eq!(udp_length(query), 40);
        let counts = Counts { answers: 1, authorities: 0, additional: 1 };
        let reply = reply_head(query, 0x1234, ReplyCode::NoError, counts);
        let expected = [
            0, 53, 0x9c, 0x40, 0x12, 0x34, 0xab, 0xcd, 0x12, 0x34, 0x85, 0x90, 0, 1, 0, 1, 0, 0, 0,
            1, 3, b'a', b'r', b't',
        ];
        assert_eq!(octets(&reply), expected);
        let none = Counts { answers: 0, authorities: 0, additional: 0 };
        let flags = |code| octets(&reply_head(query, 9, code, none))[10..12].to_vec();
        assert_eq!(flags(ReplyCode::ServFail), [0x81, 0x92]);
        assert_eq!(flags(ReplyCode::BadVersion), [0x81, 0x90]);
    }

    #[test]
    fn only_one_question_without_records_is_plain() {
        let with = |at: usize, octet: u8| {
            let mut query = QUERY;
            query[at] = octet;
            is_plain_query(words(&query))
        };
        for (at, octets) in [
            (10, &[0x80, 0x08, 0x10, 0x20, 0x40][..]),
            (12, &[1]),
            (13, &[0, 2, 3]),
            (14, &[1]),
            (15, &[1]),
            (16, &[1]),
            (17, &[1]),
            (18, &[1]),
            (19, &[2, 3, 255]),
        ] {
            assert!(octets.iter().all(|&octet| !with(at, octet)), "{at}");
        }
        assert!(with(10, 0x07) && with(11, 0xff) && with(19, 0));
        let mut query = QUERY;
        query[19] = 0;
        assert!(!has_additional(words(&query)));
    }

    #[test]
    fn the_ipv4_reply_goes_back_with_a_right_checksum() {
        let mut frame: Vec<u8> = (0..34).collect();
        frame[14] = 0x45;
        frame[20..22].copy_from_slice(&[0x40, 0]);
        let reply = octets(&reply_frame4(words(&frame), 0x1234));
        assert_eq!((&reply[..6], &reply[6..12]), (&frame[6..12], &frame[..6]));
        assert_eq!((&reply[26..30], &reply[30..34]), (&frame[30..34], &frame[26..30]));
        assert_eq!(reply[12..24], [12, 13, 0x45, 15, 0x12, 0x34, 18, 19, 0x40, 0, 64, 23]);
        let header = words::<3>(&reply[14..34]);
        assert_eq!(fold(sum(header[0]) + sum(header[1]) + (header[2] & 0xffff_ffff)), 0xffff);
    }

    #[test]
    fn the_ipv6_reply_goes_back() {
        let frame: Vec<u8> = (0..54).collect();
        let reply = octets(&reply_frame6(words(&frame), 0x1234));
        assert_eq!((&reply[..6], &reply[6..12]), (&frame[6..12], &frame[..6]));
        assert_eq!(reply[12..22], [12, 13, 14, 15, 16, 17, 0x12, 0x34, 20, 64]);
        assert_eq!((&reply[22..38], &reply[38..54]), (&frame[38..54], &frame[22..38]));
    }

    #[test]
    fn differences_describe_the_change() {
        let query = words::<3>(&QUERY);
        let counts = Counts { answers: 0, authorities: 1, additional: 1 };
        let reply = reply_head(query, 300, ReplyCode::NoError, counts);
        let after = fold(head_sum(query) + head_difference(query, reply));
        assert_eq!(after % 0xffff, fold(head_sum(reply)) % 0xffff);
        let length = |words: QueryHead| words[0] >> 32 & 0xffff;
        let after = fold(length(query) + length_difference(query, reply));
        assert_eq!(after, length(reply));
    }
}
