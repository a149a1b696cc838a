//! Exit codes: a documented contract, decided here and returned from main only.

use std::{fmt, io};

use crate::{
    config::ConfigErrors,
    control::{ClientError, ErrorCode},
    datapath::DatapathError,
    dns::BindError,
    host::HostError,
    route::{RouteProblems, import::ImportError},
};

/// How an invocation ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// 0: success; for `status`, nothing is degraded.
    Done,
    /// 1: failure; for `status`, something is degraded.
    Failed,
    /// 2: the command line or the configuration is wrong.
    Usage,
    /// 3: this kernel or these privileges can't do it.
    Unsupported,
    /// 4: there is no agent and none of its pins.
    Absent,
}

impl Exit {
    /// Every code.
    #[cfg(test)]
    pub(super) const ALL: [Self; 5] =
        [Self::Done, Self::Failed, Self::Usage, Self::Unsupported, Self::Absent];

    /// What a code means, for the reference.
    #[cfg(test)]
    pub(super) fn meaning(self) -> &'static str {
        match self {
            Self::Done => {
                "success. `status`: nothing is degraded; `verify`: it works; `explain`: a connect \
                    would be redirected; `check`: this host can run the agent"
            }
            Self::Failed => {
                "failure; standard error shows why. `status`: something is degraded; `verify`, \
                    `explain`: it does not work, and the findings show why"
            }
            Self::Usage => {
                "the command line, the configuration, or a route is invalid: correct it; a retry \
                    does not help"
            }
            Self::Unsupported => {
                "the kernel or the privileges do not suffice: `redirector check` shows what is \
                    missing"
            }
            Self::Absent => "no agent runs, and nothing of it is in the kernel",
        }
    }

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

/// Whether an error is a list of problems, one a line.
pub(super) fn lists_problems(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| {
        cause.is::<ConfigErrors>() || cause.is::<ImportError>() || cause.is::<RouteProblems>()
    })
}

fn code_of(cause: &(dyn std::error::Error + 'static)) -> Option<Exit> {
    if let Some(coded) = cause.downcast_ref::<Coded>() {
        return Some(coded.exit);
    }
    if let Some(client) = cause.downcast_ref::<ClientError>() {
        return Some(match client {
            ClientError::NotPermitted { .. } => Exit::Unsupported,
            ClientError::Refused(error) if error.code == ErrorCode::Forbidden => Exit::Unsupported,
            ClientError::Refused(error)
                if matches!(error.code, ErrorCode::Invalid | ErrorCode::BadRequest) =>
            {
                Exit::Usage
            }
            _ => Exit::Failed,
        });
    }
    if let Some(datapath) = cause.downcast_ref::<DatapathError>() {
        match datapath {
            error if error.is_platform() => return Some(Exit::Unsupported),
            error if error.is_configuration() => return Some(Exit::Usage),
            // Its own cause may still decide: EACCES on a pin, for example.
            _ => {}
        }
    }
    if let Some(bind) = cause.downcast_ref::<BindError>() {
        return match bind {
            BindError::NotPermitted { .. } => Some(Exit::Unsupported),
            BindError::NoAddress | BindError::Unspecified(_) | BindError::Loop(_) => {
                Some(Exit::Usage)
            }
            _ => Some(Exit::Failed),
        };
    }
    if cause.is::<ConfigErrors>()
        || cause.is::<ImportError>()
        || cause.is::<RouteProblems>()
        || matches!(cause.downcast_ref(), Some(HostError::PoolIsRouted { .. }))
    {
        return Some(Exit::Usage);
    }
    let io = cause.downcast_ref::<io::Error>()?;
    match io.kind() {
        // The reader of our output has gone, which is not our failure.
        io::ErrorKind::BrokenPipe => Some(Exit::Done),
        io::ErrorKind::PermissionDenied => Some(Exit::Unsupported),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use anyhow::Context as _;

    use super::*;

    #[test]
    fn the_cause_decides_the_code_however_deep_it_is() {
        let denied = io::Error::from(io::ErrorKind::PermissionDenied);
        assert_eq!(
            Exit::of(
                &anyhow::Error::from(denied).context("failed to open x").context("failed to start")
            ),
            Exit::Unsupported
        );
        let gone: anyhow::Result<()> =
            Err(io::Error::from(io::ErrorKind::BrokenPipe)).context("failed to write the table");
        assert_eq!(Exit::of(&gone.expect_err("an error")), Exit::Done);
        assert_eq!(
            Exit::of(&Exit::Absent.because("nothing here").context("failed to ask")),
            Exit::Absent
        );
        assert_eq!(Exit::of(&DatapathError::NoCgroup2.into()), Exit::Unsupported);
        let refused = |code| ClientError::Refused(crate::control::ApiError::new(code, "no")).into();
        assert_eq!(Exit::of(&refused(ErrorCode::Invalid)), Exit::Usage);
        assert_eq!(Exit::of(&refused(ErrorCode::Conflict)), Exit::Failed);
        assert_eq!(Exit::of(&anyhow::anyhow!("whatever")), Exit::Failed);
    }
}
