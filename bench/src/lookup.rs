//! Look-ups of addresses by DNS over UDP.

use std::{
    net::{Ipv4Addr, SocketAddrV4, UdpSocket},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use testbed::dns_query::{self, A};

/// Bytes of a DNS header.
const HEADER: usize = 12;
/// Bytes of a record after its name, without its data.
const RECORD: usize = 10;

/// The name of a route of the benchmarks.
pub(crate) fn name(number: u32) -> String {
    format!("r{number}.internal.company.net")
}

/// A query for the A record of a name.
pub(crate) fn query(id: u16, name: &str) -> Vec<u8> {
    dns_query::query(id, name, A)
}

/// The addresses of a name.
pub(crate) fn addresses(
    resolver: SocketAddrV4,
    name: &str,
    limit: Duration,
) -> Result<Vec<Ipv4Addr>> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).context("failed to bind a socket")?;
    socket.connect(resolver).context("failed to connect a socket")?;
    socket.set_read_timeout(Some(limit)).context("failed to set a time limit")?;
    ask(&socket, name)
}

/// The addresses of a name, by a socket that is connected to a resolver.
pub(crate) fn ask(socket: &UdpSocket, name: &str) -> Result<Vec<Ipv4Addr>> {
    const ID: u16 = 1;
    let query = query(ID, name);
    socket.send(&query).context("failed to send a query")?;
    let mut reply = [0; 1232];
    let length = socket.recv(&mut reply).context("failed to receive an answer")?;
    parse(&reply[..length], &query).context("failed to read an answer")
}

/// The A records of a reply whose owner names are compressed, as every server of ours sends them.
fn parse(reply: &[u8], query: &[u8]) -> Result<Vec<Ipv4Addr>> {
    ensure!(reply.len() >= query.len() && reply[..2] == query[..2], "not an answer to the query");
    ensure!(reply[3] & 0xf == 0, "the server answered with the code {}", reply[3] & 0xf);
    ensure!(reply[HEADER..query.len()] == query[HEADER..], "an answer to another question");
    let mut rest = &reply[query.len()..];
    let mut addresses = Vec::new();
    for _ in 0..u16::from_be_bytes([reply[6], reply[7]]) {
        ensure!(rest.len() >= 2 + RECORD && rest[0] & 0xc0 == 0xc0, "a name is not compressed");
        let length = usize::from(u16::from_be_bytes([rest[10], rest[11]]));
        let data = rest.get(2 + RECORD..2 + RECORD + length).context("a record is too short")?;
        if let (A, &[a, b, c, d]) = (u16::from_be_bytes([rest[2], rest[3]]), data) {
            addresses.push(Ipv4Addr::new(a, b, c, d));
        }
        rest = &rest[2 + RECORD + length..];
    }
    Ok(addresses)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_addresses_of_a_reply_are_read_in_order() {
        let query = query(1, "a.example");
        let mut reply = query.clone();
        (reply[2], reply[7]) = (0x80, 2);
        for last in [7, 8] {
            reply.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 30, 0, 4, 192, 0, 2, last]);
        }
        let both = [Ipv4Addr::new(192, 0, 2, 7), Ipv4Addr::new(192, 0, 2, 8)];
        assert_eq!(parse(&reply, &query).unwrap(), both);
        reply[3] = 3;
        assert!(parse(&reply, &query).unwrap_err().to_string().contains("code 3"));
    }
}
