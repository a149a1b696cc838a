//! `testbed-client flood`: a tenant that misbehaves. It sends SYNs or queries as fast as it can,
//! also from an address that is not its own.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rustix::net::{
    AddressFamily, SendFlags, SocketFlags, SocketType, ipproto, sendto, socket_with,
};

use crate::dns_query;

/// Packets between two looks at the clock.
const BURST: u32 = 64;

/// What a flood consists of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum FloodKind {
    /// SYNs, each from another port.
    Syn,
    /// DNS queries for one name, each from another port.
    Dns,
}

/// Options of the flood.
#[derive(Clone, Debug, clap::Args)]
pub struct FloodOptions {
    /// What to send
    #[arg(long, value_enum)]
    pub kind: FloodKind,
    /// The address to send from
    #[arg(long)]
    pub source: Ipv4Addr,
    /// The port to send from [default: all of them, one after the other]
    #[arg(long)]
    pub source_port: Option<u16>,
    /// Where to
    #[arg(long)]
    pub target: SocketAddrV4,
    /// For how many seconds
    #[arg(long, default_value_t = 3.0)]
    pub seconds: f64,
    /// At most so many packets a second
    #[arg(long)]
    pub rate: Option<u32>,
    /// The name that queries ask for
    #[arg(long, default_value = "artifactory.internal.company.net")]
    pub name: String,
}

/// Runs `testbed-client flood`; returns the number of packets sent.
pub(crate) fn run(options: &FloodOptions) -> Result<u64> {
    ensure!(options.seconds > 0.0, "the time must be above zero");
    let flags = SocketFlags::CLOEXEC;
    let socket = socket_with(AddressFamily::INET, SocketType::RAW, flags, Some(ipproto::RAW))
        .context("failed to open a raw socket")?;
    let (begun, limit) = (Instant::now(), Duration::from_secs_f64(options.seconds));
    let (mut sent, mut number) = (0_u64, 0_u32);
    while begun.elapsed() < limit {
        for _ in 0..BURST {
            number = number.wrapping_add(1);
            let packet = packet(options, number);
            // A full queue drops packets, as it does for any sender.
            sent +=
                u64::from(sendto(&socket, &packet, SendFlags::empty(), &options.target).is_ok());
        }
        if let Some(rate) = options.rate {
            let due = Duration::from_secs_f64(sent as f64 / f64::from(rate));
            std::thread::sleep(due.saturating_sub(begun.elapsed()));
        }
    }
    Ok(sent)
}

fn packet(options: &FloodOptions, number: u32) -> Vec<u8> {
    let port = options.source_port.unwrap_or(1024 + (number % 60_000) as u16);
    let (protocol, mut payload) = match options.kind {
        FloodKind::Syn => (6, syn(options, port, number)),
        FloodKind::Dns => (17, query(options, port, number)),
    };
    let checksum = checksum(&[&pseudo_header(options, protocol, payload.len()), &payload]);
    let at = if protocol == 6 { 16 } else { 6 };
    payload[at..at + 2].copy_from_slice(&checksum.to_be_bytes());
    // The kernel fills in length, identification and checksum.
    let mut packet = vec![0x45, 0, 0, 0, 0, 0, 0x40, 0, 64, protocol, 0, 0];
    packet.extend(options.source.octets());
    packet.extend(options.target.ip().octets());
    packet.extend(payload);
    packet
}

fn syn(options: &FloodOptions, port: u16, number: u32) -> Vec<u8> {
    let mut segment = port.to_be_bytes().to_vec();
    segment.extend(options.target.port().to_be_bytes());
    segment.extend(number.wrapping_mul(0x9e37_79b9).to_be_bytes());
    segment.extend([0, 0, 0, 0, 0x60, 2, 0xff, 0xff, 0, 0, 0, 0, 2, 4, 5, 180]);
    segment
}

fn query(options: &FloodOptions, port: u16, number: u32) -> Vec<u8> {
    let message = dns_query::query(number as u16, &options.name, dns_query::A);
    let mut datagram = port.to_be_bytes().to_vec();
    datagram.extend(options.target.port().to_be_bytes());
    datagram.extend((message.len() as u16 + 8).to_be_bytes());
    datagram.extend([0, 0]);
    datagram.extend(message);
    datagram
}

fn pseudo_header(options: &FloodOptions, protocol: u8, length: usize) -> Vec<u8> {
    let mut header = options.source.octets().to_vec();
    header.extend(options.target.ip().octets());
    header.extend([0, protocol]);
    header.extend((length as u16).to_be_bytes());
    header
}

/// The Internet checksum (RFC 1071) of these parts, each of which but the last has an even length.
fn checksum(parts: &[&[u8]]) -> u16 {
    let words = parts.iter().flat_map(|part| part.chunks(2));
    let sum: u32 = words
        .map(|word| u32::from(word[0]) << 8 | u32::from(word.get(1).copied().unwrap_or(0)))
        .sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    !((folded & 0xffff) + (folded >> 16)) as u16
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_packets_checksum_covers_its_pseudo_header() {
        let options = FloodOptions {
            kind: FloodKind::Syn,
            source: Ipv4Addr::new(10, 61, 1, 2),
            source_port: Some(40_000),
            target: "198.18.0.1:443".parse().unwrap(),
            seconds: 1.0,
            rate: None,
            name: "a.test".to_owned(),
        };
        for kind in [FloodKind::Syn, FloodKind::Dns] {
            let options = FloodOptions { kind, ..options.clone() };
            let packet = packet(&options, 7);
            let segment = &packet[20..];
            assert_eq!(segment[..2], 40_000_u16.to_be_bytes());
            let header = pseudo_header(&options, packet[9], segment.len());
            assert_eq!(checksum(&[&header, segment]), 0, "{kind:?}");
        }
    }
}
