//! How a connect ended, from what the hooks saw: no hook is told the socket's error.

use crate::{event::Event, origin::Origin};

/// The end of a connect that was not established.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// Answered with a reset, or with an ICMP error before the first retransmission.
    Refused,
    /// Retransmitted until the kernel gave up.
    TimedOut,
    /// Ended after a retransmission but before the kernel gave up: an ICMP error that the kernel
    /// acts upon only then.
    Unreachable,
    /// Closed by the application.
    Aborted,
    /// Nothing was ever sent.
    Unsent,
}

impl End {
    /// Whether it speaks against the backend.
    pub const fn blames_backend(self) -> bool {
        matches!(self, Self::Refused | Self::TimedOut | Self::Unreachable)
    }

    /// The kind of the [`Event`] that reports it.
    #[inline(always)]
    pub const fn event_kind(self) -> u8 {
        match self {
            Self::Refused => Event::REFUSED,
            Self::TimedOut => Event::TIMED_OUT,
            Self::Unreachable => Event::UNREACHABLE,
            Self::Aborted => Event::ABORTED,
            Self::Unsent => Event::UNSENT,
        }
    }
}

/// The end of a connect whose socket closes in `phase` with `marks` ([`Origin`]). Measured on 5.10
/// to 6.18:
///
/// | case | seen before the socket closes |
/// |---|---|
/// | reset | nothing |
/// | ICMP unreachable | a retransmission time-out that did not expire |
/// | no answer | retransmission time-outs, the last one expired |
/// | closed by the application | `sock_release` in SYN-SENT |
/// | no route, no source address | `sock_release` without any callback |
pub const fn end_of_connect(phase: u8, marks: u8) -> End {
    if phase == Origin::PHASE_CHOSEN {
        End::Unsent
    } else if marks & Origin::MARK_ABORTED != 0 {
        End::Aborted
    } else if marks & Origin::MARK_EXPIRED != 0 {
        End::TimedOut
    } else if marks & Origin::MARK_RETRANSMITTED != 0 {
        End::Unreachable
    } else {
        End::Refused
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_end_is_told_by_what_was_seen() {
        const CONNECTING: u8 = Origin::PHASE_CONNECTING;
        assert_eq!(end_of_connect(CONNECTING, 0), End::Refused);
        assert_eq!(end_of_connect(CONNECTING, Origin::MARK_RETRANSMITTED), End::Unreachable);
        assert_eq!(
            end_of_connect(CONNECTING, Origin::MARK_RETRANSMITTED | Origin::MARK_EXPIRED),
            End::TimedOut
        );
        assert_eq!(
            end_of_connect(CONNECTING, Origin::MARK_RETRANSMITTED | Origin::MARK_ABORTED),
            End::Aborted
        );
        assert_eq!(end_of_connect(Origin::PHASE_CHOSEN, 0), End::Unsent);
    }

    #[test]
    fn only_what_the_network_said_speaks_against_a_backend() {
        assert!(
            End::Refused.blames_backend()
                && End::TimedOut.blames_backend()
                && End::Unreachable.blames_backend()
        );
        assert!(!End::Aborted.blames_backend() && !End::Unsent.blames_backend());
    }
}
