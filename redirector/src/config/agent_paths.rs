//! The agent's directories, read without the rest of the configuration.

use std::path::{Path, PathBuf};

use super::{
    load::{ConfigErrors, DEFAULT_PATH, environment},
    raw, resolve,
};
use crate::spanned::{DocumentReader, Spanned};

/// Where an agent keeps its socket, state and pins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AgentPaths {
    /// The directory of the control socket and the lock.
    pub run_dir: PathBuf,
    /// Leases and stored routes.
    pub state_dir: PathBuf,
    /// Pinned programs and maps.
    pub bpffs: PathBuf,
}

impl AgentPaths {
    /// Reads the three keys of `[agent]`. Nothing else of the file is checked, so that commands
    /// reach an agent that runs with an earlier version of a file that is now broken. Without a
    /// file at the default path, they are the defaults.
    ///
    /// # Errors
    /// When one of these keys has a value that it can't take. When another file is unreadable: the
    /// defaults would lead to another agent.
    pub fn load(config: &Path) -> Result<Self, ConfigErrors> {
        let text = match std::fs::read(config) {
            Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
            Err(_) if config == Path::new(DEFAULT_PATH) => String::new(),
            Err(error) => {
                let message = format!(
                    "failed to read the configuration, so the agent that it belongs to is \
                        unknown: {error}"
                );
                return Err(ConfigErrors::of_file(config, message));
            }
        };
        Self::parse(&text, config, &environment)
    }

    /// What can be read of the three keys in a broken or missing file; otherwise the defaults.
    pub(super) fn of_broken_file(config: &Path) -> Self {
        let bytes = std::fs::read(config).unwrap_or_default();
        let text = String::from_utf8_lossy(&bytes);
        Self::parse(&text, config, &environment)
            .or_else(|_| Self::parse("", config, &environment))
            .unwrap_or_else(|_| {
                let agent = super::settings::Agent::default();
                Self { run_dir: agent.run_dir, state_dir: agent.state_dir, bpffs: agent.bpffs }
            })
    }

    /// The same from a text, which problems call `name`, overridden by the variables of `env`.
    ///
    /// # Errors
    /// When one of these keys has a value that it can't take.
    pub fn parse(
        text: &str,
        name: &Path,
        env: &dyn Fn(&str) -> Option<String>,
    ) -> Result<Self, ConfigErrors> {
        let mut reader = DocumentReader::new(name, env);
        let (root, _) = Spanned::from_toml(text);
        let raw = raw::read_agent_paths(root, &mut reader);
        let agent = resolve::agent(raw, &mut reader);
        match reader.finish() {
            problems if problems.is_empty() => {
                Ok(Self { run_dir: agent.run_dir, state_dir: agent.state_dir, bpffs: agent.bpffs })
            }
            problems => Err(ConfigErrors { problems }),
        }
    }

    /// The socket through which commands reach the agent.
    pub fn control_socket(&self) -> PathBuf {
        super::settings::control_socket(&self.run_dir)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<AgentPaths, String> {
        AgentPaths::parse(text, Path::new("f"), &|_| None).map_err(|errors| errors.to_string())
    }

    #[test]
    fn a_broken_file_still_gives_the_directories() {
        for broken in [
            "[agent]\nrun_dir = \"/x\"\nadmin = \"nowhere\"\n[dns]\nttll = 3\n",
            "[agent]\nrun_dir = \"/x\"\n[[routes]]\nsource = \"a\n",
            "[agent]\nrun_dir = \"/x\"\nunknown = 1\n[pool]\nipv4 = \"10.0.0.0/8\"\n",
        ] {
            let paths = parse(broken).expect("the directories");
            assert_eq!(paths.control_socket(), Path::new("/x/control.sock"), "{broken}");
            assert_eq!(paths.state_dir, Path::new("/var/lib/redirector"), "{broken}");
        }
    }

    #[test]
    fn a_wrong_directory_is_reported_with_its_line() {
        let error = parse("[agent]\nrun_dir = \"run\"\n").expect_err("a relative path");
        assert!(error.starts_with("f:2:11: key `agent.run_dir`: `run` is not"), "{error}");
    }
}
