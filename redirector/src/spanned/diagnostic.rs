//! One problem of a text, and its location.

use std::{
    fmt,
    path::{Path, PathBuf},
};

use crate::printable::printable;

/// Where a problem stands.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Location {
    /// In a value that has no file, such as one from the API.
    Nowhere,
    /// In a file as a whole, or in one whose format has no lines.
    File {
        /// The file, as it was named.
        file: PathBuf,
    },
    /// At a line of a file.
    Line {
        /// The file, as it was named.
        file: PathBuf,
        /// The line, from 1.
        line: usize,
        /// The column in characters, from 1.
        column: usize,
    },
    /// In an environment variable.
    Environment {
        /// Its name.
        variable: String,
    },
}

impl Location {
    /// The sort key: the environment first, then the file from top to bottom.
    pub(crate) fn order(&self) -> (u8, usize, usize) {
        match self {
            Self::Environment { .. } => (0, 0, 0),
            Self::Nowhere => (1, 0, 0),
            Self::File { .. } => (2, 0, 0),
            Self::Line { line, column, .. } => (2, *line, *column),
        }
    }

    /// The file at large.
    pub(crate) fn file(file: &Path) -> Self {
        Self::File { file: file.to_owned() }
    }
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nowhere => Ok(()),
            Self::File { file } => write!(f, "{}", file.display()),
            Self::Line { file, line, column } => write!(f, "{}:{line}:{column}", file.display()),
            Self::Environment { variable } => write!(f, "environment variable {variable}"),
        }
    }
}

/// One problem: its location, its key, and what is wrong with the value and what to do about it.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Diagnostic {
    /// Where it stands.
    pub location: Location,
    /// The key's path, such as `routes[2].ports[0]`; empty when the problem has no key (a syntax
    /// error).
    pub key: String,
    /// What is wrong, with the value and the remedy.
    pub message: String,
}

impl Diagnostic {
    /// A problem of a key whose location is not known yet.
    pub(crate) fn unlocated(key: impl Into<String>, message: impl fmt::Display) -> Self {
        Self { location: Location::Nowhere, key: key.into(), message: message.to_string() }
    }
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.location != Location::Nowhere {
            write!(f, "{}: ", printable(&self.location.to_string()))?;
        }
        if !self.key.is_empty() {
            write!(f, "key `{}`: ", printable(&self.key))?;
        }
        f.write_str(&printable(&self.message))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_diagnostic_is_one_line_or_one_object() {
        let location = Location::Line { file: "f.toml".into(), line: 2, column: 7 };
        let problem = Diagnostic { location, ..Diagnostic::unlocated("dns.ttl", "is wrong") };
        assert_eq!(problem.to_string(), "f.toml:2:7: key `dns.ttl`: is wrong");
        assert_eq!(
            serde_json::to_string(&problem).expect("json"),
            concat!(
                r#"{"location":{"kind":"line","file":"f.toml","line":2,"column":7},"#,
                r#""key":"dns.ttl","message":"is wrong"}"#
            )
        );
        assert_eq!(Diagnostic::unlocated("", "no file").to_string(), "no file");
        let hostile = Diagnostic {
            location: Location::file(Path::new("f\n")),
            ..Diagnostic::unlocated("k\u{7f}", "\r")
        };
        assert_eq!(hostile.to_string(), "f\\n: key `k\\u{7f}`: \\r");
        assert_eq!(
            serde_json::to_string(&Location::Nowhere).expect("json"),
            r#"{"kind":"nowhere"}"#
        );
    }
}
