//! A look-up as a libc does it: the names of the search list in turn, one A query each, to each
//! nameserver in turn, over UDP, and over TCP if the answer is truncated.

use std::{
    io::{self, Read, Write},
    net::{IpAddr, SocketAddr, UdpSocket},
    time::{Duration, Instant},
};

use hickory_proto::{
    op::{Message, MessageType, OpCode, Query, ResponseCode},
    rr::{Name, RData, RecordType},
};
use serde::{Deserialize, Serialize};

use super::{io_failure::IoFailure, timed_stream::TimedStream};

/// A libc reads three `nameserver` lines.
pub(super) const MAX_NAMESERVERS: usize = 3;

/// The codes after which glibc continues with its search list.
const NEXT_CODES: [&str; 3] = ["NOERROR", "NXDOMAIN", "SERVFAIL"];

/// The outcome of the query.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum DnsResult {
    /// /etc/hosts has the name, so DNS is not asked.
    Hosts { address: IpAddr },
    /// No nameserver is configured.
    NoServer,
    /// A server answered with addresses, or with none.
    Answer { server: SocketAddr, addresses: Vec<IpAddr>, code: String, milliseconds: u64 },
    /// No server answered; the first one's failure.
    Failed { server: SocketAddr, why: IoFailure },
}

impl DnsResult {
    /// The address that a client would connect to.
    pub(crate) fn address(&self) -> Option<IpAddr> {
        match self {
            Self::Hosts { address } => Some(*address),
            Self::Answer { addresses, .. } => addresses.first().copied(),
            _ => None,
        }
    }

    /// Whether a libc asks for the next name of its search list after this result.
    fn leads_to_the_next(&self) -> bool {
        matches!(self, Self::Answer { code, .. } if NEXT_CODES.contains(&code.as_str()))
    }
}

/// Looks the candidates up in their order, as glibc does: until one has an address, and without
/// further suffixes when nobody answers. Returns that candidate, else the wanted one, with its
/// result.
pub(super) fn walk(
    candidates: &[String],
    wanted: &str,
    servers: &[SocketAddr],
    timeout: Duration,
) -> (String, DnsResult) {
    let deadline = Instant::now() + timeout * 2;
    let mut of_wanted = None;
    let mut is_answered = true;
    for name in candidates {
        let is_wanted = name == wanted;
        if !is_wanted && (!is_answered || Instant::now() > deadline) {
            continue;
        }
        let result = ask(name, servers, timeout);
        if result.address().is_some() {
            return (name.clone(), result);
        }
        is_answered &= result.leads_to_the_next();
        if is_wanted {
            of_wanted = Some(result);
        }
    }
    (wanted.to_owned(), of_wanted.unwrap_or(DnsResult::NoServer))
}

/// Asks for the A records of `name`.
fn ask(name: &str, servers: &[SocketAddr], timeout: Duration) -> DnsResult {
    let mut first = None;
    let mut empty = None;
    for &server in servers.iter().take(MAX_NAMESERVERS) {
        let began = Instant::now();
        match question(name).and_then(|(id, query)| exchange(server, id, &query, timeout)) {
            Ok(reply) => {
                let seen = read(&reply, server, began.elapsed());
                match &reply.metadata.response_code {
                    // As glibc does: these are an answer. SERVFAIL and the like make it ask the
                    // next one.
                    ResponseCode::NoError | ResponseCode::NXDomain => return seen,
                    _ => drop(empty.get_or_insert(seen)),
                }
            }
            Err(error) => {
                first.get_or_insert(DnsResult::Failed {
                    server,
                    why: IoFailure::from_error(&error),
                });
            }
        }
    }
    empty.or(first).unwrap_or(DnsResult::NoServer)
}

