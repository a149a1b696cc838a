//! The label of one sample, without an allocation of its own.

use std::{
    fmt::{self, Write as _},
    sync::Arc,
};

use prometheus_client::encoding::{EncodeLabelValue, LabelValueEncoder};

/// A label: its key and its value.
pub(super) type Label = (&'static str, LabelValue);

/// The labels of a sample.
pub(super) enum Labels {
    None,
    One([Label; 1]),
    Two([Label; 2]),
}

impl Labels {
    pub(super) fn one(key: &'static str, value: impl Into<LabelValue>) -> Self {
        Self::One([(key, value.into())])
    }

    pub(super) fn as_slice(&self) -> &[Label] {
        match self {
            Self::None => &[],
            Self::One(labels) => labels,
            Self::Two(labels) => labels,
        }
    }
}

/// A label's value.
#[derive(Clone)]
pub(super) enum LabelValue {
    Static(&'static str),
    Shared(Arc<str>),
}

impl From<&'static str> for LabelValue {
    fn from(text: &'static str) -> Self {
        Self::Static(text)
    }
}

impl From<String> for LabelValue {
    fn from(text: String) -> Self {
        Self::Shared(text.into())
    }
}

impl EncodeLabelValue for LabelValue {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> fmt::Result {
        encoder.write_str(match self {
            Self::Static(text) => text,
            Self::Shared(text) => text,
        })
    }
}
