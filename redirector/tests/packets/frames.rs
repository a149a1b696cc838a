//! Frames with a UDP datagram, and what is right about them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

const UDP: u8 = 17;
const UDP_LEN: usize = 8;

/// The two ends of a datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ends {
    pub(crate) macs: [[u8; 6]; 2],
    pub(crate) addresses: [IpAddr; 2],
    pub(crate) ports: [u16; 2],
}

impl Ends {
    /// A client that asks a resolver.
    pub(crate) fn v4() -> Self {
        Self {
            macs: [[2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2]],
            addresses: [Ipv4Addr::new(10, 61, 1, 2).into(), Ipv4Addr::new(169, 254, 20, 53).into()],
            ports: [40_000, 53],
        }
    }

    pub(crate) fn v6() -> Self {
        let address = |last| IpAddr::from(Ipv6Addr::new(0xfd61, 0, 0, 7, 0, 0x1234, 0, last));
        Self { addresses: [address(2), address(0x53)], ..Self::v4() }
    }

    /// The way back.
    pub(crate) fn reversed(self) -> Self {
        let swapped = |[a, b]: [IpAddr; 2]| [b, a];
        Self {
            macs: [self.macs[1], self.macs[0]],
            addresses: swapped(self.addresses),
            ports: [self.ports[1], self.ports[0]],
        }
    }
}

/// The frame of a datagram.
pub(crate) fn frame(ends: &Ends, data: &[u8]) -> Vec<u8> {
    let mut udp = [ends.ports[0].to_be_bytes(), ends.ports[1].to_be_bytes()].concat();
    udp.extend(length_be(UDP_LEN + data.len()));
    udp.extend([0, 0]);
    udp.extend(data);
    let checksum = match !checksum_of(ends.addresses, UDP, &udp) {
        0 => 0xffff,
        checksum => checksum,
    };
    udp[6..8].copy_from_slice(&checksum.to_be_bytes());
    framed(ends.macs, [ip_header(ends.addresses, UDP, &[], udp.len()), udp].concat())
}

/// A packet with an Ethernet header; the destination's MAC address comes first.
pub(crate) fn framed(macs: [[u8; 6]; 2], packet: Vec<u8>) -> Vec<u8> {
    let protocol: [u8; 2] = if packet[0] >> 4 == 4 { [0x08, 0x00] } else { [0x86, 0xdd] };
    [&macs[1][..], &macs[0], &protocol, &packet].concat()
}

/// The header of a packet; `options` are those of IPv4.
pub(crate) fn ip_header(
    addresses: [IpAddr; 2],
    protocol: u8,
    options: &[u8],
    payload: usize,
) -> Vec<u8> {
    match addresses {
        [IpAddr::V4(source), IpAddr::V4(destination)] => {
            let length = 20 + options.len();
            let words = 0x40 | u8::try_from(length / 4).unwrap();
            let mut header = [words, 0, 0, 0, 0x12, 0x34, 0x40, 0, 63, protocol, 0, 0].to_vec();
            header[2..4].copy_from_slice(&length_be(length + payload));
            header.extend(source.octets());
            header.extend(destination.octets());
            header.extend(options);
            let checksum = !sum(&[&header]);
            header[10..12].copy_from_slice(&checksum.to_be_bytes());
            header
        }
        [IpAddr::V6(source), IpAddr::V6(destination)] => {
            let mut header = vec![0x60, 0, 0x12, 0x34];
            header.extend(length_be(payload));
            header.extend([protocol, 63]);
            header.extend(source.octets());
            header.extend(destination.octets());
            header
        }
        _ => panic!("addresses of two families"),
    }
}

/// The ends and the data of a frame whose lengths and checksums are right. A UDP checksum of 0
/// means none.
pub(crate) fn parse(frame: &[u8]) -> Result<(Ends, Vec<u8>), String> {
    let macs = [frame[6..12].try_into().unwrap(), frame[..6].try_into().unwrap()];
    let (addresses, at) = match frame[12..14] {
        [0x08, 0x00] => {
            let address = |at: usize| -> [u8; 4] { frame[at..at + 4].try_into().unwrap() };
            if sum(&[&frame[14..34]]) != 0xffff {
                return Err("the checksum of the IPv4 header".into());
            }
            if usize::from(u16::from_be_bytes([frame[16], frame[17]])) != frame.len() - 14 {
                return Err("the total length".into());
            }
            if frame[14] != 0x45 || frame[22] != 64 || frame[23] != UDP {
                return Err("the IPv4 header".into());
            }
            ([IpAddr::from(address(26)), IpAddr::from(address(30))], 34)
        }
        [0x86, 0xdd] => {
            let address = |at: usize| -> [u8; 16] { frame[at..at + 16].try_into().unwrap() };
            if usize::from(u16::from_be_bytes([frame[18], frame[19]])) != frame.len() - 54 {
                return Err("the payload length".into());
            }
            if frame[14..18] != [0x60, 0, 0x12, 0x34] || frame[20..22] != [UDP, 64] {
                return Err("the IPv6 header".into());
            }
            ([IpAddr::from(address(22)), IpAddr::from(address(38))], 54)
        }
        _ => return Err("the protocol".into()),
    };
    let udp = &frame[at..];
    let port = |at: usize| u16::from_be_bytes([udp[at], udp[at + 1]]);
    let ends = Ends { macs, addresses, ports: [port(0), port(2)] };
    if usize::from(port(4)) != udp.len() {
        return Err("the length of the datagram".into());
    }
    if port(6) != 0 && checksum_of(ends.addresses, UDP, udp) != 0xffff {
        return Err("the checksum of the datagram".into());
    }
    Ok((ends, udp[UDP_LEN..].to_vec()))
}

fn length_be(length: usize) -> [u8; 2] {
    u16::try_from(length).unwrap().to_be_bytes()
}

/// The checksum over the pseudo-header and a payload: 0xffff if the payload's own is right.
pub(crate) fn checksum_of(addresses: [IpAddr; 2], protocol: u8, payload: &[u8]) -> u16 {
    let octets = |address: IpAddr| match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    };
    let addresses = addresses.map(octets).concat();
    sum(&[&addresses, &[0, protocol], &length_be(payload.len()), payload])
}

/// The sum of 16-bit words; only the last part may have an odd length.
pub(crate) fn sum(parts: &[&[u8]]) -> u16 {
    let words = parts.iter().flat_map(|part| part.chunks(2));
    let total: u32 = words
        .map(|word| u32::from(u16::from_be_bytes([word[0], word.get(1).copied().unwrap_or(0)])))
        .sum();
    let folded = (total & 0xffff) + (total >> 16);
    ((folded & 0xffff) + (folded >> 16)) as u16
}

#[test]
fn a_frame_is_read_as_it_was_made() {
    for ends in [Ends::v4(), Ends::v6()] {
        let mut frame = frame(&ends, b"odd");
        let hops = if ends == Ends::v4() { 22 } else { 21 };
        frame[hops] += 1;
        if ends == Ends::v4() {
            // The checksum of a header with one hop more.
            frame[24] -= 1;
        }
        assert_eq!(parse(&frame), Ok((ends, b"odd".to_vec())));
        *frame.last_mut().unwrap() ^= 1;
        assert!(parse(&frame).is_err());
    }
}
