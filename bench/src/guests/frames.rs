//! Packets for BPF_PROG_TEST_RUN.

use std::net::Ipv4Addr;

const ETHERNET: [u8; 14] = [2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0];
const TCP: u8 = 6;
const UDP: u8 = 17;

/// A data segment of an established connection.
pub(crate) fn segment(source: Ipv4Addr, target: Ipv4Addr) -> Vec<u8> {
    const DATA_OFFSET_AND_ACK: [u8; 2] = [5 << 4, 0x10];
    const PAYLOAD: usize = 512;
    let ports = [40_000_u16.to_be_bytes(), 443_u16.to_be_bytes()].concat();
    let tcp =
        [&ports[..], &[0, 0, 0, 1, 0, 0, 0, 1], &DATA_OFFSET_AND_ACK, &[255, 255, 0, 0, 0, 0]]
            .concat();
    ethernet(source, target, TCP, &[tcp, vec![b'x'; PAYLOAD]].concat())
}

/// A DNS query over UDP.
pub(crate) fn query(source: Ipv4Addr, resolver: Ipv4Addr, message: &[u8]) -> Vec<u8> {
    const HEADER: usize = 8;
    let length = u16::try_from(HEADER + message.len()).unwrap_or(u16::MAX);
    let udp = [
        &40_000_u16.to_be_bytes()[..],
        &53_u16.to_be_bytes(),
        &length.to_be_bytes(),
        // No checksum, which IPv4 allows.
        &[0, 0],
        message,
    ]
    .concat();
    ethernet(source, resolver, UDP, &udp)
}

fn ethernet(source: Ipv4Addr, target: Ipv4Addr, protocol: u8, payload: &[u8]) -> Vec<u8> {
    const HEADER: usize = 20;
    const DONT_FRAGMENT: u8 = 0x40;
    const TTL: u8 = 64;
    let length = u16::try_from(HEADER + payload.len()).unwrap_or(u16::MAX).to_be_bytes();
    let mut header = vec![0x45, 0, length[0], length[1], 0, 1, DONT_FRAGMENT, 0, TTL, protocol];
    header.extend([0, 0]);
    header.extend(source.octets());
    header.extend(target.octets());
    let sum = checksum(&header);
    header[10..12].copy_from_slice(&sum.to_be_bytes());
    [&ETHERNET[..], &header, payload].concat()
}

fn checksum(header: &[u8]) -> u16 {
    let words = header.chunks(2).map(|word| u32::from(word[0]) << 8 | u32::from(word[1]));
    let sum: u32 = words.sum();
    !((sum & 0xffff) + (sum >> 16)) as u16
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_has_its_length_and_a_header_checksum() {
        let frame = segment(Ipv4Addr::new(10, 0, 0, 1), Ipv4Addr::new(10, 0, 0, 2));
        assert_eq!(u16::from_be_bytes([frame[16], frame[17]]) as usize, frame.len() - 14);
        assert_eq!(checksum(&frame[14..34]), 0, "the sum over a right header");
        let query = query(Ipv4Addr::LOCALHOST, Ipv4Addr::LOCALHOST, b"message");
        assert!(query.ends_with(b"message") && query[23] == 17);
    }
}
