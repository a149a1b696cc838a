//! Packets for BPF_PROG_TEST_RUN.

use std::net::{Ipv4Addr, SocketAddrV4};

const ETHERNET: [u8; 14] = [2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0];
const TCP: u8 = 6;
const UDP: u8 = 17;

/// The segments of a connection.
#[derive(Clone, Copy)]
pub(crate) enum Kind {
    Syn,
    SynAck,
    Data,
}

/// A segment of a connection; both sides begin with the sequence number 0.
pub(crate) fn segment(source: SocketAddrV4, target: SocketAddrV4, kind: Kind) -> Vec<u8> {
    const PAYLOAD: usize = 512;
    let (sequence, acknowledgment, flags, payload) = match kind {
        Kind::Syn => (0_u32, 0_u32, 0x02, 0),
        Kind::SynAck => (0, 1, 0x12, 0),
        Kind::Data => (1, 1, 0x10, PAYLOAD),
    };
    let mut tcp = [source.port().to_be_bytes(), target.port().to_be_bytes()].concat();
    tcp.extend(sequence.to_be_bytes());
    tcp.extend(acknowledgment.to_be_bytes());
    // The length of the header, the window, no checksum.
    tcp.extend([5 << 4, flags, 255, 255, 0, 0, 0, 0]);
    tcp.resize(tcp.len() + payload, b'x');
    ethernet(*source.ip(), *target.ip(), TCP, &tcp)
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
        let [source, target] =
            [1, 2].map(|last| SocketAddrV4::new(Ipv4Addr::new(10, 0, 0, last), 443));
        let frame = segment(source, target, Kind::Data);
        assert_eq!(u16::from_be_bytes([frame[16], frame[17]]) as usize, frame.len() - 14);
        assert_eq!(checksum(&frame[14..34]), 0, "the sum over a right header");
        let query = query(Ipv4Addr::LOCALHOST, Ipv4Addr::LOCALHOST, b"message");
        assert!(query.ends_with(b"message") && query[23] == 17);
    }
}
