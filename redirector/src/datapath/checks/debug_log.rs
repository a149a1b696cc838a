//! Checks whether the programs that log each decision can run here.

use rustix::thread::CapabilitySet;

use crate::{
    datapath::{
        checks::{
            check::Check,
            kernel,
            privileges::{has_capability, remedy_for},
        },
        error::DatapathError,
        load::object::{Build, Object},
        pins::version::Version,
        settings::Settings,
    },
    error::error_chain,
};

const NAME: &str = "debug_log";

/// Loads the logging programs and drops them. `None` if they are not requested.
pub(crate) fn debug_log(settings: &Settings) -> Option<Check> {
    if !settings.debug_log {
        return None;
    }
    Some(match Object::load(Build::Logging, &settings.pool, &Version::own(), None) {
        Ok(_) => Check::ok(NAME, "the programs that log each decision load"),
        Err(error) => {
            let LoggingRefused { cause, remedy } = LoggingRefused::from(error);
            Check::failed(NAME, cause, remedy)
        }
    })
}

/// Why the logging programs were refused.
#[derive(Debug)]
pub(crate) struct LoggingRefused {
    pub(crate) cause: String,
    pub(crate) remedy: String,
}

impl From<DatapathError> for LoggingRefused {
    /// Before 6.17 the verifier refuses the loops of aya-log without CAP_PERFMON, which the plain
    /// programs do without.
    fn from(error: DatapathError) -> Self {
        let has =
            |capability| has_capability(capability) || has_capability(CapabilitySet::SYS_ADMIN);
        let refused =
            matches!(error, DatapathError::NotPermitted { .. } | DatapathError::Unsupported { .. });
        if refused && has(CapabilitySet::BPF) && !has(CapabilitySet::PERFMON) {
            return Self {
                cause: format!(
                    "CAP_PERFMON is missing: kernel {} refuses the programs that log without it",
                    kernel::release()
                ),
                remedy: remedy_for("CAP_PERFMON"),
            };
        }
        Self {
            cause: error_chain(&error),
            remedy: "set `datapath.debug_log = false`, or run a newer kernel".to_owned(),
        }
    }
}
