//! The configuration that an agent has accepted, with its text, and the copy of it on disk.
//!
//! A file that was emptied or cut off is often valid, and would withdraw routes. So a new text is
//! compared with the one in force. The copy lets an agent start while the file is invalid.

use std::path::{Path, PathBuf};

use super::{
    agent_paths::AgentPaths,
    load::{self, ConfigErrors, environment},
    settings::Config,
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
        let next = Self::read(path)?;
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
        let Some(last) = Self::read_copy(&state_dir, path) else {
            return found.map(|found| (found, None));
        };
        Ok(match found.and_then(|_| last.read_next(path)) {
            Ok(found) => (found, None),
            Err(errors) => (last, Some(errors)),
        })
    }

    /// Saves the copy, if it differs from what is saved.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn save_copy(&self, path: &Path) -> Result<(), FileError> {
        let copy = copy_in(&self.config.agent.state_dir);
        let content = format!("{}{}", first_line(path), self.text);
        let saved = atomic_file::read_if_present(&copy).ok().flatten();
        if saved.as_deref() == Some(content.as_bytes()) {
            return Ok(());
        }
        atomic_file::write_atomically(&copy, content.as_bytes())
    }

    /// The copy of the file at `path`; `None` if there is none, or it is invalid by now.
    fn read_copy(state_dir: &Path, path: &Path) -> Option<Self> {
        let bytes = atomic_file::read_if_present(&copy_in(state_dir)).ok().flatten()?;
        let content = String::from_utf8(bytes).ok()?;
        let text = content.strip_prefix(&first_line(path))?.to_owned();
        Self::parse(text, path).ok()
    }
}

fn copy_in(state_dir: &Path) -> PathBuf {
    state_dir.join(COPY)
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
