//! The progress of a change of many routes: `/v1/progress`.

use serde::{Deserialize, Serialize};

#[cfg(doc)]
use crate::control::api::version::VERSION;

/// `GET /v1/progress`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// [`VERSION`].
    pub version: u32,
    /// All routes.
    pub routes: usize,
    /// Routes that the kernel has and DNS answers.
    pub live: usize,
    /// Routes that wait for the first answer about their destination.
    pub waiting: usize,
}
