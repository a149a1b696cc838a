//! One change of the leases, as the journal keeps it.

use serde::{Deserialize, Serialize};

use crate::route::SourceName;

/// What happened to one VIP.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LeaseChange {
    /// The source has the VIP of this index.
    Leased(SourceName, u32),
    /// The source had it last.
    Freed(SourceName, u32),
}

impl LeaseChange {
    /// Reads what was written when `*.zone` meant any depth.
    pub(super) fn with_deep_wildcard(self) -> Self {
        match self {
            Self::Leased(source, index) => Self::Leased(source.with_deep_wildcard(), index),
            Self::Freed(source, index) => Self::Freed(source.with_deep_wildcard(), index),
        }
    }

    pub(super) fn index(&self) -> u32 {
        let (Self::Leased(_, index) | Self::Freed(_, index)) = self;
        *index
    }
}
