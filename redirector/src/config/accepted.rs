//! The configuration that an agent has accepted, with its text, and the copy of it on disk.
//!
//! A file that was emptied or cut off is often valid, and would withdraw routes. So a new text is
//! compared with the one in force. The copy lets an agent start while the file is invalid.

use std::path::{Path, PathBuf};

use super::{
    agent_paths::AgentPaths,
    load::{self, ConfigErrors, environment},
    settings::{Agent, Config},
};
use crate::atomic_file::{self, FileError};

/// The copy, in the state directory.
const COPY: &str = "last-good.toml";
/// Its first line, before the path of the file that it is a copy of.
const COPY_OF: &str = "# The last valid content of ";
/// A file that is cut off where a block ends was cut off by a file system, not by an editor.
const BLOCK: usize = 512;

/// A valid configuration and its text.
#[derive(Clone, Debug)]
pub struct Accepted {
    /// The configuration.
    pub config: Config,
    text: String,
}

impl Accepted {
    /// Reads the file.
    ///
    /// # Errors
    /// When it is missing, unreadable or invalid.
    pub fn read(path: &Path) -> Result<Self, ConfigErrors> {
        Self::parse(load::read(path)?, path)
    }

    fn parse(text: String, path: &Path) -> Result<Self, ConfigErrors> {
        Ok(Self { config: load::parse(&text, path, &environment)?, text })
    }

    /// Reads the file, which replaces `self`.
    ///
    /// # Errors
    /// As [`Accepted::read`], and when the file has lost its routes or its end.
    pub fn read_next(&self, path: &Path) -> Result<Self, ConfigErrors> {
        self.replaced_by(Self::read(path)?, path)
    }

    fn replaced_by(&self, next: Self, path: &Path) -> Result<Self, ConfigErrors> {
        match self.loss_in(&next) {
            Some(loss) => Err(ConfigErrors::of_file(path, loss)),
            None => Ok(next),
        }
    }

    /// What `next` has lost, probably by accident.
    fn loss_in(&self, next: &Self) -> Option<String> {
        let routes = self.config.routes.len();
        let names_routes = || {
            next.text.parse::<toml::Table>().is_ok_and(|document| document.contains_key("routes"))
        };
        if routes > 0 && next.config.routes.is_empty() && !names_routes() {
            return Some(format!(
                "the file has no routes any more, and {routes} of it are in force: if they are to \
                    go, write `routes = []`"
            ));
        }
        let (before, after) = (self.text.len(), next.text.len());
        let is_cut = !next.text.ends_with('\n') || after.is_multiple_of(BLOCK);
        let end = self.text.strip_prefix(next.text.as_str()).filter(|_| is_cut)?;
        (!end.trim().is_empty()).then(|| {
            format!(
                "the file was cut off after {after} of {before} bytes: write it completely; if it \
                    is complete, add an empty line at its end"
            )
        })
    }

    /// The configuration to start with: that of the file, else the last valid one, with the file's
    /// errors.
    ///
    /// # Errors
    /// When the file is invalid, and nothing was ever accepted from this path.
    pub fn at_start(path: &Path) -> Result<(Self, Option<ConfigErrors>), ConfigErrors> {
        let found = Self::read(path);
        let state_dir = match &found {
            Ok(found) => found.config.agent.state_dir.clone(),
            Err(_) => AgentPaths::of_broken_file(path).state_dir,
        };
        // Most often the same: tens of thousands of routes take seconds to read.
        let is_other = |text: &String| found.as_ref().map_or(true, |found| found.text != *text);
        let copy = read_copy(&state_dir, path).filter(is_other);
        let last = copy.and_then(|text| Self::parse(text, path).ok());
        let Some(last) = last else {
            return found.map(|found| (found, None));
        };
        Ok(match found.and_then(|found| last.replaced_by(found, path)) {
            Ok(found) => (found, None),
            Err(errors) => (last, Some(errors)),
        })
    }

    /// Saves the copy, if it differs from what is saved. A second one is saved where it is looked
    /// for when the file has lost its `agent.state_dir`, if that place can be written.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn save_copy(&self, path: &Path) -> Result<(), FileError> {
        let content = format!("{}{}", first_line(path), self.text);
        let save = |copy: &Path| {
            let saved = atomic_file::read_if_present(copy).ok().flatten();
            if saved.as_deref() == Some(content.as_bytes()) {
                return Ok(());
            }
            atomic_file::write_atomically(copy, content.as_bytes())
        };
        let state_dir = &self.config.agent.state_dir;
        let default = Agent::default().state_dir;
        if *state_dir != default {
            let saved = atomic_file::make_directory(&default, 0o750)
                .and_then(|()| save(&default_copy(&default, path)));
            if let Err(error) = saved {
                tracing::debug!(%error, "no second copy of the configuration");
            }
        }
        save(&state_dir.join(COPY))
    }
}

