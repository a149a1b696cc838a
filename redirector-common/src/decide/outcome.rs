//! Infers the outcome of a connect from the hooks that ran, since none of them can read the
//! socket's error.

use crate::{event::EventKind, origin::Origin};

/// The outcome of a connect that was not established.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConnectOutcome {
    /// Answered with a reset, or with an ICMP error before the first retransmission.
    Refused,
    /// Retransmitted until the kernel gave up.
    TimedOut,
    /// Ended after a retransmission but before the kernel gave up: an ICMP error, which the kernel
    /// acts upon only then.
    Unreachable,
    /// Closed by the application.
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

/// The outcome of a connect whose socket closes in `phase` with `flags` (see [`Origin`]). Measured
/// on 5.10 to 6.18:
///
/// | case | hooks that run before the socket closes |
/// |---|---|
/// | reset | nothing |
/// | ICMP unreachable | a retransmission timeout, not the last |
/// | no answer | retransmission timeouts up to the last |
/// | closed by the application | `sock_release` in SYN-SENT |
/// | no route, no source address | `sock_release` without any callback |
pub const fn connect_outcome(phase: u8, flags: u8) -> ConnectOutcome {
    if phase == Origin::PHASE_CHOSEN {
        ConnectOutcome::Unsent
    } else if flags & Origin::FLAG_ABORTED != 0 {
        ConnectOutcome::Aborted
    } else if flags & Origin::FLAG_EXPIRED != 0 {
        ConnectOutcome::TimedOut
    } else if flags & Origin::FLAG_RETRANSMITTED != 0 {
        ConnectOutcome::Unreachable
    } else {
        ConnectOutcome::Refused
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn phase_and_flags_determine_the_outcome() {
        const CONNECTING: u8 = Origin::PHASE_CONNECTING;
        let outcome = |flags| connect_outcome(CONNECTING, flags);
        assert_eq!(outcome(0), ConnectOutcome::Refused);
        assert_eq!(outcome(Origin::FLAG_RETRANSMITTED), ConnectOutcome::Unreachable);
        assert_eq!(
            outcome(Origin::FLAG_RETRANSMITTED | Origin::FLAG_EXPIRED),
            ConnectOutcome::TimedOut
        );
        assert_eq!(
            outcome(Origin::FLAG_RETRANSMITTED | Origin::FLAG_ABORTED),
            ConnectOutcome::Aborted
        );
        assert_eq!(connect_outcome(Origin::PHASE_CHOSEN, 0), ConnectOutcome::Unsent);
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
