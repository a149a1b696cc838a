//! Where the agent of this invocation is: its directories, even while its configuration file has an
//! error.

use std::path::{Path, PathBuf};

use super::Exit;
use crate::{control::ClientError, datapath};

/// The directories of one agent.
#[derive(Clone, Debug)]
pub(super) struct Place {
    pub(super) run_dir: PathBuf,
    pub(super) state_dir: PathBuf,
    pub(super) bpffs: PathBuf,
}

impl Place {
    /// From the configuration file. A file with errors, or none, still says where the agent that
    /// was started with an earlier version of it is to be found, as far as its `[agent]` table can
    /// be read.
    pub(super) fn find(config: &Path) -> Self {
        match crate::config::load(config) {
            Ok(config) => Self {
                run_dir: config.agent.run_dir,
                state_dir: config.agent.state_dir,
                bpffs: config.agent.bpffs,
            },
            Err(_) => Self::leniently(config),
        }
    }

    fn leniently(config: &Path) -> Self {
        let table: toml::Table = std::fs::read_to_string(config)
            .ok()
            .and_then(|text| text.parse().ok())
            .unwrap_or_default();
        let directory = |key: &str, default: &str| {
            let variable = std::env::var(format!("REDIRECTOR_AGENT_{}", key.to_uppercase())).ok();
            let written = || table.get("agent")?.get(key)?.as_str().map(str::to_owned);
            PathBuf::from(variable.or_else(written).unwrap_or_else(|| default.to_owned()))
        };
        Self {
            run_dir: directory("run_dir", "/run/redirector"),
            state_dir: directory("state_dir", "/var/lib/redirector"),
            bpffs: directory("bpffs", "/sys/fs/bpf/redirector"),
        }
    }

    /// The control socket.
    pub(super) fn control_socket(&self) -> PathBuf {
        self.run_dir.join("control.sock")
    }

    /// The client's error with the words and the exit code that fit what is in the kernel.
    pub(super) fn explain(&self, error: ClientError) -> anyhow::Error {
        if !matches!(error, ClientError::Unreachable { .. }) {
            return error.into();
        }
        match datapath::inspect(&self.bpffs) {
            Ok(None) => Exit::Absent.because(format!(
                "{error}, and nothing of it is in the kernel: \
                start it with `redirector run`, or name its configuration with --config"
            )),
            Ok(Some(_)) => Exit::Failed.because(format!(
                "{error}: start it (`redirector run`, or its service); the programs in the kernel \
                    go on redirecting meanwhile, as `redirector status` shows"
            )),
            Err(unread) => {
                let unread = anyhow::Error::from(unread);
                let why = crate::error::error_chain(unread.as_ref());
                Exit::of(&unread).because(format!(
                    "{error}, and what is in the kernel can't be \
                    told: {why}"
                ))
            }
        }
    }
}
