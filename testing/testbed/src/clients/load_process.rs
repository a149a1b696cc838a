//! The load client as a process inside an executor: cgroups hold processes, not threads.

use std::process::{Child, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::connect_load::{LoadOptions, LoadReport};
use crate::isolation::sandbox::Sandbox;
use crate::{binaries, process};

/// Beyond its own time the load client waits for connects that hang, twice five seconds, and a busy
/// machine.
const GRACE: Duration = Duration::from_secs(20);

/// A load client that runs.
#[derive(Debug)]
pub struct LoadProcess {
    child: Child,
    limit: Duration,
}

impl LoadProcess {
    /// Starts connecting from `sandbox`. The calling thread must live until the report is in.
    pub fn start(sandbox: &Sandbox, options: &LoadOptions) -> Result<Self> {
        let mut command = sandbox.command(binaries::client()?);
        command
            .args(arguments(options))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let child = command.spawn().context("failed to start the load client")?;
        Ok(Self { child, limit: Duration::from_secs_f64(options.seconds) + GRACE })
    }

    /// Waits for its end and returns its report.
    pub fn report(mut self) -> Result<LoadReport> {
        // Its output is one line, which the pipe holds.
        if process::wait(&mut self.child, self.limit)?.is_none() {
            self.child.kill().context("failed to kill the load client")?;
        }
        let output = self.child.wait_with_output().context("failed to wait for the load client")?;
        if !output.status.success() {
            bail!(
                "the load client failed ({}): {}",
                output.status,
                String::from_utf8_lossy(&output.stderr).trim()
            );
        }
        serde_json::from_slice(&output.stdout).context("failed to parse the load client's report")
    }
}

/// The command line of the load client, as typed after `testbed-client`.
pub fn arguments(options: &LoadOptions) -> Vec<String> {
    let mut arguments: Vec<String> = vec!["connect".to_owned()];
    let mut add = |flag: &str, value: String| arguments.extend([flag.to_owned(), value]);
    add("--target", options.target.to_string());
    add("--rate", options.rate.to_string());
    add("--seconds", options.seconds.to_string());
    if let Some(peer) = options.expect_peer {
        add("--expect-peer", peer.to_string());
    }
    for banner in &options.expect_banner {
        add("--expect-banner", banner.clone());
    }
    arguments
}
