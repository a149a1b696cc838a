//! From a file, or its text, to the configuration or every problem of it.

use std::{
    fmt,
    path::{Path, PathBuf},
};

use super::{raw, resolve, settings::Config};
use crate::spanned::{Diagnostic, DocumentReader, Location, Spanned};

/// Where the configuration is by default.
pub const DEFAULT_PATH: &str = "/etc/redirector/redirector.toml";

/// Every problem of a configuration. Displayed as one line for each.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, thiserror::Error)]
pub struct ConfigErrors {
    /// The problems, those of the environment first, then those of the file from top to bottom.
    pub problems: Vec<Diagnostic>,
}

impl ConfigErrors {
    /// A problem of the file as a whole.
    pub(super) fn of_file(path: &Path, message: String) -> Self {
        let (location, key) = (Location::file(path), String::new());
        Self { problems: vec![Diagnostic { location, key, message }] }
    }
}

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, problem) in self.problems.iter().enumerate() {
            write!(f, "{}{problem}", if n == 0 { "" } else { "\n" })?;
        }
        Ok(())
    }
}

/// Where the configuration is: what the flag says, else `REDIRECTOR_CONFIG`, else [`DEFAULT_PATH`].
pub fn path(flag: Option<PathBuf>) -> PathBuf {
    let variable = || {
        std::env::var_os("REDIRECTOR_CONFIG").filter(|value| !value.is_empty()).map(PathBuf::from)
    };
    flag.or_else(variable).unwrap_or_else(|| DEFAULT_PATH.into())
}

/// Reads the configuration at `path`, below the environment of this process.
pub fn load(path: &Path) -> Result<Config, ConfigErrors> {
    parse(&read(path)?, path, &environment)
}

/// The text of the file at `path`.
pub(super) fn read(path: &Path) -> Result<String, ConfigErrors> {
    let whole = |message| ConfigErrors::of_file(path, message);
    let bytes = std::fs::read(path).map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => whole(format!(
            "there is no such file: write one (`[[routes]]` with `source` and `destination` is \
                enough), or name it with --config or REDIRECTOR_CONFIG (the default is \
                {DEFAULT_PATH})"
        )),
        _ => whole(format!("failed to read the configuration: {error}")),
    })?;
    String::from_utf8(bytes).map_err(|error| {
        let line = error.as_bytes()[..error.utf8_error().valid_up_to()]
            .iter()
            .filter(|byte| **byte == b'\n')
            .count()
            + 1;
        whole(format!("line {line} is not UTF-8 text: save the file as UTF-8"))
    })
}

/// A variable of this process's environment.
pub(super) fn environment(variable: &str) -> Option<String> {
    std::env::var_os(variable).map(|value| value.to_string_lossy().into_owned())
}

/// Reads a configuration from its text, which problems call `name`, overridden by the
/// variables of `env`.
pub fn parse(
    text: &str,
    name: &Path,
    env: &dyn Fn(&str) -> Option<String>,
) -> Result<Config, ConfigErrors> {
    let mut reader = DocumentReader::new(name, env);
    let (root, syntax) = Spanned::from_toml(text);
    let config = match syntax.is_empty() {
        true => {
            let (raw, routes) = raw::read(root, &mut reader);
            resolve::resolve(raw, routes, &mut reader)
        }
        // What stands around a syntax error is guesswork: its problems would mislead.
        false => {
            syntax.into_iter().for_each(|error| reader.report_syntax(error));
            Config::default()
        }
    };
    match reader.finish() {
        problems if problems.is_empty() => Ok(config),
        problems => Err(ConfigErrors { problems }),
    }
}
