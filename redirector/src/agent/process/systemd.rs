//! Notifications to systemd, if systemd started the agent.
//!
//! They never block: systemd's socket holds few messages (10), and systemd may be busy. Messages
//! that found no room are sent later, in their order.

use std::{
    collections::VecDeque,
    env,
    io::{self, IoSlice},
    mem::MaybeUninit,
    os::{
        fd::{AsFd, FromRawFd, OwnedFd},
        unix::net::UnixDatagram,
    },
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use sd_notify::NotifyState;

use crate::net::{InheritedSockets, socket_name};

/// Messages that wait for room. When there are more, only the latest counts.
const MAX_WAITING: usize = 16;

/// Longest time that a busy service manager delays the start, for each socket that it stores.
const STORE_TIMEOUT: Duration = Duration::from_millis(500);

/// The service manager. Without one nothing is sent.
#[derive(Debug)]
pub(crate) struct ServiceManager {
    /// None without a service manager.
    socket: Option<PathBuf>,
    waiting: VecDeque<String>,
    /// Half of the watchdog's period.
    watchdog: Option<Duration>,
    notified_at: Instant,
    /// What `systemctl status` shows.
    status: String,
}

impl ServiceManager {
    /// Reads what the service manager requested.
    pub(crate) fn new() -> Self {
        let socket = env::var_os("NOTIFY_SOCKET").map(PathBuf::from);
        let watchdog = sd_notify::watchdog_enabled().map(|period| period / 2);
        Self { watchdog, ..Self::at(socket) }
    }

    fn at(socket: Option<PathBuf>) -> Self {
        Self {
            socket,
            waiting: VecDeque::new(),
            watchdog: None,
            notified_at: Instant::now(),
            status: String::new(),
        }
    }

    /// The agent is ready.
    pub(crate) fn ready(&mut self) {
        self.notify(&[NotifyState::Ready]);
    }

    /// The agent reloads its configuration; [`ServiceManager::ready`] follows.
    pub(crate) fn reloading(&mut self) {
        if let Ok(now) = NotifyState::monotonic_usec_now() {
            self.notify(&[NotifyState::Reloading, now]);
        }
    }

    /// Updates what `systemctl status` shows. `text` is called only under a service manager.
    pub(crate) fn status(&mut self, text: impl FnOnce() -> String) {
        // The text of a later call replaces one that would wait.
        if self.socket.is_none() || !self.waiting.is_empty() {
            return;
        }
        let text = text();
        if self.status != text {
            self.notify(&[NotifyState::Status(&text)]);
            self.status = text;
        }
    }

    /// The agent is about to end.
    pub(crate) fn stopping(&mut self) {
        self.notify(&[NotifyState::Stopping]);
    }

    /// Lets the service manager keep sockets, so that they outlive this process. Those that it has
    /// already are no error.
    pub(crate) fn store(&self, sockets: &[OwnedFd]) {
        let Some(path) = &self.socket else { return };
        for socket in sockets {
            // An error on a socket, such as one of ICMP, must not end its storage.
            let name = socket_name(socket);
            let message = format!("FDSTORE=1\nFDNAME={name}\nFDPOLL=0");
            if let Err(error) = send_socket(path, &message, socket) {
                tracing::warn!(%error, name, "the service manager does not store the sockets");
                return;
            }
        }
    }

    /// Lets it close sockets that are of no more use.
    pub(crate) fn forget(&mut self, names: &[String]) {
        for name in names {
            let name = format!("FDNAME={name}");
            self.notify(&[NotifyState::Custom("FDSTOREREMOVE=1"), NotifyState::Custom(&name)]);
        }
    }

    /// Passes a heartbeat on as often as the watchdog needs it, and sends what waits.
    pub(crate) fn heartbeat(&mut self) {
        self.send_waiting();
        if self.watchdog.is_some_and(|period| self.notified_at.elapsed() >= period) {
            self.notify(&[NotifyState::Watchdog]);
            self.notified_at = Instant::now();
        }
    }

    fn notify(&mut self, states: &[NotifyState<'_>]) {
        if self.socket.is_none() {
            return;
        }
        if self.waiting.len() == MAX_WAITING {
            self.waiting.clear();
        }
        let lines: Vec<_> = states.iter().map(ToString::to_string).collect();
        self.waiting.push_back(lines.join("\n"));
        self.send_waiting();
    }

    fn send_waiting(&mut self) {
        let Some(socket) = &self.socket else { return };
        while let Some(message) = self.waiting.front() {
            match send(socket, message) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) => tracing::debug!(%error, "failed to notify the service manager"),
                Ok(()) => {}
            }
            self.waiting.pop_front();
        }
    }
}

