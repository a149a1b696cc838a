//! The agent on the node: `redirector run`, started as systemd or Kubernetes would start it.

use std::fs;
use std::io::{self, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixDatagram;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use rustix::process::Signal;

use crate::isolation::sandbox::Sandbox;
use crate::node::Node;
use crate::service::Service;
use crate::workspace;

/// The default path of the configuration file.
pub const CONFIG_PATH: &str = "/etc/redirector/redirector.toml";
/// The numbers of capabilities (include/uapi/linux/capability.h).
pub const CAP_NET_BIND_SERVICE: u32 = 10;
/// See [`CAP_NET_BIND_SERVICE`].
pub const CAP_NET_ADMIN: u32 = 12;
/// See [`CAP_NET_BIND_SERVICE`].
pub const CAP_BPF: u32 = 39;
/// The capabilities of the product.
pub const CAPABILITIES: [u32; 3] = [CAP_NET_BIND_SERVICE, CAP_NET_ADMIN, CAP_BPF];
/// Longest time until READY=1; the verifier takes most of it.
const READY_LIMIT: Duration = Duration::from_secs(60);
/// Longest time to end after SIGTERM.
const STOP_LIMIT: Duration = Duration::from_secs(60);

/// How the agent is started.
#[derive(Clone, Debug)]
pub struct AgentOptions {
    /// The `redirector` binary.
    pub binary: PathBuf,
    /// The configuration file's text, put at [`CONFIG_PATH`].
    pub config: String,
    /// The capabilities it gets, as uid 0 with this bounding set; `None` for all that root has.
    pub capabilities: Option<Vec<u32>>,
    /// Variables on top of the node's.
    pub environment: Vec<(String, String)>,
    /// Arguments after `run`.
    pub arguments: Vec<String>,
    /// Whether the sockets that it stores (FDSTORE) are passed to the next start, as systemd does.
    pub keeps_sockets: bool,
}

impl AgentOptions {
    /// `binary` with the documented configuration and exactly [`CAPABILITIES`].
    pub fn documented(binary: &Path) -> Result<Self> {
        Ok(Self::with_config(binary, &documented_config()?))
    }

    /// `binary` with this configuration and exactly [`CAPABILITIES`].
    pub fn with_config(binary: &Path, config: &str) -> Self {
        Self {
            binary: binary.to_owned(),
            config: config.to_owned(),
            capabilities: Some(CAPABILITIES.to_vec()),
            environment: Vec::new(),
            arguments: Vec::new(),
            keeps_sockets: false,
        }
    }
}

/// The documented configuration file, which the packages install.
pub fn documented_config() -> Result<String> {
    let path = workspace::root().join("deploy/redirector.toml");
    fs::read_to_string(&path)
        .with_context(|| format!("failed to read the documented configuration {}", path.display()))
}

/// An agent that was started, and may since have been stopped or killed.
#[derive(Debug)]
pub struct Agent {
    sandbox: Sandbox,
    options: AgentOptions,
    service: Service,
    notify: NotifySocket,
    /// Distinguishes the agents of a node that run at the same time.
    instance: u32,
    /// From spawn to READY=1; zero if nobody has waited for it.
    ready_after: Duration,
}

/// The receiving end of `NOTIFY_SOCKET`.
#[derive(Debug)]
struct NotifySocket {
    socket: UnixDatagram,
    states: Vec<String>,
    /// By name.
    stored: Vec<(String, OwnedFd)>,
    /// Whether sockets are stored; else they are closed.
    keeps_sockets: bool,
}

impl Agent {
    /// Writes the configuration, starts the agent and waits for its READY=1 (sd_notify). An error
    /// shows the end of its log.
    pub fn start(node: &Node, options: AgentOptions) -> Result<Self> {
        let sandbox = node.sandbox().clone();
        sandbox.write(CONFIG_PATH, &options.config)?;
        let (service, notify, ready_after) = launch(&sandbox, &options, 0, Vec::new())?;
        Ok(Self { sandbox, options, service, notify, instance: 0, ready_after })
    }

    /// Starts another agent with the same configuration beside this one, and waits for its READY=1.
    pub fn beside(&self, arguments: &[&str]) -> Result<Self> {
        let mut next = self.launch_beside(arguments)?;
        next.ready_after = wait_ready(&mut next.service, &mut next.notify)?;
        Ok(next)
    }

    /// The same, but returns at once, whether it gets ready or not.
    pub fn launch_beside(&self, arguments: &[&str]) -> Result<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(1);
        let instance = NEXT.fetch_add(1, Ordering::Relaxed);
        let sandbox = self.sandbox.clone();
        let mut options = self.options.clone();
        options.arguments = arguments.iter().copied().map(str::to_owned).collect();
        let (service, notify) = spawn(&sandbox, &options, instance, Vec::new())?;
        Ok(Self { sandbox, options, service, notify, instance, ready_after: Duration::ZERO })
    }

    /// Waits until it has ended, without a signal.
    pub fn wait_ended(&mut self) -> Result<ExitStatus> {
        let mut status = None;
        crate::process::until("the end of the agent", STOP_LIMIT, || {
            status = self.service.ended()?;
            Ok(status.is_some())
        })?;
        status.context("the agent has not ended")
    }

    /// The names of the sockets that it has stored.
    pub fn stored(&mut self) -> Result<Vec<String>> {
        self.notify.receive()?;
        Ok(self.notify.stored.iter().map(|(name, _)| name.clone()).collect())
    }

    /// Sends SIGKILL, and waits until the agent has ended.
    pub fn sigkill(&mut self) -> Result<()> {
        self.service.kill()
    }

    /// Sends SIGTERM and waits for the end; returns the exit status.
    pub fn sigterm(&mut self) -> Result<ExitStatus> {
        self.service.terminate(STOP_LIMIT)
    }

    /// Sends SIGHUP, which reloads the configuration.
    pub fn sighup(&self) -> Result<()> {
        self.service.signal(Signal::HUP)
    }

    /// Sends a signal, such as SIGSTOP.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        self.service.signal(signal)
    }

    /// Starts it again, after a SIGKILL if it still runs.
    pub fn restart(&mut self) -> Result<()> {
        self.sigkill()?;
        let stored = self.take_stored()?;
        (self.service, self.notify, self.ready_after) =
            launch(&self.sandbox, &self.options, self.instance, stored)?;
        Ok(())
    }

    /// Starts it again and returns at once, whether it gets ready or not.
    pub fn relaunch(&mut self) -> Result<()> {
        self.sigkill()?;
        let stored = self.take_stored()?;
        (self.service, self.notify) = spawn(&self.sandbox, &self.options, self.instance, stored)?;
        Ok(())
    }

    fn take_stored(&mut self) -> Result<Vec<(String, OwnedFd)>> {
        self.notify.receive()?;
        Ok(std::mem::take(&mut self.notify.stored))
    }

    /// Replaces the configuration file. The agent notices on its own, or on [`Agent::sighup`].
    pub fn write_config(&mut self, config: &str) -> Result<()> {
        config.clone_into(&mut self.options.config);
        self.sandbox.write(CONFIG_PATH, config)
    }

    /// Time from spawn to READY=1 of the last start.
    pub fn ready_after(&self) -> Duration {
        self.ready_after
    }

    /// The notifications (sd_notify) of its last start so far, in order, such as `READY=1`.
    pub fn notifications(&mut self) -> Result<&[String]> {
        self.notify.receive()?;
        Ok(&self.notify.states)
    }

    /// Its pid.
    pub fn pid(&self) -> u32 {
        self.service.pid()
    }

    /// The exit status; `None` while it runs.
    pub fn ended(&mut self) -> Result<Option<ExitStatus>> {
        self.service.ended()
    }

    /// The log of all its starts.
    pub fn log(&self) -> String {
        self.service.log()
    }

    /// The last lines of its log.
    pub fn log_tail(&self) -> String {
        self.service.tail()
    }
}

