//! `sock_release`: sockets that are closed before they are connected.

use aya_ebpf::programs::SockContext;
use redirector_common::origin::Origin;

use crate::{
    ctx::{IPPROTO_TCP, TCP_CLOSE, TCP_SYN_SENT, read},
    maps, outcome,
};

/// The application closes the socket. If it is still connecting, the state callback that follows
/// counts the outcome.
///
/// A TCP socket in another state is, or was, connected; its state callbacks do the counting. Most
/// sockets therefore cost nothing more.
#[inline(always)]
pub(crate) fn release(ctx: &SockContext) {
    let state = read!((*ctx.sock).state);
    if read!((*ctx.sock).protocol) == IPPROTO_TCP && state != TCP_SYN_SENT && state != TCP_CLOSE {
        return;
    }
    let Some(origin) = maps::origin(ctx.sock.cast()) else { return };
    if origin.phase == Origin::PHASE_CONNECTING && state == TCP_SYN_SENT {
        origin.flags |= Origin::FLAG_ABORTED;
    } else if origin.phase == Origin::PHASE_CHOSEN {
        outcome::finish_in_flight(origin);
    }
}
