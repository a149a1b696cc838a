//! The customer's side: servers that name themselves and echo, and a resolver that knows one
//! address for every name.

use std::{
    io::{Read as _, Write as _},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, TcpListener, UdpSocket},
};

use anyhow::{Context as _, Result};

use super::query;
use crate::fixture::{PORT, silent_server};

const fn network(host: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 88, 0, host)
}

const fn network6(host: u16) -> Ipv6Addr {
    Ipv6Addr::new(0xfd00, 0x88, 0, 0, 0, 0, 0, host)
}

/// The server whose banner is `one`.
pub(crate) const ONE: Ipv4Addr = network(11);
/// The server whose banner is `two`.
pub(crate) const TWO: Ipv4Addr = network(12);
/// An address without a server: it resets.
pub(crate) const CLOSED: Ipv4Addr = network(13);
/// A server that drops SYNs.
pub(crate) const SILENT: Ipv4Addr = network(14);
/// The resolver.
pub(crate) const RESOLVER: Ipv4Addr = network(53);
/// The resolver on the second uplink.
pub(crate) const RESOLVER_B: Ipv4Addr = Ipv4Addr::new(10, 89, 0, 53);
/// The server whose banner is `six`.
pub(crate) const SIX: Ipv6Addr = network6(0x11);
/// An IPv6 address without a server.
pub(crate) const CLOSED6: Ipv6Addr = network6(0x13);
/// The resolver's IPv6 address.
pub(crate) const RESOLVER6: Ipv6Addr = network6(0x53);

/// What the resolver answers to every question.
pub(crate) const ANSWERED: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 53);

/// The customer's addresses.
pub(crate) const ADDRESSES: [IpAddr; 8] = [
    IpAddr::V4(ONE),
    IpAddr::V4(TWO),
    IpAddr::V4(CLOSED),
    IpAddr::V4(SILENT),
    IpAddr::V4(RESOLVER),
    IpAddr::V6(SIX),
    IpAddr::V6(CLOSED6),
    IpAddr::V6(RESOLVER6),
];

/// Starts every server.
pub(crate) fn start() -> Result<()> {
    for (address, banner) in [(ONE.into(), "one\n"), (TWO.into(), "two\n"), (SIX.into(), "six\n")] {
        serve(address, banner)?;
    }
    for address in [RESOLVER.into(), RESOLVER_B.into(), RESOLVER6.into()] {
        resolve(address)?;
    }
    // It serves until the machine is powered off.
    std::mem::forget(silent_server(SILENT)?);
    Ok(())
}

fn serve(address: IpAddr, banner: &'static str) -> Result<()> {
    let listener = TcpListener::bind((address, PORT))
        .with_context(|| format!("failed to listen at {address}"))?;
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            std::thread::spawn(move || {
                let mut buffer = vec![0; 64 << 10];
                let _ = stream.write_all(banner.as_bytes());
                while let Ok(length @ 1..) = stream.read(&mut buffer) {
                    if stream.write_all(&buffer[..length]).is_err() {
                        break;
                    }
                }
            });
        }
    });
    Ok(())
}

/// A resolver at an address of this namespace.
pub(crate) fn resolve(address: IpAddr) -> Result<()> {
    let socket =
        UdpSocket::bind((address, 53)).with_context(|| format!("failed to listen at {address}"))?;
    std::thread::spawn(move || {
        let mut buffer = [0; 1500];
        while let Ok((length, client)) = socket.recv_from(&mut buffer) {
            if let Ok(answer) = query::answer(&buffer[..length], ANSWERED.into()) {
                let _ = socket.send_to(&answer, client);
            }
        }
    });
    Ok(())
}
