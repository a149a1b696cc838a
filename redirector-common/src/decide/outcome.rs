//! Infers the outcome of a connect from the hooks that ran, since none of them can read the
//! socket's error.

use crate::{event::EventKind, origin::Origin};

/// The outcome of a connect that was not established.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConnectOutcome {
    /// Answered with a reset.
    Refused,
    /// Retransmitted until the kernel gave up.
    TimedOut,
    /// Ended by an ICMP error.
    Unreachable,
    /// Ended by the application: closed, shut down, disconnected, cancelled.
    Aborted,
    /// Nothing was ever sent.
    Unsent,
}

impl ConnectOutcome {
    /// Whether the backend is at fault.
    pub const fn is_backend_failure(self) -> bool {
        matches!(self, Self::Refused | Self::TimedOut | Self::Unreachable)
    }

    /// The kind of event that reports it.
    #[inline(always)]
    pub const fn event_kind(self) -> EventKind {
        match self {
            Self::Refused => EventKind::Refused,
            Self::TimedOut => EventKind::TimedOut,
            Self::Unreachable => EventKind::Unreachable,
            Self::Aborted => EventKind::Aborted,
            Self::Unsent => EventKind::Unsent,
        }
    }
}

/// The outcome of a connect whose socket closes in `phase` with `flags` and `evidence` (see
/// [`Origin`]). Measured on 6.18; others by the kernel's source:
///
/// | case | hooks that run before the socket closes | segments received | SYN in the queue |
/// |---|---|---|---|
/// | reset | nothing | 1 | no |
/// | no answer | retransmission timeouts up to the last | 0 | |
/// | ICMP unreachable | nothing, or a retransmission timeout | 0 | no; yes before 6.11 |
/// | `close` | `sock_release` in SYN-SENT | 0 | yes |
/// | `shutdown`, `AF_UNSPEC`, a parent MPTCP socket's `close` | nothing | 0 | yes |
/// | no route, no source address | `sock_release` without any callback | | |
///
/// Where two cases look the same, it is the one that blames nobody.
pub const fn connect_outcome(phase: u8, flags: u8, evidence: u8) -> ConnectOutcome {
    if phase == Origin::PHASE_CHOSEN {
        ConnectOutcome::Unsent
    } else if flags & Origin::FLAG_ABORTED != 0 {
        ConnectOutcome::Aborted
    } else if flags & Origin::FLAG_EXPIRED != 0 {
        ConnectOutcome::TimedOut
    } else if evidence & Origin::EVIDENCE_ANSWERED != 0 {
        ConnectOutcome::Refused
    } else if evidence & Origin::EVIDENCE_ERROR != 0 {
        ConnectOutcome::Unreachable
    } else {
        ConnectOutcome::Aborted
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn phase_flags_and_evidence_determine_the_outcome() {
        const ERROR: u8 = Origin::EVIDENCE_ERROR;
        const RESET: u8 = Origin::EVIDENCE_ANSWERED | ERROR;
        const SILENT: u8 = Origin::FLAG_RETRANSMITTED;
        for (flags, evidence, outcome) in [
            (0, RESET, ConnectOutcome::Refused),
            (SILENT, RESET, ConnectOutcome::Refused),
            (0, ERROR, ConnectOutcome::Unreachable),
            (SILENT, ERROR, ConnectOutcome::Unreachable),
            (SILENT | Origin::FLAG_EXPIRED, ERROR, ConnectOutcome::TimedOut),
            (SILENT | Origin::FLAG_EXPIRED, 0, ConnectOutcome::TimedOut),
            (0, 0, ConnectOutcome::Aborted),
            (SILENT, 0, ConnectOutcome::Aborted),
            (SILENT | Origin::FLAG_ABORTED, 0, ConnectOutcome::Aborted),
        ] {
            let found = connect_outcome(Origin::PHASE_CONNECTING, flags, evidence);
            assert_eq!(found, outcome, "{flags} {evidence}");
        }
        assert_eq!(connect_outcome(Origin::PHASE_CHOSEN, 0, 0), ConnectOutcome::Unsent);
    }

    #[test]
    fn only_network_outcomes_are_backend_failures() {
        assert!(
            ConnectOutcome::Refused.is_backend_failure()
                && ConnectOutcome::TimedOut.is_backend_failure()
                && ConnectOutcome::Unreachable.is_backend_failure()
        );
        assert!(
            !ConnectOutcome::Aborted.is_backend_failure()
                && !ConnectOutcome::Unsent.is_backend_failure()
        );
    }
}
