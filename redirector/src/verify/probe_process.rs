//! Runs the probe as a child process, for a bounded time.

use std::{
    io::Write,
    process::{Command, Stdio},
    time::Duration,
};

use anyhow::Context as _;

use super::probe::{Job, ProbeResult, longest_time};

/// How long the child may take beyond its steps.
const GRACE: Duration = Duration::from_secs(5);

/// Runs the child and waits for it.
pub(super) fn run(job: &Job) -> anyhow::Result<ProbeResult> {
    let this = std::env::current_exe().context("failed to find this program's own file")?;
    let mut child = Command::new(this)
        .arg(CHILD)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .spawn()
        .context("failed to start the probe")?;
    let question = serde_json::to_vec(job).context("failed to write the probe's job")?;
    let watch = Watchdog::start(&child, longest_time(job.timeout) + GRACE)?;
    let written = child.stdin.take().map(|mut input| input.write_all(&question));
    let ended = child.wait_with_output().context("failed to wait for the probe")?;
    let late = watch.stop();
    anyhow::ensure!(!late, "the probe did not end in time and was killed");
    written.transpose().context("failed to give the probe its job")?;
    anyhow::ensure!(ended.status.success(), "the probe failed: {}", ended.status);
    let seen: ProbeResult =
        serde_json::from_slice(&ended.stdout).context("failed to understand the probe's answer")?;
    match &seen.entry_failure {
        Some(no) if no.not_permitted => {
            let why = format!("{}: run this as root on the node", no.why);
            Err(std::io::Error::new(std::io::ErrorKind::PermissionDenied, why).into())
        }
        Some(no) => anyhow::bail!("{}", no.why),
        None => Ok(seen),
    }
}

/// The hidden verb that makes this program the probe.
pub(crate) const CHILD: &str = "verify-probe";

/// Kills a child that does not end in time.
struct Watchdog {
    stop: std::sync::mpsc::Sender<()>,
    thread: std::thread::JoinHandle<bool>,
}

impl Watchdog {
    fn start(child: &std::process::Child, timeout: Duration) -> anyhow::Result<Self> {
        // A descriptor and not a number: that may be another process's by the time it is used.
        let process = rustix::process::pidfd_open(
            rustix::process::Pid::from_child(child),
            rustix::process::PidfdFlags::empty(),
        )
        .context("failed to open the probe's descriptor")?;
        let (stop, stopped) = std::sync::mpsc::channel();
        let thread = std::thread::spawn(move || {
            let late = matches!(
                stopped.recv_timeout(timeout),
                Err(std::sync::mpsc::RecvTimeoutError::Timeout)
            );
            if late {
                let _ = rustix::process::pidfd_send_signal(process, rustix::process::Signal::KILL);
            }
            late
        });
        Ok(Self { stop, thread })
    }

    /// Whether it came too late.
    fn stop(self) -> bool {
        let _ = self.stop.send(());
        self.thread.join().unwrap_or(true)
    }
}
