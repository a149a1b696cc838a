//! The agent's directories, and what a command reports when no agent answers there.

use super::exit::Exit;
pub(super) use crate::config::AgentPaths;
use crate::{control::ClientError, datapath, error::error_chain};

/// The client's error, with the message and the exit code that fit what is in the kernel.
pub(super) fn explain(paths: &AgentPaths, error: ClientError) -> anyhow::Error {
    if !matches!(error, ClientError::Unreachable { .. }) {
        return error.into();
    }
    match datapath::inspect(&paths.bpffs) {
        Ok(None) => Exit::Absent.because(format!(
            "{error}, and nothing of it is in the kernel: start it with `redirector run`, or name \
                its configuration with --config"
        )),
        Ok(Some(_)) => Exit::Failed.because(format!(
            "{error}: start it (`redirector run`, or its service); the programs in the kernel \
                keep redirecting meanwhile, as `redirector status` shows"
        )),
        Err(unread) => {
            let unread = anyhow::Error::from(unread);
            let why = error_chain(unread.as_ref());
            Exit::of(&unread)
                .because(format!("{error}, and the kernel state could not be read: {why}"))
        }
    }
}
