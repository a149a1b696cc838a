//! One row of `redirector check`.

use serde::{Deserialize, Serialize};

/// How a check came out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// As it should be.
    Ok,
    /// It works, with less.
    Warning,
    /// It can't work.
    Failed,
}

/// One check.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Check {
    /// What was looked at.
    pub name: String,
    /// How it came out.
    pub outcome: Outcome,
    /// What was found.
    pub detail: String,
    /// What to do about it; absent when all is well.
    pub remedy: Option<String>,
}

impl Check {
    /// All is well.
    pub fn ok(name: &str, detail: impl Into<String>) -> Self {
        Self { name: name.into(), outcome: Outcome::Ok, detail: detail.into(), remedy: None }
    }

    /// It works, with less.
    pub fn warning(name: &str, detail: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            outcome: Outcome::Warning,
            detail: detail.into(),
            remedy: Some(remedy.into()),
        }
    }

    /// It can't work.
    pub fn failed(name: &str, detail: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            outcome: Outcome::Failed,
            detail: detail.into(),
            remedy: Some(remedy.into()),
        }
    }
}
