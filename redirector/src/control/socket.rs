//! The socket file: created with its final mode in one step; replaces a dead agent's, never a live
//! agent's.

use std::{
    io,
    os::unix::{
        fs::{MetadataExt, PermissionsExt},
        net::UnixListener as StdUnixListener,
    },
    path::{Path, PathBuf},
};

use tokio::net::{UnixListener, UnixStream};
use tracing::warn;

use crate::{
    control::{command::Caller, peer_cred},
    error::error_chain,
};

/// Who may connect: the owner and the group.
const MODE: u32 = 0o660;

/// Why the control socket cannot be bound.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// A process listens on it.
    #[error(
        "{} is in use by a running agent: stop it first, or give this one its own `agent.run_dir`",
        path.display()
    )]
    InUse {
        /// The socket.
        path: PathBuf,
    },
    /// A file with its name is not a socket.
    #[error(
        "{} exists and is not a socket: remove it, or set another `agent.run_dir`",
        path.display()
    )]
    NotASocket {
        /// The path.
        path: PathBuf,
    },
    /// An operation failed.
    #[error("failed to {verb} the control socket {}", path.display())]
    Io {
        /// The operation.
        verb: &'static str,
        /// The socket.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
}

/// A bound control socket. Its file is removed when this is dropped, unless another agent has
/// replaced it.
#[derive(Debug)]
pub(super) struct ControlSocket {
    pub(super) listener: UnixListener,
    path: PathBuf,
    identity: (u64, u64),
    /// Whether the file stays, as another agent has the socket.
    stays: bool,
}

impl ControlSocket {
    /// Binds `path`. The caller holds the lock that makes it the only agent of its run directory.
    pub(super) async fn bind(path: &Path) -> Result<Self, SocketError> {
        let failed = |verb| move |source| SocketError::Io { verb, path: path.to_owned(), source };
        refuse_live_socket(path).await?;
        // Bound under a temporary name and renamed, so that the socket never has another mode, and
        // replaces a dead agent's in one step.
        let temporary = path.with_extension(format!("{}.new", std::process::id()));
        let _ = std::fs::remove_file(&temporary);
        let listener = UnixListener::bind(&temporary).map_err(failed("bind"))?;
        let placed = std::fs::set_permissions(&temporary, std::fs::Permissions::from_mode(MODE))
            .and_then(|()| std::fs::rename(&temporary, path))
            .and_then(|()| identity(path));
        match placed {
            Ok(identity) => Ok(Self { listener, path: path.to_owned(), identity, stays: false }),
            Err(source) => {
                let _ = std::fs::remove_file(&temporary);
                Err(failed("place")(source))
            }
        }
    }

    /// Takes a socket over that is bound to `path`; none if nothing listens there any more. The
    /// caller holds the lock, so no other agent does.
    pub(super) async fn adopt(path: &Path, inherited: StdUnixListener) -> Option<Self> {
        UnixStream::connect(path).await.ok()?;
        let listener = UnixListener::from_std(inherited).ok()?;
        Some(Self { listener, path: path.to_owned(), identity: identity(path).ok()?, stays: false })
    }

    /// Leaves the file to another agent, which has the socket.
    pub(super) fn leave(&mut self) {
        self.stays = true;
    }

    /// Whether the file is still that of this socket.
    fn is_in_place(&self) -> bool {
        identity(&self.path).is_ok_and(|now| now == self.identity)
    }

    /// Binds the path again if its file was removed, with its directory or without.
    pub(super) async fn restore(&mut self) {
        let missing = |path: &Path| matches!(path.try_exists(), Ok(false));
        if self.is_in_place() || !missing(&self.path) {
            return;
        }
        if let Some(directory) = self.path.parent() {
            // The agent makes and locks it, and reports that.
            if missing(directory) {
                return;
            }
        }
        match Self::bind(&self.path.clone()).await {
            Ok(restored) => {
                let path = self.path.display();
                warn!(%path, "the control socket was removed, and was made again");
                *self = restored;
            }
            Err(error) => warn!("failed to restore the control socket: {}", error_chain(&error)),
        }
    }

    /// Whether the peer has permission: root, our own user, and the socket's group, as its mode
    /// states. A wider mode, or an inherited descriptor, gives no permission.
    pub(super) fn admits(&self, stream: &UnixStream, caller: Caller) -> bool {
        if caller.uid == 0 || caller.uid == rustix::process::geteuid().as_raw() {
            return true;
        }
        // Read each time: an operator may change the socket's group while the agent runs.
        std::fs::symlink_metadata(&self.path).is_ok_and(|socket| {
            caller.gid == socket.gid() || peer_cred::groups(stream).contains(&socket.gid())
        })
    }
}

impl Drop for ControlSocket {
    fn drop(&mut self) {
        if !self.stays && self.is_in_place() {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

async fn refuse_live_socket(path: &Path) -> Result<(), SocketError> {
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
