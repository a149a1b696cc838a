//! The packet datapath without an agent: the product's example `packets` attaches what
//! its standard input describes.

use std::{
    io::{BufRead as _, BufReader, Write as _},
    net::IpAddr,
    path::PathBuf,
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
};

use anyhow::{Context as _, Result, ensure};
use serde::{Deserialize, Serialize};

/// The product's example that attaches the programs.
pub const EXAMPLE: &str = "packets";

/// What the example attaches: the first line of its input, as JSON. It answers with a line, and
/// detaches everything at the end of its input.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Setup {
    /// The directory of the pins, in a bpf file system.
    pub bpffs: PathBuf,
    /// Interfaces of guests whose TCP is redirected.
    pub guests: Vec<String>,
    /// Interfaces of guests that only get answers.
    pub answered: Vec<String>,
    /// The host's own interfaces.
    pub hosts: Vec<String>,
    /// Cgroups that the cgroup datapath is attached to.
    pub cgroups: Vec<String>,
    /// Cgroups whose sockets get answers on the host's own interfaces, each with its level.
    pub name_cgroups: Vec<(PathBuf, u32)>,
    /// Routes: the VIP's index and the backends.
    pub routes: Vec<(u32, Vec<IpAddr>)>,
    /// Names, each with its VIP's index.
    pub names: Vec<(String, u32)>,
}

/// The line of the example's input after which it publishes [`EXACT`] names and [`WILDCARDS`]
/// wildcards, changes some, and answers with [`NameTimes`] as JSON.
pub const FILL: &str = "fill";

/// Exact names of a full pool.
pub const EXACT: u32 = 65_536;
/// Wildcards of a full pool.
pub const WILDCARDS: u32 = 1000;

/// The exact name number `number` of a full pool.
#[must_use]
pub fn exact_name(number: u32) -> String {
    format!("r{number}.internal.company.net")
}

/// The suffix of wildcard number `number` of a full pool; it has three to six labels.
#[must_use]
pub fn wildcard_suffix(number: u32) -> String {
    let deeper = ["", "a.", "a.b.", "a.b.c."][number as usize % 4];
    format!("{deeper}w{number}.company.net")
}

/// The times of writing names, in microseconds.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct NameTimes {
    /// All names of a full pool, to empty tables.
    pub filled: Vec<f64>,
    /// One change among all others.
    pub one: Vec<f64>,
}

/// The attached datapath; detached when dropped.
pub trait Datapath {
    /// Fills it with the names of a full pool.
    fn fill(&mut self) -> Result<NameTimes>;
}

/// The example as a process.
#[derive(Debug)]
pub struct Process {
    child: Child,
    /// `None` once it is closed.
    stdin: Option<ChildStdin>,
    stdout: BufReader<ChildStdout>,
}

impl Process {
    /// Starts the example with `command`, in the network namespace of the interfaces.
    pub fn start(mut command: Command, setup: &Setup) -> Result<Self> {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("failed to start the example `packets`")?;
        let (stdin, stdout) = (child.stdin.take(), child.stdout.take().context("no pipe")?);
        let mut process = Self { child, stdin, stdout: BufReader::new(stdout) };
        process.ask(&serde_json::to_string(setup)?)?;
        Ok(process)
    }

    fn ask(&mut self, line: &str) -> Result<String> {
        let stdin = self.stdin.as_mut().context("the example's input is closed")?;
        writeln!(stdin, "{line}").context("failed to write to the example `packets`")?;
        let mut answer = String::new();
        self.stdout.read_line(&mut answer)?;
        ensure!(!answer.is_empty(), "the example `packets` ended");
        Ok(answer)
    }
}

impl Datapath for Process {
    fn fill(&mut self) -> Result<NameTimes> {
        let answer = self.ask(FILL)?;
        serde_json::from_str(&answer).with_context(|| format!("not the times: {answer}"))
    }
}

impl Drop for Process {
    /// Waits until it has detached the programs.
    fn drop(&mut self) {
        drop(self.stdin.take());
        let _ = self.child.wait();
    }
}
