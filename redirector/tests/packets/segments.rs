//! Frames with a TCP segment or an ICMP error, and what is right about them.

use std::net::{IpAddr, SocketAddr};

use crate::frames::{Ends, checksum_of, framed, ip_header, sum};

pub(crate) const ICMP: u8 = 1;
pub(crate) const TCP: u8 = 6;
pub(crate) const ICMP6: u8 = 58;
/// Octets of an Ethernet header.
pub(crate) const ETHERNET: usize = 14;

pub(crate) const FIN: u8 = 1;
pub(crate) const SYN: u8 = 2;
pub(crate) const RST: u8 = 4;
pub(crate) const ACK: u8 = 16;

/// A TCP segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Segment {
    pub(crate) source: SocketAddr,
    pub(crate) destination: SocketAddr,
    pub(crate) flags: u8,
    pub(crate) sequence: u32,
    pub(crate) acknowledgment: u32,
    /// Options of the IPv4 header.
    pub(crate) ip_options: Vec<u8>,
    pub(crate) options: Vec<u8>,
    pub(crate) data: Vec<u8>,
}

impl Segment {
    /// A segment without options and data.
    pub(crate) fn new(source: SocketAddr, destination: SocketAddr, flags: u8) -> Self {
        Self {
            source,
            destination,
            flags,
            sequence: 1000,
            acknowledgment: 0,
            ip_options: Vec::new(),
            options: Vec::new(),
            data: Vec::new(),
        }
    }

    pub(crate) fn at(self, sequence: u32, acknowledgment: u32) -> Self {
        Self { sequence, acknowledgment, ..self }
    }

    pub(crate) fn with(self, data: &[u8]) -> Self {
        Self { data: data.to_vec(), ..self }
    }

    /// The packet without an Ethernet header.
    pub(crate) fn packet(&self) -> Vec<u8> {
        let header_length = 20 + self.options.len();
        let mut tcp =
            [self.source.port().to_be_bytes(), self.destination.port().to_be_bytes()].concat();
        tcp.extend(self.sequence.to_be_bytes());
        tcp.extend(self.acknowledgment.to_be_bytes());
        tcp.extend([
            u8::try_from(header_length / 4).unwrap() << 4,
            self.flags,
            0x10,
            0,
            0,
            0,
            0,
            0,
        ]);
        tcp.extend(&self.options);
        tcp.extend(&self.data);
        let addresses = [self.source.ip(), self.destination.ip()];
        let checksum = !checksum_of(addresses, TCP, &tcp);
        tcp[16..18].copy_from_slice(&checksum.to_be_bytes());
        [ip_header(addresses, TCP, &self.ip_options, tcp.len()), tcp].concat()
    }

    pub(crate) fn frame(&self) -> Vec<u8> {
        framed(Ends::v4().macs, self.packet())
    }

    /// Reads a frame whose lengths and checksums are right.
    pub(crate) fn parse(frame: &[u8]) -> Self {
        let (addresses, protocol, ip_options, tcp) = read_ip(&frame[ETHERNET..]);
        assert_eq!(protocol, TCP);
        assert_eq!(checksum_of(addresses, TCP, tcp), 0xffff, "the checksum of {tcp:?}");
        Self::read(addresses, ip_options, tcp)
    }

    fn read(addresses: [IpAddr; 2], ip_options: Vec<u8>, tcp: &[u8]) -> Self {
        let port = |at: usize| u16::from_be_bytes([tcp[at], tcp[at + 1]]);
        let word = |at: usize| u32::from_be_bytes(tcp[at..at + 4].try_into().unwrap());
        let header_length = usize::from(tcp[12] >> 4) * 4;
        Self {
            source: (addresses[0], port(0)).into(),
            destination: (addresses[1], port(2)).into(),
            flags: tcp[13],
            sequence: word(4),
            acknowledgment: word(8),
            ip_options,
            options: tcp[20..header_length].to_vec(),
            data: tcp[header_length..].to_vec(),
        }
    }
}

/// An ICMP error about `quoted`, which says that packets may have up to `mtu` octets.
pub(crate) fn too_big(from: IpAddr, to: IpAddr, quoted: &Segment, mtu: u16) -> Vec<u8> {
    let (kind, code) = if from.is_ipv4() { (3, 4) } else { (2, 0) };
    let [high, low] = mtu.to_be_bytes();
    error_about(from, to, [kind, code, 0, 0, 0, 0, high, low], quoted)
}

/// An ICMP error with this header, without its checksum, about `quoted`.
pub(crate) fn error_about(from: IpAddr, to: IpAddr, header: [u8; 8], quoted: &Segment) -> Vec<u8> {
    let mut message = [&header[..], &quoted.packet()].concat();
    let addresses = [from, to];
    let checksum = match from {
        IpAddr::V4(_) => !sum(&[&message]),
        IpAddr::V6(_) => !checksum_of(addresses, ICMP6, &message),
    };
    message[2..4].copy_from_slice(&checksum.to_be_bytes());
    let protocol = if from.is_ipv4() { ICMP } else { ICMP6 };
    let packet = [ip_header(addresses, protocol, &[], message.len()), message].concat();
    framed(Ends::v4().macs, packet)
}

/// The sender of an ICMP error whose checksums are right, its MTU, and the segment that it quotes.
pub(crate) fn parse_too_big(frame: &[u8]) -> (IpAddr, u16, Segment) {
    let (addresses, protocol, _, message) = read_ip(&frame[ETHERNET..]);
    let checksum = match protocol {
        ICMP => sum(&[message]),
        _ => checksum_of(addresses, ICMP6, message),
    };
    assert_eq!(checksum, 0xffff, "the checksum of {message:?}");
    let (inner, _, options, tcp) = read_ip(&message[8..]);
    let mtu = u16::from_be_bytes([message[6], message[7]]);
    (addresses[0], mtu, Segment::read(inner, options, tcp))
}

/// Addresses, protocol, IPv4 options and payload.
fn read_ip(packet: &[u8]) -> ([IpAddr; 2], u8, Vec<u8>, &[u8]) {
    let length = |at: usize| usize::from(u16::from_be_bytes([packet[at], packet[at + 1]]));
    if packet[0] >> 4 == 4 {
        let header = usize::from(packet[0] & 15) * 4;
        assert_eq!(sum(&[&packet[..header]]), 0xffff, "the checksum of {:?}", &packet[..header]);
        let address =
            |at: usize| -> IpAddr { <[u8; 4]>::try_from(&packet[at..at + 4]).unwrap().into() };
        let addresses = [address(12), address(16)];
        (addresses, packet[9], packet[20..header].to_vec(), &packet[header..length(2)])
    } else {
        let address =
            |at: usize| -> IpAddr { <[u8; 16]>::try_from(&packet[at..at + 16]).unwrap().into() };
        ([address(8), address(24)], packet[6], Vec::new(), &packet[40..40 + length(4)])
    }
}
