//! A web server that answers each connection with its name, closes it, and counts: it shows where a
//! connect was redirected to.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::isolation::namespaces::Namespaces;

/// Each serves one connection at a time, for a fraction of a millisecond unless the client is slow.
const THREADS: usize = 16;
/// How long a client may keep a connection after the banner.
const CLIENT_TIMEOUT: Duration = Duration::from_secs(1);

/// A running server. Its threads belong to this process, its socket to the namespace.
#[derive(Debug)]
pub struct BannerServer {
    address: SocketAddr,
    listener: Arc<TcpListener>,
    served: Arc<AtomicU64>,
    threads: Vec<JoinHandle<()>>,
}

impl BannerServer {
    /// Listens at `address` inside `namespaces`; port 0 takes a free one. Each client is answered
    /// at once with an HTTP response whose body is `banner` and a newline, whether it asks or not.
    pub fn start(namespaces: &Namespaces, address: SocketAddr, banner: &str) -> Result<Self> {
        let listener = namespaces
            .run(|| TcpListener::bind(address))?
            .with_context(|| format!("failed to listen at {address}"))?;
        // std sets a backlog of 128, which a thousand connects a second can fill while another
        // program has the processor.
        rustix::net::listen(listener.as_fd(), 4096).context("failed to make the backlog longer")?;
        let address = listener.local_addr().context("failed to read the address listened at")?;
        let (listener, served) = (Arc::new(listener), Arc::new(AtomicU64::new(0)));
        let response = format!(
            "HTTP/1.0 200 OK\r\nContent-Type: text/plain\r\nContent-Length: {}\r\n\r\n{banner}\n",
            banner.len() + 1
        );
        let response: Arc<str> = response.into();
        let serve = || {
            let (listener, served, response) =
                (Arc::clone(&listener), Arc::clone(&served), Arc::clone(&response));
            std::thread::spawn(move || {
                while let Ok((stream, _)) = listener.accept() {
                    // A client that disconnects early reports the error itself.
                    if greet(stream, &response).is_ok() {
                        served.fetch_add(1, Ordering::Relaxed);
                    }
                }
            })
        };
        let threads = (0..THREADS).map(|_| serve()).collect();
        Ok(Self { address, listener, served, threads })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
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

impl Drop for BannerServer {
    fn drop(&mut self) {
        // On Linux this wakes accept() with an error, which ends the threads.
        let _ = rustix::net::shutdown(self.listener.as_fd(), rustix::net::Shutdown::Both);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}
