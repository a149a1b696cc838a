//! The mark (SO_MARK) on sockets that query DNS servers for the agent itself. The programs in the
//! kernel do not intercept marked queries; without the mark, what the shim forwards would come back
//! to it.

use std::{io, os::fd::AsFd};

use redirector_common::dns::MARK;
use socket2::SockRef;

/// Marks a socket as one of ours.
///
/// # Errors
///
/// Without CAP_NET_ADMIN. The caller must then not intercept DNS.
pub(crate) fn mark(socket: &impl AsFd) -> io::Result<()> {
    SockRef::from(socket).set_mark(MARK)
}

/// As [`mark`], but ignores a failure: without CAP_NET_ADMIN nothing is intercepted.
pub(crate) fn mark_if_permitted(socket: &impl AsFd) {
    let _ = mark(socket);
}