fn launch(
    sandbox: &Sandbox,
    options: &AgentOptions,
    instance: u32,
    stored: Vec<(String, OwnedFd)>,
) -> Result<(Service, NotifySocket, Duration)> {
    let (mut service, mut notify) = spawn(sandbox, options, instance, stored)?;
    let ready_after = wait_ready(&mut service, &mut notify)?;
    Ok((service, notify, ready_after))
}

/// The time until READY=1.
fn wait_ready(service: &mut Service, notify: &mut NotifySocket) -> Result<Duration> {
    let started = Instant::now();
    service.wait_ready(READY_LIMIT, || {
        notify.receive()?;
        Ok(notify.states.iter().any(|state| state == "READY=1"))
    })?;
    Ok(started.elapsed())
}

fn spawn(
    sandbox: &Sandbox,
    options: &AgentOptions,
    instance: u32,
    stored: Vec<(String, OwnedFd)>,
) -> Result<(Service, NotifySocket)> {
    let files = sandbox.scope().files();
    let suffix = if instance == 0 { String::new() } else { format!("-{instance}") };
    let path = files.join(format!("notify{suffix}"));
    let notify = NotifySocket::bind(&path)?;
    let mut command = if stored.is_empty() {
        sandbox.command(&options.binary)
    } else {
        let mut shell = sandbox.command("/bin/sh");
        shell.args(["-c", "export LISTEN_PID=$$; exec \"$0\" \"$@\""]).arg(&options.binary);
        shell.env("LISTEN_FDS", stored.len().to_string());
        shell
    };
    command.arg("run").args(&options.arguments).env("NOTIFY_SOCKET", &path);
    command.envs(options.environment.iter().map(|(key, value)| (key, value)));
    if let Some(kept) = &options.capabilities {
        keep_capabilities(&mut command, kept);
    }
    pass(&mut command, stored.iter().map(|(_, socket)| socket.as_raw_fd()).collect());
    let log = files.join(format!("agent{suffix}.log"));
    let service = Service::start("the agent", &log, command)?;
    Ok((service, NotifySocket { stored, keeps_sockets: options.keeps_sockets, ..notify }))
}

