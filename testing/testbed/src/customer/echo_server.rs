//! A server that sends back what it receives, for connections that are kept.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::isolation::namespaces::Namespaces;

/// How long a client may be silent.
const CLIENT_TIMEOUT: Duration = Duration::from_secs(60);

/// A running server. Its threads belong to this process, its socket to the namespace.
#[derive(Debug)]
pub struct EchoServer {
    listener: Arc<TcpListener>,
    thread: Option<JoinHandle<()>>,
}

impl EchoServer {
    /// Listens at `address` inside `namespaces`.
    pub(crate) fn start(namespaces: &Namespaces, address: SocketAddr) -> Result<Self> {
        let listener = namespaces
            .run(|| TcpListener::bind(address))?
            .with_context(|| format!("failed to listen at {address}"))?;
        let listener = Arc::new(listener);
        let accepting = Arc::clone(&listener);
        let thread = std::thread::spawn(move || {
            while let Ok((stream, _)) = accepting.accept() {
                // A client that disconnects early reports the error itself.
                std::thread::spawn(move || drop(echo(stream)));
            }
        });
        Ok(Self { listener, thread: Some(thread) })
    }
}

impl Drop for EchoServer {
    fn drop(&mut self) {
        // On Linux this wakes accept() with an error, which ends the thread.
        let _ = rustix::net::shutdown(self.listener.as_fd(), rustix::net::Shutdown::Both);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn echo(mut stream: TcpStream) -> std::io::Result<()> {
    stream.set_read_timeout(Some(CLIENT_TIMEOUT))?;
    stream.set_nodelay(true)?;
    let mut bytes = [0; 2048];
    loop {
        match stream.read(&mut bytes)? {
            0 => return Ok(()),
            length => stream.write_all(&bytes[..length])?,
        }
    }
}
