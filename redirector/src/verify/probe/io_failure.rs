//! How a system call failed, as far as it leads to different causes.

use std::io;

use serde::{Deserialize, Serialize};

/// How a system call failed, as far as it leads to different causes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum IoFailure {
    /// Nothing came in time.
    TimedOut,
    /// The other side, or a program of ours, refused.
    Refused,
    /// A route, a firewall or the guard says that there is no way.
    Unreachable,
    /// The kernel forbids it: so do programs of ours below 6.1, and policies of others.
    NotPermitted,
    /// The other side has closed, with or without a reset.
    Closed,
    /// Anything else, in the system's words.
    Other(String),
}

impl IoFailure {
    pub(super) fn from_error(error: &io::Error) -> Self {
        match (error.kind(), error.raw_os_error()) {
            (io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock, _) => Self::TimedOut,
            (io::ErrorKind::ConnectionRefused, _) => Self::Refused,
            (io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable, _) => {
                Self::Unreachable
            }
            (io::ErrorKind::PermissionDenied, _) => Self::NotPermitted,
            (
                io::ErrorKind::ConnectionReset
                | io::ErrorKind::ConnectionAborted
                | io::ErrorKind::BrokenPipe
                | io::ErrorKind::UnexpectedEof,
                _,
            ) => Self::Closed,
            _ => Self::Other(error.to_string()),
        }
    }

    /// As text.
    pub(crate) fn label(&self) -> &str {
        match self {
            Self::TimedOut => "no answer in time",
            Self::Refused => "connection refused",
            Self::Unreachable => "no route to host",
            Self::NotPermitted => "operation not permitted",
            Self::Closed => "closed by the other side",
            Self::Other(message) => message,
        }
    }
}