/// Passes descriptors to `command`, from number 3 on.
pub(crate) fn pass(command: &mut Command, descriptors: Vec<RawFd>) {
    /// Above those that are passed.
    const ABOVE: libc::c_int = 300;
    // SAFETY: the closure only calls fcntl and dup2, with integers.
    unsafe {
        command.pre_exec(move || {
            let checked = |result: libc::c_int| match result {
                -1 => Err(io::Error::last_os_error()),
                descriptor => Ok(descriptor),
            };
            // A descriptor may have a number of those that are passed.
            for (number, descriptor) in (0..).zip(&descriptors) {
                let moved = checked(libc::fcntl(*descriptor, libc::F_DUPFD_CLOEXEC, ABOVE))?;
                checked(libc::dup2(moved, ABOVE + 300 + number))?;
                checked(libc::close(moved))?;
            }
            for number in 0..descriptors.len() as libc::c_int {
                checked(libc::dup2(ABOVE + 300 + number, 3 + number))?;
                checked(libc::close(ABOVE + 300 + number))?;
            }
            Ok(())
        });
    }
}

impl NotifySocket {
    fn bind(path: &Path) -> Result<Self> {
        let _ = fs::remove_file(path);
        let socket = UnixDatagram::bind(path)
            .with_context(|| format!("failed to bind {}", path.display()))?;
        socket.set_nonblocking(true).context("failed to make the notify socket non-blocking")?;
        Ok(Self { socket, states: Vec::new(), stored: Vec::new(), keeps_sockets: false })
    }

    /// Reads the notifications that have arrived.
    fn receive(&mut self) -> Result<()> {
        let mut buffer = [0; 4096];
        loop {
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(4))];
            let mut control = RecvAncillaryBuffer::new(&mut space);
            let mut bytes = [IoSliceMut::new(&mut buffer)];
            let flags = RecvFlags::CMSG_CLOEXEC;
            let length = match recvmsg(&self.socket, &mut bytes, &mut control, flags) {
                Ok(received) => received.bytes,
                Err(rustix::io::Errno::WOULDBLOCK) => return Ok(()),
                Err(error) => return Err(error).context("failed to read the notify socket"),
            };
            let mut sockets = Vec::new();
            for message in control.drain() {
                if let RecvAncillaryMessage::ScmRights(received) = message {
                    sockets.extend(received);
                }
            }
            let text = String::from_utf8_lossy(&buffer[..length]).into_owned();
            let name = text.lines().find_map(|line| line.strip_prefix("FDNAME="));
            if let Some(name) = name {
                self.store(name, text.contains("FDSTOREREMOVE=1"), sockets);
            } else {
                self.states.extend(text.lines().map(str::to_owned));
            }
        }
    }

    /// Stores sockets as systemd does: those that it has already are not stored twice.
    fn store(&mut self, name: &str, remove: bool, sockets: Vec<OwnedFd>) {
        if !self.keeps_sockets {
            return;
        }
        if remove {
            self.stored.retain(|(stored, _)| stored != name);
        } else if self.stored.iter().all(|(stored, _)| stored != name) {
            self.stored.extend(sockets.into_iter().map(|socket| (name.to_owned(), socket)));
        }
    }
}

/// Reduces the bounding set of `command` to `kept`, which uid 0 then gets at exec.
pub fn keep_capabilities(command: &mut Command, kept: &[u32]) {
    let kept = kept.iter().fold(0_u64, |mask, capability| mask | 1 << capability);
    // SAFETY: the closure only calls prctl, with integers.
    unsafe {
        command.pre_exec(move || {
            for capability in (0..64_u64).filter(|capability| kept & (1 << capability) == 0) {
                if libc::prctl(libc::PR_CAPBSET_DROP, capability, 0, 0, 0) != 0 {
                    let error = io::Error::last_os_error();
                    // The first number that is unknown to this kernel ends the list.
                    return if error.raw_os_error() == Some(libc::EINVAL) {
                        Ok(())
                    } else {
                        Err(error)
                    };
                }
            }
            Ok(())
        });
    }
}