/// The directories of the agent of a file. If the file is invalid or has lost something, they are
/// those of its last valid content, with which the agent runs.
///
/// # Errors
/// As [`AgentPaths::load`].
pub fn agent_paths(path: &Path) -> Result<AgentPaths, ConfigErrors> {
    let written = AgentPaths::load(path)?;
    let copy = read_copy(&written.state_dir, path);
    let last = copy.and_then(|text| AgentPaths::parse(&text, path, &environment).ok());
    // Most files are not read as a whole: they may have tens of thousands of routes.
    let Some(last) = last.filter(|last| *last != written) else { return Ok(written) };
    let is_lost = matches!(Accepted::at_start(path), Ok((_, Some(_))));
    Ok(if is_lost { last } else { written })
}

/// The text of the copy of the file at `path`, in the state directory or at the default place.
fn read_copy(state_dir: &Path, path: &Path) -> Option<String> {
    let default = default_copy(&Agent::default().state_dir, path);
    [state_dir.join(COPY), default].into_iter().find_map(|copy| {
        let bytes = atomic_file::read_if_present(&copy).ok().flatten()?;
        Some(String::from_utf8(bytes).ok()?.strip_prefix(&first_line(path))?.to_owned())
    })
}

/// The second copy: files of other agents have others.
fn default_copy(default: &Path, path: &Path) -> PathBuf {
    const MAX_CHARS: usize = 50;
    let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let name: Vec<char> =
        path.to_string_lossy().chars().map(|c| if c == '/' { '-' } else { c }).collect();
    let end: String = name[name.len().saturating_sub(MAX_CHARS)..].iter().collect();
    default.join(format!("last-good{end}"))
}

fn first_line(path: &Path) -> String {
    let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    format!("{COPY_OF}{}\n", path.display().to_string().escape_debug())
}

#[cfg(test)]
mod tests {
    use super::*;

    const TWO: &str = "[[routes]]\nsource = \"a.example.net\"\ndestination = \"b.example.net\"\n\
        [[routes]]\nsource = \"c.example.net\"\ndestination = \"d.example.net\"\nports = [443]\n";

    fn loss(before: &str, after: &str) -> Option<String> {
        let accepted =
            |text: &str| Accepted::parse(text.to_owned(), Path::new("f")).expect("valid");
        accepted(before).loss_in(&accepted(after))
    }

    #[test]
    fn a_file_without_its_routes_is_refused_unless_it_lists_none() {
        for empty in ["", "\n", "# routes\n", "[dns]\nttl = 30\n"] {
            let loss = loss(TWO, empty).expect("a loss");
            assert!(
                loss.contains("2 of it are in force") && loss.contains("routes = []"),
                "{loss}"
            );
            assert_eq!(super::tests::loss(empty, empty), None, "there was none");
        }
        assert_eq!(loss(TWO, "routes = []\n"), None);
    }

    #[test]
    fn a_file_that_ends_within_the_text_in_force_is_refused() {
        let mut refused = 0;
        for length in 0..TWO.len() {
            let Ok(config) = Accepted::parse(TWO[..length].to_owned(), Path::new("f")) else {
                refused += 1;
                continue;
            };
            let whole_lines = config.text.ends_with('\n') && !config.config.routes.is_empty();
            let is_loss = loss(TWO, &config.text).is_some();
            assert!(is_loss || whole_lines || length + 1 == TWO.len(), "{length} bytes");
            refused += usize::from(is_loss);
        }
        assert!(refused >= TWO.len() - 4, "{refused} of {}", TWO.len());
        let comment = "-".repeat(BLOCK - TWO.len() - 2);
        let block = format!("{TWO}#{comment}\n");
        let third = TWO.replace("a.example", "e.example").replace("c.example", "f.example");
        assert!(loss(&format!("{block}{third}"), &block).is_some(), "at the end of a block");
        assert_eq!(loss(TWO, &TWO.replace("ports = [443]\n", "")), None, "an edit");
    }
}
