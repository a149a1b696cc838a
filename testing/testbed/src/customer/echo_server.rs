//! A server that sends back what it receives, for connections that are kept.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::Result;

use super::acceptor::Acceptor;
use crate::isolation::namespaces::Namespaces;

/// How long a client may be silent.
const CLIENT_TIMEOUT: Duration = Duration::from_secs(60);

/// A running server. Its threads belong to this process, its socket to the namespace.
#[derive(Debug)]
pub struct EchoServer {
    _acceptor: Acceptor,
}

impl EchoServer {
    /// Listens at `address` inside `namespaces`.
    pub(crate) fn start(namespaces: &Namespaces, address: SocketAddr) -> Result<Self> {
        let serve = |stream| {
            // A client that disconnects early reports the error itself.
            std::thread::spawn(move || drop(echo(stream)));
        };
        Ok(Self { _acceptor: Acceptor::start(namespaces, address, 1, serve)? })
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
