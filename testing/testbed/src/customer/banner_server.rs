//! A web server that answers each connection with its name, closes it, and counts: it shows where a
//! connect was redirected to.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::Result;

use super::acceptor::Acceptor;
use crate::isolation::namespaces::Namespaces;

/// Each serves one connection at a time, for a fraction of a millisecond unless the client is slow.
const THREADS: usize = 16;
/// How long a client may keep a connection after the banner.
const CLIENT_TIMEOUT: Duration = Duration::from_secs(1);

/// A running server. Its threads belong to this process, its socket to the namespace.
#[derive(Debug)]
pub struct BannerServer {
    acceptor: Acceptor,
    served: Arc<AtomicU64>,
}

impl BannerServer {
    /// Listens at `address` inside `namespaces`; port 0 takes a free one. Each client is answered
    /// at once with an HTTP response whose body is `banner` and a newline, whether it asks or not.
    pub fn start(namespaces: &Namespaces, address: SocketAddr, banner: &str) -> Result<Self> {
        let response = format!(
            "HTTP/1.0 200 OK\r\nContent-Type: text/plain\r\nContent-Length: {}\r\n\r\n{banner}\n",
            banner.len() + 1
        );
        let (served, response) = (Arc::new(AtomicU64::new(0)), Arc::<str>::from(response));
        let counter = Arc::clone(&served);
        let serve = move |stream| {
            // A client that disconnects early reports the error itself.
            if greet(stream, &response).is_ok() {
                counter.fetch_add(1, Ordering::Relaxed);
            }
        };
        Ok(Self { acceptor: Acceptor::start(namespaces, address, THREADS, serve)?, served })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.acceptor.address()
    }

    /// Connections greeted so far.
    pub fn served(&self) -> u64 {
        self.served.load(Ordering::Relaxed)
    }
}

/// Reads the request before closing: otherwise the kernel would reset the connection.
fn greet(mut stream: TcpStream, response: &str) -> std::io::Result<()> {
    stream.set_write_timeout(Some(CLIENT_TIMEOUT))?;
    stream.set_read_timeout(Some(CLIENT_TIMEOUT))?;
    stream.write_all(response.as_bytes())?;
    stream.shutdown(Shutdown::Write)?;
    let mut request = [0; 2048];
    while matches!(stream.read(&mut request), Ok(length) if length > 0) {}
    Ok(())
}
