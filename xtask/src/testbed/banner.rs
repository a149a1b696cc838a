//! A server that greets each connection with its name, closes it, and counts: enough to see where a connect has landed.

use std::io::Write;
use std::net::{Shutdown, SocketAddr, TcpListener};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result};

use super::namespace::Namespaces;

/// A running server. It is a thread of this process whose socket is in the namespace it was opened in.
#[derive(Debug)]
pub struct BannerServer {
    address: SocketAddr,
    listener: TcpListener,
    served: Arc<AtomicU64>,
    thread: Option<JoinHandle<()>>,
}

impl BannerServer {
    /// Listens at `address` inside `namespaces`; port 0 takes a free one. Each client reads `banner` and a newline, then the end.
    pub fn start(namespaces: &Namespaces, address: SocketAddr, banner: &str) -> Result<Self> {
        let listener = namespaces.run(|| TcpListener::bind(address))?.with_context(|| format!("failed to listen at {address}"))?;
        // std asks for a backlog of 128, which a thousand connects a second can fill while another program has the processor.
        rustix::net::listen(listener.as_fd(), 4096).context("failed to make the backlog longer")?;
        let address = listener.local_addr().context("failed to read the address listened at")?;
        let served = Arc::new(AtomicU64::new(0));
        let (accepting, count, line) = (listener.try_clone()?, Arc::clone(&served), format!("{banner}\n"));
        let thread = std::thread::spawn(move || {
            while let Ok((mut stream, _)) = accepting.accept() {
                let _ = stream.set_write_timeout(Some(Duration::from_secs(5)));
                // A client that has gone already is its own witness.
                if stream.write_all(line.as_bytes()).is_ok() {
                    count.fetch_add(1, Ordering::Relaxed);
                }
                let _ = stream.shutdown(Shutdown::Write);
            }
        });
        Ok(Self { address, listener, served, thread: Some(thread) })
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

impl Drop for BannerServer {
    fn drop(&mut self) {
        // On Linux this wakes accept() with an error, which ends the thread.
        let _ = rustix::net::shutdown(self.listener.as_fd(), rustix::net::Shutdown::Both);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
