//! Whether a backend that accepted a connect has reset the connection before a byte arrived.

use crate::origin::Origin;

/// How soon a reset counts if the client has sent nothing. Later it may be the answer to that:
/// servers wait for a client for 3 s and more.
const SILENT_CLIENT_NS: u64 = 1_000_000_000;

/// How soon it counts after a request. Load balancers reset idle connections after minutes.
const REQUEST_NS: u64 = 30_000_000_000;

/// Whether a reset by the backend, `age_ns` after it accepted the connect, counts as a failure of
/// it. `sent`: whether the client has sent data.
#[inline(always)]
pub const fn is_early_reset(received: u64, sent: bool, age_ns: u64) -> bool {
    received == 0 && age_ns < if sent { REQUEST_NS } else { SILENT_CLIENT_NS }
}

/// The kernel's counters of a socket that is closed in ESTABLISHED.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FinalCounters {
    /// Segments received; the SYN-ACK is one.
    pub segments_in: u32,
    /// Segments sent; the SYN is one.
    pub segments_out: u32,
    /// Segments sent with data.
    pub data_segments_out: u32,
    /// Segments sent again.
    pub retransmitted: u32,
    /// Octets that are not acknowledged.
    pub unacknowledged: u32,
    /// Segments in the queue of those that are not acknowledged.
    pub queued: u32,
}

/// Whether a socket of an [`Origin`] with `flags` that goes from ESTABLISHED to CLOSE was reset by
/// its peer, not by its own side. No hook can read its error. Measured on 6.18:
///
/// | case | what shows it |
/// |---|---|
/// | reset | a segment besides the SYN-ACK was received, the queue is empty |
/// | `close` with SO_LINGER 0 | `sock_release` ran before |
/// | `connect` with `AF_UNSPEC` | nothing was received, or the queue is as it was |
/// | `ss -K` | a reset was sent |
/// | no answer to data | the last retransmission timeout came before |
/// | no answer to keepalive probes | probes were sent |
///
/// After `AF_UNSPEC` on a connection whose data was acknowledged nothing differs from a reset. Its
/// failure counts for its own cgroup only.
#[inline(always)]
pub const fn ended_by_reset(flags: u8, socket: &FinalCounters) -> bool {
    // The SYN and the acknowledgment of the SYN-ACK, and each SYN that was sent again.
    let without_data = socket.segments_out.wrapping_sub(socket.data_segments_out);
    flags & (Origin::FLAG_ABORTED | Origin::FLAG_EXPIRED) == 0
        && socket.segments_in > 1
        && without_data <= socket.retransmitted.saturating_add(2)
        && (socket.unacknowledged == 0 || socket.queued == 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    #[test]
    fn a_late_reset_is_no_failure() {
        for (received, sent, age_ns, counts) in [
            (0, false, 0, true),
            (0, false, SECOND - 1, true),
            (0, false, SECOND, false),
            (0, true, 29 * SECOND, true),
            (0, true, 350 * SECOND, false),
            (1, true, 0, false),
        ] {
            assert_eq!(is_early_reset(received, sent, age_ns), counts, "{sent} {age_ns}");
        }
    }

    #[test]
    fn only_the_peer_resets() {
        let silent = FinalCounters {
            segments_in: 2,
            segments_out: 2,
            data_segments_out: 0,
            ..FinalCounters::default()
        };
        let answered =
            FinalCounters { segments_in: 3, segments_out: 3, data_segments_out: 1, ..silent };
        let purged = FinalCounters { segments_in: 2, unacknowledged: 100, queued: 0, ..answered };
        let retried = FinalCounters { segments_out: 3, retransmitted: 1, ..silent };
        for reset in [silent, answered, purged, retried] {
            assert!(ended_by_reset(0, &reset), "{reset:?}");
            for flag in [Origin::FLAG_ABORTED, Origin::FLAG_EXPIRED] {
                assert!(!ended_by_reset(flag, &reset), "{reset:?}");
            }
            // A reset or a probe of our own.
            let own = FinalCounters { segments_out: reset.segments_out + 1, ..reset };
            assert!(!ended_by_reset(0, &own), "{own:?}");
            assert!(!ended_by_reset(0, &FinalCounters { segments_in: 1, ..reset }));
        }
        assert!(!ended_by_reset(0, &FinalCounters { queued: 1, ..purged }), "its data is queued");
    }
}
