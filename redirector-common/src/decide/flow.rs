//! What a guest's TCP segment, or one of its backend, means for their flow.

use super::balance::below;
use crate::{addr::PortBe, packet::flow::FlowState};

/// Flags of a TCP header (RFC 9293 section 3.1).
pub mod tcp {
    /// No more data from the sender.
    pub const FIN: u32 = 1;
    /// Synchronize sequence numbers.
    pub const SYN: u32 = 2;
    /// Reset the connection.
    pub const RST: u32 = 4;
    /// The acknowledgment is valid.
    pub const ACK: u32 = 16;
    /// The flags of ECN, which an ECN SYN has.
    pub const ECN: u32 = 0xc0;
}

use tcp::{ACK, FIN, RST, SYN};

/// The first ports that are tried for a flow whose own port is taken are below the usual range of
/// ephemeral ports.
const SPARE_PORTS: core::ops::Range<u16> = 1024..32768;

/// How long a SYN is without an answer before its retransmission moves, unless the agent says
/// otherwise, in milliseconds.
const DEFAULT_SYN_WAIT_MS: u32 = 500;

/// What a guest's SYN is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GuestSyn {
    /// A new connection, which replaces an older flow.
    New,
    /// The SYN of the flow, for the same backend.
    Again,
    /// The SYN of the flow, which its backend has refused or not answered.
    Move,
}

/// What the SYN of a guest means for the flow with its addresses and ports. `same_sequence`: it has
/// the initial sequence number of the flow; `waited_ns`: the time since that flow's SYN.
#[inline(always)]
pub const fn guest_syn(
    state: FlowState,
    same_sequence: bool,
    waited_ns: u64,
    syn_wait_ms: u32,
) -> GuestSyn {
    if !same_sequence || state.is_ended() {
        return GuestSyn::New;
    }
    if state.is_half_open()
        && (state.has(FlowState::FAILED) || waited_ns >= syn_wait_ns(syn_wait_ms))
    {
        return GuestSyn::Move;
    }
    GuestSyn::Again
}

#[inline(always)]
const fn syn_wait_ns(syn_wait_ms: u32) -> u64 {
    let ms = if syn_wait_ms == 0 { DEFAULT_SYN_WAIT_MS } else { syn_wait_ms };
    ms as u64 * 1_000_000
}

/// The flags that a guest's segment adds to the state of its flow. `offset`: its sequence number
/// less the initial one.
///
/// A reset with another sequence number than the next one answers a stray acknowledgment, and the
/// guest keeps connecting.
#[inline(always)]
pub const fn guest_segment(state: FlowState, flags: u32, offset: u32) -> u32 {
    if state.is_half_open() {
        return if flags & RST != 0 && offset == 1 { FlowState::RESET } else { 0 };
    }
    if flags & RST != 0 {
        FlowState::RESET
    } else if flags & FIN != 0 {
        FlowState::GUEST_FIN
    } else {
        0
    }
}

/// What a backend's segment is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reply {
    /// A segment that changes nothing.
    Translate,
    /// It accepts the connect.
    Establish,
    /// It refuses the connect.
    Refuse,
    /// It ends its direction.
    Finish,
    /// It ends the connection.
    Reset,
    /// It belongs to another connection: the guest's own to the backend's address.
    Foreign,
    /// As `Foreign`, and the flow has ended, so it can be removed.
    Stale,
}

/// What the segment of a backend means for its flow. `acknowledged`: its acknowledgment less the
/// initial sequence number of the guest; `same_origin`: it came in by the same interface as the
/// answer that established the flow.
///
/// A sender with the backend's address, as another guest, cannot end an established flow: the
/// guest's kernel ignores a reset out of sequence, and must not lose its flow by it. Before that,
/// an answer needs the sequence number of the SYN.
#[inline(always)]
pub const fn reply(
    state: FlowState,
    flags: u32,
    (acknowledged, same_origin): (u32, bool),
) -> Reply {
    let answers_syn = flags & ACK != 0 && acknowledged.wrapping_sub(1) <= state.syn_octets();
    if flags & (SYN | ACK | RST) == SYN | ACK && !answers_syn {
        return if state.is_ended() { Reply::Stale } else { Reply::Foreign };
    }
    if state.is_half_open() {
        return if flags & RST != 0 {
            refusal(flags, answers_syn)
        } else if answers_syn {
            Reply::Establish
        } else {
            Reply::Translate
        };
    }
    if !same_origin {
        Reply::Translate
    } else if flags & RST != 0 {
        Reply::Reset
    } else if flags & FIN != 0 {
        Reply::Finish
    } else {
        Reply::Translate
    }
}

/// A guest that connects ignores a reset without an acknowledgment.
#[inline(always)]
const fn refusal(flags: u32, answers_syn: bool) -> Reply {
    if answers_syn {
        Reply::Refuse
    } else if flags & ACK != 0 {
        Reply::Foreign
    } else {
        Reply::Translate
    }
}

/// A port for a flow whose own one another flow to the same backend uses.
#[inline(always)]
pub const fn spare_port(random: u32) -> PortBe {
    let count = SPARE_PORTS.end - SPARE_PORTS.start;
    PortBe::new(SPARE_PORTS.start + below(random, count as u32) as u16)
}

#[cfg(test)]
#[path = "flow_tests.rs"]
mod tests;
