//! The socket file: made with its final mode in one step, a dead agent's replaced, a live agent's
//! respected.

use std::{
    io,
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
};

use tokio::net::{UnixListener, UnixStream};

use crate::control::{command::Caller, peer_cred};

/// Who may connect: the owner and the group.
const MODE: u32 = 0o660;

/// Why the control socket can't be had.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// Somebody listens on it.
    #[error("{} is in use by a running agent: stop it first, or give this one another \
        `agent.run_dir`", path.display())]
    InUse {
        /// The socket.
        path: PathBuf,
    },
    /// Something that is not a socket has its name.
    #[error("{} exists and is not a socket: remove it, or set another `agent.run_dir`", path.display())]
    NotASocket {
        /// The path.
        path: PathBuf,
    },
    /// Making it failed.
    #[error("failed to {verb} the control socket {}", path.display())]
    Io {
        /// What was tried.
        verb: &'static str,
        /// The socket.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
}

/// A bound control socket. Its file is removed when this is dropped, unless another agent has put
/// its own there.
#[derive(Debug)]
pub(super) struct ControlSocket {
    pub(super) listener: UnixListener,
    path: PathBuf,
    identity: (u64, u64),
}

impl ControlSocket {
    /// Binds `path`. The caller holds the lock that makes it the only agent of its run directory.
    pub(super) async fn bind(path: &Path) -> Result<Self, SocketError> {
        let failed = |verb| move |source| SocketError::Io { verb, path: path.to_owned(), source };
        refuse_a_live_one(path).await?;
        // Bound aside and renamed, so that nobody ever meets the socket with another mode, and a
        // dead agent's is replaced in one step.
        let aside = path.with_extension(format!("{}.new", std::process::id()));
        let _ = std::fs::remove_file(&aside);
        let listener = UnixListener::bind(&aside).map_err(failed("bind"))?;
        let placed = std::fs::set_permissions(&aside, std::fs::Permissions::from_mode(MODE))
            .and_then(|()| std::fs::rename(&aside, path))
            .and_then(|()| identity(path));
        match placed {
            Ok(identity) => Ok(Self { listener, path: path.to_owned(), identity }),
            Err(source) => {
                let _ = std::fs::remove_file(&aside);
                Err(failed("place")(source))
            }
        }
    }

    /// Whether the other end may ask: root, our own user, and the socket's group, which is what its
    /// mode says as well. A mode that somebody has widened, or a descriptor that was handed on,
    /// does not.
    pub(super) fn admits(&self, stream: &UnixStream, caller: Caller) -> bool {
        if caller.uid == 0 || caller.uid == rustix::process::geteuid().as_raw() {
            return true;
        }
        // Asked anew each time: an operator may give the socket to a group while the agent runs.
        std::fs::symlink_metadata(&self.path).is_ok_and(|socket| {
            caller.gid == socket.gid() || peer_cred::groups(stream).contains(&socket.gid())
        })
    }
}

impl Drop for ControlSocket {
    fn drop(&mut self) {
        if identity(&self.path).is_ok_and(|now| now == self.identity) {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

async fn refuse_a_live_one(path: &Path) -> Result<(), SocketError> {
    match std::fs::symlink_metadata(path) {
        Err(_) => return Ok(()),
        Ok(found) if !std::os::unix::fs::FileTypeExt::is_socket(&found.file_type()) => {
            return Err(SocketError::NotASocket { path: path.to_owned() });
        }
        Ok(_) => {}
    }
    match UnixStream::connect(path).await {
        Ok(_) => Err(SocketError::InUse { path: path.to_owned() }),
        Err(_) => Ok(()),
    }
}

fn identity(path: &Path) -> io::Result<(u64, u64)> {
    std::fs::symlink_metadata(path).map(|found| (found.dev(), found.ino()))
}
