//! The agent on the node: `redirector run`, started as systemd or Kubernetes would start it.

use std::fs;
use std::io;
use std::os::unix::net::UnixDatagram;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rustix::process::Signal;

use crate::isolation::sandbox::Sandbox;
use crate::node::Node;
use crate::service::Service;
use crate::workspace;

/// Where the agent looks for its configuration when nothing else is said.
pub const CONFIG_PATH: &str = "/etc/redirector/redirector.toml";
/// What the product asks for: CAP_NET_BIND_SERVICE, CAP_NET_ADMIN and CAP_BPF, by number.
pub const CAPABILITIES: [u32; 3] = [10, 12, 39];
/// Longest time to get ready; most of it would be the verifier's.
const READY_LIMIT: Duration = Duration::from_secs(20);
/// Longest time to end after SIGTERM.
const STOP_LIMIT: Duration = Duration::from_secs(15);

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
        }
    }
}

/// The configuration file that the documentation shows and the packages install, word for word.
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
    manager: Manager,
    /// From spawn to READY=1.
    ready_after: Duration,
}

/// The service manager's ear.
#[derive(Debug)]
struct Manager {
    socket: UnixDatagram,
    heard: Vec<String>,
}

impl Agent {
    /// Writes the configuration, starts the agent and waits for its READY=1 (sd_notify). An error
    /// shows the end of its log.
    pub fn start(node: &Node, options: AgentOptions) -> Result<Self> {
        let sandbox = node.sandbox().clone();
        sandbox.write(CONFIG_PATH, &options.config)?;
        let (service, manager, ready_after) = launch(&sandbox, &options)?;
        Ok(Self { sandbox, options, service, manager, ready_after })
    }

    /// SIGKILL, and waits until it is gone.
    pub fn sigkill(&mut self) -> Result<()> {
        self.service.kill()
    }

    /// SIGTERM; returns how it ended.
    pub fn sigterm(&mut self) -> Result<ExitStatus> {
        self.service.terminate(STOP_LIMIT)
    }

    /// SIGHUP: reload the configuration.
    pub fn sighup(&self) -> Result<()> {
        self.service.signal(Signal::HUP)
    }

    /// Starts it anew, after a SIGKILL when it still runs.
    pub fn restart(&mut self) -> Result<()> {
        self.sigkill()?;
        (self.service, self.manager, self.ready_after) = launch(&self.sandbox, &self.options)?;
        Ok(())
    }

    /// Replaces the configuration file; the agent notices, or is told by [`Agent::sighup`].
    pub fn write_config(&mut self, config: &str) -> Result<()> {
        config.clone_into(&mut self.options.config);
        self.sandbox.write(CONFIG_PATH, config)
    }

    /// Time from spawn to READY=1 of the last start.
    pub fn ready_after(&self) -> Duration {
        self.ready_after
    }

    /// What its last start has told the service manager so far, such as `READY=1`, in order.
    pub fn notifications(&mut self) -> Result<&[String]> {
        self.manager.listen()?;
        Ok(&self.manager.heard)
    }

    /// Its pid.
    pub fn pid(&self) -> u32 {
        self.service.pid()
    }

    /// How it ended; `None` while it runs.
    pub fn ended(&mut self) -> Result<Option<ExitStatus>> {
        self.service.ended()
    }

    /// All that every start of it has logged.
    pub fn log(&self) -> String {
        self.service.log()
    }

    /// The last lines of its log.
    pub fn log_tail(&self) -> String {
        self.service.tail()
    }
}

fn launch(sandbox: &Sandbox, options: &AgentOptions) -> Result<(Service, Manager, Duration)> {
    let files = sandbox.scope().files();
    let notify = files.join("notify");
    let mut manager = Manager::bind(&notify)?;
    let mut command = sandbox.command(&options.binary);
    command.arg("run").args(&options.arguments).env("NOTIFY_SOCKET", &notify);
    command.envs(options.environment.iter().map(|(key, value)| (key, value)));
    if let Some(kept) = &options.capabilities {
        keep_capabilities(&mut command, kept);
    }
    let started = Instant::now();
    let mut service = Service::start("the agent", &files.join("agent.log"), command)?;
    service.wait_ready(READY_LIMIT, || {
        manager.listen()?;
        Ok(manager.heard.iter().any(|state| state == "READY=1"))
    })?;
    Ok((service, manager, started.elapsed()))
}

impl Manager {
    fn bind(path: &Path) -> Result<Self> {
        let _ = fs::remove_file(path);
        let socket = UnixDatagram::bind(path)
            .with_context(|| format!("failed to bind {}", path.display()))?;
        socket.set_nonblocking(true).context("failed to make the notify socket non-blocking")?;
        Ok(Self { socket, heard: Vec::new() })
    }

    /// Takes in what has arrived.
    fn listen(&mut self) -> Result<()> {
        let mut buffer = [0; 4096];
        loop {
            match self.socket.recv(&mut buffer) {
                Ok(length) => self
                    .heard
                    .extend(String::from_utf8_lossy(&buffer[..length]).lines().map(str::to_owned)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error).context("failed to read the notify socket"),
            }
        }
    }
}

/// Leaves `command` with a bounding set of `kept`, which is what uid 0 then gets at exec.
pub fn keep_capabilities(command: &mut Command, kept: &[u32]) {
    let kept = kept.iter().fold(0_u64, |mask, capability| mask | 1 << capability);
    // SAFETY: the closure only calls prctl, with integers.
    unsafe {
        command.pre_exec(move || {
            for capability in (0..64_u64).filter(|capability| kept & (1 << capability) == 0) {
                if libc::prctl(libc::PR_CAPBSET_DROP, capability, 0, 0, 0) != 0 {
                    let error = io::Error::last_os_error();
                    // The first number that this kernel does not know ends the list.
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
