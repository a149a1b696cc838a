//! Who is at the other end of the socket, as the kernel says.

use std::os::fd::AsRawFd;

use tokio::net::UnixStream;

use crate::control::command::Caller;

/// More groups than this are not looked at; a user has a handful.
const MOST_GROUPS: usize = 1024;

/// The process that connected; nobody's user and group when the kernel does not say.
pub(super) fn caller(stream: &UnixStream) -> Caller {
    stream.peer_cred().map_or_else(
        |_| Caller { pid: None, uid: u32::MAX, gid: u32::MAX },
        |peer| Caller { pid: peer.pid(), uid: peer.uid(), gid: peer.gid() },
    )
}

/// The supplementary groups that it had when it connected (SO_PEERGROUPS, 4.13); none when the
/// kernel does not say.
pub(super) fn groups(stream: &UnixStream) -> Vec<u32> {
    let mut groups = vec![0_u32; MOST_GROUPS];
    let mut length = libc::socklen_t::try_from(size_of_val(groups.as_slice())).unwrap_or_default();
    // SAFETY: the kernel writes at most `length` bytes to `groups`, which has as many, and the
    // length that it wrote to `length`.
    let failed = unsafe {
        libc::getsockopt(
            stream.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_PEERGROUPS,
            groups.as_mut_ptr().cast(),
            &raw mut length,
        ) != 0
    };
    groups.truncate(if failed { 0 } else { length as usize / size_of::<u32>() });
    groups
}
