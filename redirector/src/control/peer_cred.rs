//! The credentials of the process at the other end of the socket.

use std::os::fd::AsRawFd;

use tokio::net::UnixStream;

use crate::control::command::Caller;

/// Groups that are read at most; a user has a handful.
const MAX_GROUPS: usize = 1024;

/// The process that connected; with user and group -1 when the kernel does not report it.
pub(super) fn caller(stream: &UnixStream) -> Caller {
    stream.peer_cred().map_or_else(
        |_| Caller { pid: None, uid: u32::MAX, gid: u32::MAX },
        |peer| Caller { pid: peer.pid(), uid: peer.uid(), gid: peer.gid() },
    )
}

/// Its supplementary groups at the time of connect (SO_PEERGROUPS, 4.13); none when the kernel does
/// not report them.
pub(super) fn groups(stream: &UnixStream) -> Vec<u32> {
    let mut groups = vec![0_u32; MAX_GROUPS];
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
