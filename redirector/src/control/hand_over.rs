//! Handing the listening sockets to a successor: `POST /v1/hand-over` upgrades the connection, on
//! which the successor then sends commands of one byte. The end of the connection means that the
//! running agent has ended, however that came, or has released its locks.

use std::{
    io::{self, IoSlice, IoSliceMut},
    mem::MaybeUninit,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    sync::Arc,
};

use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, Interest},
    net::UnixStream,
    sync::Notify,
};
use tokio_util::sync::CancellationToken;

use crate::control::{
    command::Caller,
    error::{ApiError, ErrorCode},
};

/// The name of the protocol after the upgrade.
pub(super) const PROTOCOL: &str = "redirector-sockets-1";
/// The most descriptors in one message (SCM_MAX_FD).
const MAX_SOCKETS: usize = 253;

/// A command: send the sockets.
const SOCKETS: u8 = b's';
/// A command: the successor is ready to take over.
const READY: u8 = b'r';
/// A command: end, so that the successor takes over.
const TAKE_OVER: u8 = b't';

/// A second agent, which waits to take over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Successor {
    /// Its process ID, if it is visible from here.
    pub pid: Option<i32>,
    /// Whether it is ready.
    pub is_ready: bool,
}

/// The running agent's side.
#[derive(Clone, Debug, Default)]
pub struct HandOver(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    sockets: Mutex<Vec<OwnedFd>>,
    successor: Mutex<Option<Successor>>,
    requested: Notify,
    released: CancellationToken,
}

impl HandOver {
    /// Sets the sockets that a successor gets.
    pub fn set_sockets(&self, sockets: Vec<OwnedFd>) {
        *self.0.sockets.lock() = sockets;
    }

    /// The successor that is connected.
    pub fn successor(&self) -> Option<Successor> {
        *self.0.successor.lock()
    }

    /// Completes when the successor wants to take over.
    pub async fn requested(&self) {
        self.0.requested.notified().await;
    }

    /// Lets the successor continue: this agent changes nothing any more.
    pub fn release(&self) {
        self.0.released.cancel();
    }

    /// Registers the only successor.
    pub(super) fn register(&self, caller: Caller) -> Result<Registered, ApiError> {
        let mut successor = self.0.successor.lock();
        if let Some(other) = *successor {
            let other = other.pid.map_or("another agent".into(), |pid| format!("agent {pid}"));
            return Err(ApiError::new(
                ErrorCode::Conflict,
                format!("{other} waits to take over already"),
            )
            .remedy("stop it first, or wait until it has taken over"));
        }
        let pid = caller.pid.filter(|pid| *pid > 0);
        *successor = Some(Successor { pid, is_ready: false });
        Ok(Registered(self.clone()))
    }
}

/// The successor's registration, until it is dropped.
pub(super) struct Registered(HandOver);

impl Registered {
    /// Serves its commands until either side ends.
    pub(super) async fn serve(self, mut stream: UnixStream) -> io::Result<()> {
        let shared = &self.0.0;
        loop {
            let command = tokio::select! {
                () = shared.released.cancelled() => return Ok(()),
                command = stream.read_u8() => command?,
            };
            match command {
                SOCKETS => self.send_sockets(&stream).await?,
                READY => {
                    if let Some(successor) = shared.successor.lock().as_mut() {
                        successor.is_ready = true;
                    }
                }
                TAKE_OVER => shared.requested.notify_one(),
                _ => return Err(io::ErrorKind::InvalidData.into()),
            }
        }
    }

    async fn send_sockets(&self, stream: &UnixStream) -> io::Result<()> {
        let sockets: Vec<OwnedFd> = {
            let held = self.0.0.sockets.lock();
            held.iter().take(MAX_SOCKETS).map(OwnedFd::try_clone).collect::<Result<_, _>>()?
        };
        let descriptors: Vec<BorrowedFd<'_>> = sockets.iter().map(AsFd::as_fd).collect();
        let send = || {
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_SOCKETS))];
            let mut control = SendAncillaryBuffer::new(&mut space);
            if !control.push(SendAncillaryMessage::ScmRights(&descriptors)) {
                return Err(io::ErrorKind::OutOfMemory.into());
            }
            let bytes = [IoSlice::new(&[SOCKETS])];
            Ok(sendmsg(stream, &bytes, &mut control, SendFlags::NOSIGNAL)?)
        };
        stream.async_io(Interest::WRITABLE, send).await.map(drop)
    }
}

impl Drop for Registered {
    fn drop(&mut self) {
        *self.0.0.successor.lock() = None;
    }
}

/// The running agent, from its successor's side.
#[derive(Debug)]
pub struct Predecessor {
    stream: UnixStream,
}

impl Predecessor {
    /// Takes the connection over after the upgrade.
    pub(super) fn new(upgraded: hyper::upgrade::Upgraded) -> io::Result<Self> {
        Ok(Self { stream: into_stream(upgraded)? })
    }

    /// Receives the sockets.
    ///
    /// # Errors
    /// When the agent ends meanwhile.
    pub(super) async fn sockets(&mut self) -> io::Result<Vec<OwnedFd>> {
        self.stream.write_u8(SOCKETS).await?;
        let receive = || {
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_SOCKETS))];
            let mut control = RecvAncillaryBuffer::new(&mut space);
            let mut byte = [0];
            let mut bytes = [IoSliceMut::new(&mut byte)];
            let flags = RecvFlags::CMSG_CLOEXEC;
            if recvmsg(&self.stream, &mut bytes, &mut control, flags)?.bytes == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            let mut sockets = Vec::new();
            for message in control.drain() {
                if let RecvAncillaryMessage::ScmRights(received) = message {
                    sockets.extend(received);
                }
            }
            Ok(sockets)
        };
        self.stream.async_io(Interest::READABLE, receive).await
    }

    /// Reports that this agent is ready to take over.
    ///
    /// # Errors
    /// When the other agent has ended.
    pub async fn ready(&mut self) -> io::Result<()> {
        self.stream.write_u8(READY).await
    }

    /// Asks the other agent to end.
    ///
    /// # Errors
    /// When it has ended already.
    pub async fn take_over(&mut self) -> io::Result<()> {
        self.stream.write_u8(TAKE_OVER).await
    }

    /// Completes when the other agent has ended, or has released its locks.
    pub async fn ended(&mut self) {
        while self.stream.read_u8().await.is_ok() {}
    }
}

/// The socket of an upgraded connection, on which nothing has been read ahead.
pub(super) fn into_stream(upgraded: hyper::upgrade::Upgraded) -> io::Result<UnixStream> {
    let parts = upgraded
        .downcast::<TokioIo<UnixStream>>()
        .map_err(|_| io::Error::other("not a connection of the control socket"))?;
    Ok(parts.io.into_inner())
}
