//! kubectl on the node.

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result};
use serde_json::Value;
use testbed::{
    Sandbox, packages,
    process::{self, Finished},
    service::Service,
};

/// Longest time of a command; kubectl itself waits for a busy API server.
const LIMIT: Duration = Duration::from_secs(120);

/// kubectl with the rights of an administrator.
#[derive(Clone, Debug)]
pub struct Kubectl {
    sandbox: Sandbox,
    program: PathBuf,
    kubeconfig: PathBuf,
}

impl Kubectl {
    pub(crate) fn new(sandbox: &Sandbox, kubeconfig: PathBuf) -> Result<Self> {
        let program = packages::unpacked("usr/bin/kubectl")?;
        Ok(Self { sandbox: sandbox.clone(), program, kubeconfig })
    }

    /// Runs it to its end. A failing exit code is no error.
    pub fn run(&self, words: &[&str]) -> Result<Finished> {
        self.run_with_input(words, "")
    }

    /// As [`Kubectl::run`]; it must succeed. Returns its standard output.
    pub fn ok(&self, words: &[&str]) -> Result<String> {
        let done = self.run(words)?.success();
        Ok(done.with_context(|| format!("kubectl {} failed", words.join(" ")))?.stdout)
    }

    /// Starts it; it runs until the value is dropped.
    pub fn start(&self, name: &str, words: &[&str]) -> Result<Service> {
        let mut command = self.command();
        command.args(words);
        Service::start(name, &self.sandbox.home().join(format!("{name}.log")), command)
    }

    /// The JSON of `kubectl get`.
    pub fn get(&self, words: &[&str]) -> Result<Value> {
        let text = self.ok(&[&["get", "-o", "json"], words].concat())?;
        serde_json::from_str(&text).context("failed to parse kubectl's JSON")
    }

    /// Applies objects, as YAML or JSON.
    pub fn apply(&self, objects: &str) -> Result<()> {
        let done = self.run_with_input(&["apply", "-f", "-"], objects)?.success();
        done.with_context(|| format!("failed to apply\n{objects}")).map(drop)
    }

    /// `kubectl create --raw`, for what has no command of its own. Returns the answer.
    pub fn create_raw(&self, path: &str, object: &str) -> Result<String> {
        let words = ["create", "--raw", path, "-f", "-"];
        let done = self.run_with_input(&words, object)?.success();
        Ok(done.with_context(|| format!("failed to create {path}"))?.stdout)
    }

    fn run_with_input(&self, words: &[&str], input: &str) -> Result<Finished> {
        let mut command = self.command();
        command.args(words);
        process::finish_with_input(command, input.as_bytes(), LIMIT)
            .with_context(|| format!("failed to run kubectl {}", words.join(" ")))
    }

    fn command(&self) -> Command {
        let mut command = self.sandbox.command(&self.program);
        command.env("KUBECONFIG", &self.kubeconfig);
        command
    }
}
