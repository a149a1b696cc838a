//! The label of one sample, without a heap of its own.

use std::{
    fmt::{self, Write as _},
    sync::Arc,
};

use prometheus_client::encoding::{EncodeLabelValue, LabelValueEncoder};

/// A label: its key and its value.
pub(super) type Label = (&'static str, Word);

/// The labels of a sample.
pub(super) enum Labels {
    None,
    One([Label; 1]),
}

impl Labels {
    pub(super) fn one(key: &'static str, value: impl Into<Word>) -> Self {
        Self::One([(key, value.into())])
    }

    pub(super) fn as_slice(&self) -> &[Label] {
        match self {
            Self::None => &[],
            Self::One(labels) => labels,
        }
    }
}

/// A label's value.
#[derive(Clone)]
pub(super) enum Word {
    Fixed(&'static str),
    Told(Arc<str>),
}

impl From<&'static str> for Word {
    fn from(text: &'static str) -> Self {
        Self::Fixed(text)
    }
}

impl From<String> for Word {
    fn from(text: String) -> Self {
        Self::Told(text.into())
    }
}

impl EncodeLabelValue for Word {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> fmt::Result {
        encoder.write_str(match self {
            Self::Fixed(text) => text,
            Self::Told(text) => text,
        })
    }
}
