//! The mark on sockets that ask DNS servers for ourselves: the programs in the kernel never take
//! such queries to the shim, or those that the shim passes on would come back to it.

use std::{io, os::fd::AsFd};

use redirector_common::dns::MARK;
use socket2::SockRef;

/// Marks a socket as one of ours.
///
/// # Errors
///
/// Without CAP_NET_ADMIN. Then nothing may be intercepted.
pub(crate) fn mark(socket: &impl AsFd) -> io::Result<()> {
    SockRef::from(socket).set_mark(MARK)
}
