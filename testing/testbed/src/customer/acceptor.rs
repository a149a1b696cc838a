//! What the servers of single connections share: a listener, and threads that accept from it.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::thread::JoinHandle;

use anyhow::{Context, Result};

use crate::isolation::namespaces::Namespaces;

/// A listening socket inside namespaces, with threads of this process. Dropping it ends them.
#[derive(Debug)]
pub(super) struct Acceptor {
    address: SocketAddr,
    listener: Arc<TcpListener>,
    threads: Vec<JoinHandle<()>>,
}

impl Acceptor {
    /// Listens at `address` inside `namespaces`; port 0 takes a free one. Each of as many threads
    /// as `threads` passes one connection after the other to `serve`.
    pub(super) fn start(
        namespaces: &Namespaces,
        address: SocketAddr,
        threads: usize,
        serve: impl Fn(TcpStream) + Clone + Send + 'static,
    ) -> Result<Self> {
        let listener = namespaces
            .run(|| TcpListener::bind(address))?
            .with_context(|| format!("failed to listen at {address}"))?;
        // std sets a backlog of 128, which a thousand connects a second can fill while another
        // program has the processor.
        rustix::net::listen(listener.as_fd(), 4096).context("failed to make the backlog longer")?;
        let address = listener.local_addr().context("failed to read the address listened at")?;
        let listener = Arc::new(listener);
        let accept = |_| {
            let (listener, serve) = (Arc::clone(&listener), serve.clone());
            std::thread::spawn(move || {
                while let Ok((stream, _)) = listener.accept() {
                    serve(stream);
                }
            })
        };
        let threads = (0..threads).map(accept).collect();
        Ok(Self { address, listener, threads })
    }

    /// Where it listens.
    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Acceptor {
    fn drop(&mut self) {
        // On Linux this wakes accept() with an error, which ends the threads.
        let _ = rustix::net::shutdown(self.listener.as_fd(), rustix::net::Shutdown::Both);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}
