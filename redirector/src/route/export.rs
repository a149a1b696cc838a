//! Writes routes in a form that `route import` reads back.

use std::{fmt, str::FromStr};

use serde::Serialize;

use super::raw::RawRoute;

/// A format that routes are written in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// `[[routes]]`, as in the configuration file.
    Toml,
    /// A mapping with the list `routes`.
    Yaml,
    /// An object with the array `routes`.
    Json,
}

/// A text that names no format.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a format of routes: write `toml`, `yaml` or `json`")]
pub struct UnknownFormat(String);

/// What every format holds.
#[derive(Serialize)]
struct Document<'r> {
    wildcards: &'static str,
    routes: &'r [RawRoute],
}

/// Writes routes as text that ends with a newline.
pub fn export(routes: &[RawRoute], format: Format) -> String {
    let document = Document { wildcards: "one_label", routes };
    match format {
        Format::Toml => toml::to_string(&document).expect("texts and lists of texts are TOML"),
        Format::Yaml => {
            serde_yaml_ng::to_string(&document).expect("texts and lists of texts are YAML")
        }
        Format::Json => {
            serde_json::to_string_pretty(&document).expect("texts and lists of texts are JSON")
                + "\n"
        }
    }
}

impl FromStr for Format {
    type Err = UnknownFormat;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "toml" => Ok(Self::Toml),
            "yaml" | "yml" => Ok(Self::Yaml),
            "json" => Ok(Self::Json),
            other => Err(UnknownFormat(other.into())),
        }
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Toml => "toml",
            Self::Yaml => "yaml",
            Self::Json => "json",
        })
    }
}
