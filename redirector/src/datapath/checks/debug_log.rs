//! Whether the programs that log each decision can run here, and what is missing if not.

use rustix::thread::CapabilitySet;

use crate::datapath::{
    checks::{
        check::Check,
        privileges::{has_capability, remedy_for},
    },
    error::DatapathError,
    load::object::{Build, Object},
    pins::version::Version,
    settings::Settings,
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
            let Missing { cause, remedy } = Missing::from(error);
            Check::failed(NAME, cause, remedy)
        }
    })
}

/// Why the logging programs were refused.
#[derive(Debug)]
pub(crate) struct Missing {
    pub(crate) cause: String,
    pub(crate) remedy: String,
}

impl From<DatapathError> for Missing {
    /// Without CAP_PERFMON the verifier refuses constructs that only the plain programs avoid, so
    /// its absence is the probable cause.
    fn from(error: DatapathError) -> Self {
        let refused =
            matches!(error, DatapathError::NotPermitted { .. } | DatapathError::Unsupported { .. });
        if refused
            && !has_capability(CapabilitySet::PERFMON)
            && !has_capability(CapabilitySet::SYS_ADMIN)
        {
            return Self {
                cause: "CAP_PERFMON is missing: the verifier refuses the programs that log"
                    .to_owned(),
                remedy: remedy_for("CAP_PERFMON"),
            };
        }
        Self {
            cause: crate::error::error_chain(&error),
            remedy: "run a newer kernel, or set `datapath.debug_log = false`".to_owned(),
        }
    }
}
