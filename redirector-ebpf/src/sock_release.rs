//! `sock_release`: sockets that the application lets go of.

use aya_ebpf::programs::SockContext;
use redirector_common::origin::Origin;

use crate::{
    ctx::{IPPROTO_TCP, TCP_CLOSE, TCP_SYN_SENT, read},
    maps, outcome,
};

/// The application lets go of the socket. One that is still connecting is about to be closed: the
/// state callback that follows counts it.
///
/// A TCP socket in another state is, or was, connected, and its state callbacks have told or will
/// tell it: most cost nothing more.
#[inline(always)]
pub(crate) fn release(ctx: &SockContext) {
    let state = read!((*ctx.sock).state);
    if read!((*ctx.sock).protocol) == IPPROTO_TCP && state != TCP_SYN_SENT && state != TCP_CLOSE {
        return;
    }
    let Some(origin) = maps::origin(ctx.sock.cast()) else { return };
    if origin.phase == Origin::PHASE_CONNECTING && state == TCP_SYN_SENT {
        origin.marks |= Origin::MARK_ABORTED;
    } else if origin.phase == Origin::PHASE_CHOSEN {
        outcome::settle(origin);
    }
}
