//! `sock_release`: sockets that their application closes.

use aya_ebpf::programs::SockContext;
use redirector_common::{addr::Ip4Be, origin::Origin};

use crate::{
    ctx::{IPPROTO_TCP, TCP_CLOSE, TCP_ESTABLISHED, TCP_SYN_SENT, read},
    maps, outcome,
};

/// The application closes the socket. If it is still connecting, the state callback that follows
/// counts the outcome. If it is connected, the callback sees that no reset of the backend ends it.
///
/// A TCP socket in another state was connected; its state callbacks do the counting.
#[inline(always)]
pub(crate) fn release(ctx: &SockContext) {
    let state = read!((*ctx.sock).state);
    let is_pending = state == TCP_SYN_SENT || state == TCP_ESTABLISHED || state == TCP_CLOSE;
    if read!((*ctx.sock).protocol) == IPPROTO_TCP && !is_pending {
        return;
    }
    let Some(origin) = maps::origin(ctx.sock.cast()) else { return };
    if state == TCP_ESTABLISHED || origin.phase == Origin::PHASE_CONNECTING && state == TCP_SYN_SENT
    {
        origin.flags |= Origin::FLAG_ABORTED;
    } else if origin.phase == Origin::PHASE_CHOSEN {
        if state == TCP_CLOSE {
            outcome::note_route(origin, Ip4Be(read!((*ctx.sock).dst_ip4)));
        }
        outcome::finish_in_flight(origin);
    }
}
