//! A resolver that the product knows nothing about, and that writes down each name it is asked for.
//!
//! Its response is a function of the query alone, so a client can compare every octet of what it
//! receives with [`response`].

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::isolation::namespaces::Namespaces;

/// Names below this have an address; all others do not exist.
const ZONE: &str = "example.test";
/// Each handles one query at a time.
const THREADS: usize = 4;
/// How long a thread waits for a query before it looks whether it has to end.
const TICK: Duration = Duration::from_millis(100);
/// The code of an EDNS option for local use (RFC 6891 section 9).
const LOCAL_OPTION: u16 = 65_001;

/// How long a client may keep a connection without asking.
const CLIENT_TIMEOUT: Duration = Duration::from_secs(1);

/// How often each name was asked for.
type Asked = Mutex<BTreeMap<String, u64>>;

/// A running resolver. Its threads belong to this process, its sockets to the namespace.
#[derive(Debug)]
pub struct Resolver {
    asked: Arc<Asked>,
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Resolver {
    /// Answers by UDP and by TCP at an address of the namespace.
    pub(crate) fn start(namespaces: &Namespaces, address: Ipv4Addr) -> Result<Self> {
        let bind = || -> std::io::Result<_> {
            Ok((UdpSocket::bind((address, 53))?, TcpListener::bind((address, 53))?))
        };
        let (socket, listener) =
            namespaces.run(bind)?.with_context(|| format!("failed to bind {address}:53"))?;
        socket.set_read_timeout(Some(TICK)).context("failed to set a socket's time-out")?;
        listener.set_nonblocking(true).context("failed to make a socket non-blocking")?;
        let (socket, listener) = (Arc::new(socket), Arc::new(listener));
        let (asked, stop) = (Arc::default(), Arc::default());
        let serve = || {
            let (socket, asked, stop) =
                (Arc::clone(&socket), Arc::clone(&asked), Arc::clone(&stop));
            std::thread::spawn(move || serve(&socket, &asked, &stop))
        };
        let serve_streams = || {
            let (listener, asked, stop) =
                (Arc::clone(&listener), Arc::clone(&asked), Arc::clone(&stop));
            std::thread::spawn(move || serve_streams(&listener, &asked, &stop))
        };
        let threads = (0..THREADS).flat_map(|_| [serve(), serve_streams()]).collect();
        Ok(Self { asked, stop, threads })
    }

    /// How often it was asked for `name`, of any type.
    pub fn times_asked(&self, name: &str) -> u64 {
        self.names().get(name).copied().unwrap_or_default()
    }

    /// The names it was asked for, in lower case, each with how often.
    pub fn names(&self) -> BTreeMap<String, u64> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for Resolver {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

fn serve(socket: &UdpSocket, asked: &Asked, stop: &AtomicBool) {
    let mut packet = [0; 4096];
    while !stop.load(Ordering::Relaxed) {
        let Ok((length, client)) = socket.recv_from(&mut packet) else { continue };
        if let Some(response) = answer(&packet[..length], asked) {
            // A client that is gone needs no answer.
            let _ = socket.send_to(&response, client);
        }
    }
}

fn serve_streams(listener: &TcpListener, asked: &Asked, stop: &AtomicBool) {
    while !stop.load(Ordering::Relaxed) {
        match listener.accept() {
            // A client that disconnects early reports the error itself.
            Ok((stream, _)) => drop(serve_stream(stream, asked)),
            Err(_) => std::thread::sleep(Duration::from_millis(2)),
        }
    }
}

fn serve_stream(mut stream: TcpStream, asked: &Asked) -> std::io::Result<()> {
    stream.set_nonblocking(false)?;
    stream.set_read_timeout(Some(CLIENT_TIMEOUT))?;
    loop {
        let mut length = [0; 2];
        stream.read_exact(&mut length)?;
        let mut query = vec![0; usize::from(u16::from_be_bytes(length))];
        stream.read_exact(&mut query)?;
        let Some(response) = answer(&query, asked) else { return Ok(()) };
        stream.write_all(&[&(response.len() as u16).to_be_bytes(), &response[..]].concat())?;
    }
}

/// The response, once the name is written down; `None` when it is no query.
fn answer(query: &[u8], asked: &Asked) -> Option<Vec<u8>> {
    let (name, _) = question(query)?;
    *asked.lock().unwrap_or_else(PoisonError::into_inner).entry(name).or_default() += 1;
    response(query)
}

/// The response to `query`, octet for octet; `None` when it is no query. The record's address and
/// TTL depend on every octet of the query.
#[must_use]
pub fn response(query: &[u8]) -> Option<Vec<u8>> {
    let (name, end) = question(query)?;
    let exists = name == ZONE || name.ends_with(&format!(".{ZONE}"));
    let is_address = query[end - 4..end] == [0, 1, 0, 1];
    let edns = query[10..12] != [0, 0];
    let hash = hash(query);
    let mut response = query[..end].to_vec();
    // QR, AA and RA, and the client's RD.
    response[2] = 0x84 | (query[2] & 1);
    response[3] = if exists { 0x80 } else { 0x83 };
    response[6..12].fill(0);
    if exists && is_address {
        response[7] = 1;
        response.extend([0xc0, 12, 0, 1, 0, 1]);
        response.extend((hash % 86_400).to_be_bytes());
        response.extend([0, 4]);
        response.extend(address(&name).octets());
    }
    if edns {
        response[11] = 1;
        response.extend([0, 0, 41, 4, 208, 0, 0, 0, 0, 0, 8]);
        response.extend(LOCAL_OPTION.to_be_bytes());
        response.extend([0, 4]);
        response.extend(hash.to_be_bytes());
    }
    Some(response)
}

/// The address of a name below `ZONE`, in 192.0.2.0/24.
#[must_use]
pub fn address(name: &str) -> Ipv4Addr {
    Ipv4Addr::new(192, 0, 2, hash(name.as_bytes()).to_be_bytes()[3])
}

/// The only question's name in lower case, and where the question ends.
fn question(query: &[u8]) -> Option<(String, usize)> {
    if query.len() <= 12 || query[2] & 0x80 != 0 || query[4..6] != [0, 1] {
        return None;
    }
    let (mut at, mut labels) = (12, Vec::new());
    loop {
        let length = usize::from(*query.get(at)?);
        if length == 0 {
            let end = at + 5;
            return (query.len() >= end).then(|| (labels.join("."), end));
        }
        let label = query.get(at + 1..at + 1 + length)?;
        labels.push(String::from_utf8_lossy(label).to_ascii_lowercase());
        at += 1 + length;
    }
}

/// FNV-1a.
fn hash(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0x811c_9dc5, |hash, byte| (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dns_query::{A, query};

    #[test]
    fn a_response_depends_on_every_octet_of_the_query() {
        let (first, second) = (query(1, "www.example.test", A), query(2, "www.example.test", A));
        let (first, second) = (response(&first).unwrap(), response(&second).unwrap());
        assert_eq!(first.len(), second.len());
        assert_ne!(first[2..], second[2..]);
        assert!(first.ends_with(&address("www.example.test").octets()));
    }

    #[test]
    fn only_names_of_its_zone_exist() {
        let code = |name: &str| response(&query(7, name, A)).unwrap()[3] & 15;
        assert_eq!(code("WWW.Example.test"), 0);
        assert_eq!(code("artifactory.internal.company.net"), 3);
        assert_eq!(response(b"not a query"), None);
    }
}
