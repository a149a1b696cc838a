//! What a connect gets while its route has no backend.

use std::{fmt, str::FromStr};

/// What a connect to a route without backends gets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnNoBackend {
    /// It is refused at once.
    #[default]
    Refuse,
    /// It is left alone.
    Pass,
}

/// A text that is no [`OnNoBackend`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is not known: write `refuse` (the connect fails at once) or `pass` (it is left alone)"
)]
pub struct OnNoBackendError(String);

impl FromStr for OnNoBackend {
    type Err = OnNoBackendError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "refuse" => Ok(Self::Refuse),
            "pass" => Ok(Self::Pass),
            other => Err(OnNoBackendError(other.into())),
        }
    }
}

impl fmt::Display for OnNoBackend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Refuse => "refuse",
            Self::Pass => "pass",
        })
    }
}
