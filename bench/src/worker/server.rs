//! The server of the measured clients.

use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{RecvFlags, SocketType, accept, bind, getsockname, listen, recv};

use super::protocol::{BLOCK, DOWNLOAD, HOLD, RELEASE, UPLOAD, WHICH, new_socket, send_all};
use crate::host;

/// Options of the server.
#[derive(Clone, Copy, Debug, clap::Args)]
pub struct ServeOptions {
    /// How many connections are served at the same time
    #[arg(long, default_value_t = 1)]
    pub threads: usize,
}

/// A client that sends nothing for so long is given up: its packets may be dropped.
const SILENCE: Duration = Duration::from_secs(2);

/// `redirector-bench serve`: answers one byte with one byte and closes, or moves blocks, or keeps
/// the connection.
pub fn serve(options: ServeOptions) -> Result<()> {
    let listener = new_socket(SocketType::STREAM)?;
    bind(&listener, &SocketAddr::from(([0, 0, 0, 0], 0))).context("failed to bind")?;
    // Connections inherit it.
    set_socket_timeout(&listener, Timeout::Recv, Some(SILENCE)).context("failed to set a limit")?;
    listen(&listener, 1024).context("failed to listen")?;
    let Ok(SocketAddr::V4(address)) =
        SocketAddr::try_from(getsockname(&listener).context("failed to read the port")?)
    else {
        bail!("the listener has no IPv4 address");
    };
    host::allow_descriptors()?;
    println!("{}", address.port());
    let held = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for _ in 1..options.threads {
            scope.spawn(|| serve_connections(&listener, &held));
        }
        serve_connections(&listener, &held)
    })
}

/// Serves one connection after the other.
fn serve_connections(listener: &OwnedFd, held: &Mutex<Vec<OwnedFd>>) -> Result<()> {
    let held = || held.lock().unwrap_or_else(PoisonError::into_inner);
    loop {
        let connection = match accept(listener) {
            Err(rustix::io::Errno::AGAIN) => continue,
            accepted => accepted.context("failed to accept")?,
        };
        let mut byte = [0];
        let Ok(_) = recv(&connection, &mut byte, RecvFlags::empty()) else { continue };
        // A client that disconnects early reports the error itself.
        let _ = match byte[0] {
            UPLOAD | DOWNLOAD => serve_transfer(&connection, byte[0]),
            WHICH => own_octet(&connection).and_then(|octet| send_all(&connection, &[octet])),
            HOLD => {
                let sent = send_all(&connection, &byte);
                held().push(connection);
                sent
            }
            RELEASE => {
                held().clear();
                send_all(&connection, &byte)
            }
            _ => send_all(&connection, &byte),
        };
    }
}

/// Moves the blocks of a connection, after its first byte.
fn serve_transfer(connection: &OwnedFd, first: u8) -> Result<()> {
    let mut block = vec![0; BLOCK];
    if first == UPLOAD {
        while let (1.., _) = recv(connection, &mut block, RecvFlags::empty())? {}
        return send_all(connection, b"!");
    }
    let mut count = [0; 4];
    let (length, _) = recv(connection, &mut count, RecvFlags::WAITALL)?;
    ensure!(length == count.len(), "a client ended early");
    (0..u32::from_le_bytes(count)).try_for_each(|_| send_all(connection, &block))
}

/// The last octet of the address that a client reached.
fn own_octet(connection: &OwnedFd) -> Result<u8> {
    match SocketAddr::try_from(getsockname(connection).context("failed to read an address")?) {
        Ok(SocketAddr::V4(address)) => Ok(address.ip().octets()[3]),
        _ => bail!("a connection has no IPv4 address"),
    }
}
