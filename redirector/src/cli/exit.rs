//! Exit codes: a documented contract, decided here and returned from main only.

use std::{fmt, io};

use crate::control::{ClientError, ErrorCode};

/// How an invocation ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// 0: done; for `status`, nothing is amiss.
    Done,
    /// 1: failed; for `status`, something is amiss.
    Failed,
    /// 2: the command line or the configuration is wrong.
    Usage,
    /// 3: this kernel or these privileges can't do it.
    Unsupported,
    /// 4: there is no agent and none of its pins.
    Absent,
}

impl Exit {
    /// The number.
    pub fn code(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::Failed => 1,
            Self::Usage => 2,
            Self::Unsupported => 3,
            Self::Absent => 4,
        }
    }

    /// An error that ends with this code.
    pub fn because(self, message: impl Into<String>) -> anyhow::Error {
        Coded { exit: self, message: message.into() }.into()
    }

    /// The code for an error, by the first of its causes that decides one.
    pub fn of(error: &anyhow::Error) -> Self {
        error.chain().find_map(code_of).unwrap_or(Self::Failed)
    }
}

/// An error that knows its exit code.
#[derive(Debug)]
struct Coded {
    exit: Exit,
    message: String,
}

impl fmt::Display for Coded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Coded {}

fn code_of(cause: &(dyn std::error::Error + 'static)) -> Option<Exit> {
    if let Some(coded) = cause.downcast_ref::<Coded>() {
        return Some(coded.exit);
    }
    if let Some(client) = cause.downcast_ref::<ClientError>() {
        return Some(match client {
            ClientError::NotPermitted { .. } => Exit::Unsupported,
            ClientError::Refused(error) if matches!(error.code, ErrorCode::Invalid | ErrorCode::BadRequest) => Exit::Usage,
            _ => Exit::Failed,
        });
    }
    // Whoever read our output has gone: nothing is wrong with us.
    cause.downcast_ref::<io::Error>().filter(|error| error.kind() == io::ErrorKind::BrokenPipe).map(|_| Exit::Done)
}