fn read(reply: &Message, server: SocketAddr, took: Duration) -> DnsResult {
    let address = |data: &RData| match data {
        RData::A(a) => Some(IpAddr::V4(a.0)),
        _ => None,
    };
    DnsResult::Answer {
        server,
        addresses: reply.answers.iter().filter_map(|record| address(&record.data)).collect(),
        code: match reply.metadata.response_code {
            ResponseCode::NoError => "NOERROR".into(),
            ResponseCode::NXDomain => "NXDOMAIN".into(),
            ResponseCode::ServFail => "SERVFAIL".into(),
            ResponseCode::Refused => "REFUSED".into(),
            other => format!("{other:?}").to_uppercase(),
        },
        milliseconds: u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
    }
}

fn question(name: &str) -> io::Result<(u16, Vec<u8>)> {
    let mut wanted = Name::from_ascii(name).map_err(io::Error::other)?;
    wanted.set_fqdn(true);
    let id = rand::random();
    let mut message = Message::new(id, MessageType::Query, OpCode::Query);
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(wanted, RecordType::A));
    Ok((id, message.to_vec().map_err(io::Error::other)?))
}

fn exchange(server: SocketAddr, id: u16, query: &[u8], timeout: Duration) -> io::Result<Message> {
    let unspecified: IpAddr =
        if server.is_ipv4() { [0, 0, 0, 0].into() } else { [0_u16; 8].into() };
    let socket = UdpSocket::bind((unspecified, 0))?;
    // Connected, so that a closed port is an error.
    socket.connect(server)?;
    let deadline = Instant::now() + timeout;
    let mut buffer = vec![0; 4096];
    for part in [timeout / 2, timeout / 2] {
        socket.send(query)?;
        let until = deadline.min(Instant::now() + part);
        loop {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            socket.set_read_timeout(Some(left))?;
            match socket.recv(&mut buffer) {
                Ok(length) => match Message::from_vec(&buffer[..length]) {
                    Ok(reply) if reply.metadata.id == id && reply.metadata.truncation => {
                        return over_tcp(server, query, deadline);
                    }
                    Ok(reply) if reply.metadata.id == id => return Ok(reply),
                    _ => {}
                },
                Err(error)
                    if matches!(
                        error.kind(),
                        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut
                    ) =>
                {
                    break;
                }
                Err(error) => return Err(error),
            }
        }
    }
    Err(io::ErrorKind::TimedOut.into())
}

fn over_tcp(server: SocketAddr, query: &[u8], deadline: Instant) -> io::Result<Message> {
    let mut stream = TimedStream::connect(server, deadline)?;
    let length = u16::try_from(query.len()).map_err(io::Error::other)?;
    stream.write_all(&[&length.to_be_bytes(), query].concat())?;
    let mut length = [0; 2];
    stream.read_exact(&mut length)?;
    let mut reply = vec![0; u16::from_be_bytes(length).into()];
    stream.read_exact(&mut reply)?;
    Message::from_vec(&reply).map_err(io::Error::other)
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn a_trickling_nameserver_has_the_timeout_of_one_step() {
        let listener = TcpListener::bind("127.83.1.1:0").expect("a listener");
        let server = listener.local_addr().expect("its address");
        let udp = UdpSocket::bind(server).expect("the same port");
        std::thread::spawn(move || {
            let mut query = [0; 512];
            let (length, client) = udp.recv_from(&mut query).expect("a query");
            let mut reply = Message::from_vec(&query[..length]).expect("a message");
            reply.metadata.truncation = true;
            udp.send_to(&reply.to_vec().expect("encoded"), client).expect("sent");
            let (mut stream, _) = listener.accept().expect("the query over TCP");
            stream.write_all(&[0, 100]).expect("the length");
            while stream.write_all(&[0]).is_ok() {
                std::thread::sleep(Duration::from_millis(50));
            }
        });
        let timeout = Duration::from_millis(500);
        let began = Instant::now();
        let DnsResult::Failed { why, .. } = ask("a.test", &[server], timeout) else {
            panic!("an answer")
        };
        assert!(began.elapsed() < timeout * 4, "{why:?} after {:?}", began.elapsed());
        assert!(began.elapsed() >= timeout, "{why:?} after {:?}", began.elapsed());
    }
}
