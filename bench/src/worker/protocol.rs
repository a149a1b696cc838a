//! What the measured clients and their server say to each other.

use std::os::fd::OwnedFd;

use anyhow::{Context, Result, ensure};
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recv, send, socket_with,
};

/// Bytes of a block.
pub(crate) const BLOCK: usize = 64 << 10;

/// The first byte of a connection that carries blocks; a download's is followed by their number.
pub(super) const UPLOAD: u8 = b'u';
pub(super) const DOWNLOAD: u8 = b'd';
/// The first byte of a connection that is answered with the last octet of the server's address.
pub(crate) const WHICH: u8 = b'w';
/// The first byte of a connection that is answered and stays open; and of one that ends them all.
pub(super) const HOLD: u8 = b'h';
pub(super) const RELEASE: u8 = b'r';

/// Sends a byte; returns the server's.
pub(super) fn ask(socket: &OwnedFd, byte: u8) -> Result<u8> {
    send(socket, &[byte], SendFlags::NOSIGNAL).context("send")?;
    let mut answer = [0];
    let (length, _) = recv(socket, &mut answer, RecvFlags::empty()).context("recv")?;
    ensure!(length == 1, "the server closed the connection");
    Ok(answer[0])
}

pub(super) fn send_all(socket: &OwnedFd, mut bytes: &[u8]) -> Result<()> {
    while !bytes.is_empty() {
        let sent = send(socket, bytes, SendFlags::NOSIGNAL).context("send")?;
        bytes = &bytes[sent..];
    }
    Ok(())
}

pub(super) fn new_socket(kind: SocketType) -> Result<OwnedFd> {
    socket_with(AddressFamily::INET, kind, SocketFlags::CLOEXEC, None).context("socket")
}