/// `sd_notify::notify` would wait for room.
fn send(socket: &Path, message: &str) -> io::Result<()> {
    let datagram = UnixDatagram::unbound()?;
    datagram.set_nonblocking(true)?;
    datagram.send_to(message.as_bytes(), socket).map(drop)
}

fn send_socket(path: &Path, message: &str, socket: &OwnedFd) -> io::Result<()> {
    let datagram = UnixDatagram::unbound()?;
    datagram.connect(path)?;
    datagram.set_write_timeout(Some(STORE_TIMEOUT))?;
    let descriptors = [socket.as_fd()];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    control.push(SendAncillaryMessage::ScmRights(&descriptors));
    let bytes = [IoSlice::new(message.as_bytes())];
    sendmsg(&datagram, &bytes, &mut control, SendFlags::NOSIGNAL)?;
    Ok(())
}

/// The sockets that the service manager has kept. Call it once.
pub(crate) fn stored_sockets() -> InheritedSockets {
    // SAFETY: the service manager has opened these descriptors for this process, and nothing else
    // in it uses them.
    let own = |socket| unsafe { OwnedFd::from_raw_fd(socket) };
    match sd_notify::listen_fds() {
        Ok(stored) => InheritedSockets::new(stored.map(own)),
        Err(error) => {
            tracing::warn!(%error, "failed to receive sockets of the service manager");
            InheritedSockets::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What has arrived, without waiting.
    fn received(socket: &UnixDatagram) -> Vec<String> {
        let mut buffer = [0; 512];
        let next = || socket.recv(&mut buffer).ok().map(|length| buffer[..length].to_vec());
        std::iter::from_fn(next).map(|message| String::from_utf8(message).expect("text")).collect()
    }

    #[test]
    fn a_busy_service_manager_delays_nothing_and_misses_nothing() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("notify");
        let socket = UnixDatagram::bind(&path).expect("a socket");
        socket.set_nonblocking(true).expect("set");
        let mut manager = ServiceManager::at(Some(path));
        manager.ready();
        for number in 0..1000 {
            manager.status(|| number.to_string());
        }
        manager.stopping();
        let first = received(&socket);
        assert_eq!(first[..2], ["READY=1", "STATUS=0"]);
        assert!(first.len() < 500, "{} messages fit", first.len());
        manager.heartbeat();
        let rest = received(&socket);
        assert_eq!(rest.last().map(String::as_str), Some("STOPPING=1"), "{rest:?}");
        manager.status(|| "new".to_owned());
        assert_eq!(received(&socket), ["STATUS=new"]);
    }

    #[test]
    fn messages_that_wait_are_bounded_and_end_with_the_latest() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("notify");
        let socket = UnixDatagram::bind(&path).expect("a socket");
        socket.set_nonblocking(true).expect("set");
        let mut manager = ServiceManager::at(Some(path));
        for _ in 0..1000 {
            manager.reloading();
            manager.ready();
        }
        assert!(manager.waiting.len() <= MAX_WAITING);
        while !received(&socket).is_empty() {
            manager.heartbeat();
        }
        manager.reloading();
        manager.ready();
        assert_eq!(received(&socket).last().map(String::as_str), Some("READY=1"));
    }

    #[test]
    fn nothing_is_sent_without_a_service_manager() {
        let mut manager = ServiceManager::at(None);
        manager.status(|| panic!("nobody reads it"));
        manager.ready();
        assert!(manager.waiting.is_empty());
    }
}
