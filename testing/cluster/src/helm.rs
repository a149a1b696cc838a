//! Helm's engine, on the cluster.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use testbed::{process, workspace};

use crate::control_plane::{ControlPlane, write};

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/src/helm.py");
/// The script waits for at most two minutes.
const LIMIT: Duration = Duration::from_secs(180);

/// A release of the chart, `redirector` in kube-system.
#[derive(Debug)]
pub struct Helm<'a> {
    control: &'a ControlPlane,
}

impl<'a> Helm<'a> {
    /// Helm, as an administrator.
    pub fn new(control: &'a ControlPlane) -> Self {
        Self { control }
    }

    /// `helm install --wait` with these values.
    pub fn install(&self, values: &Value) -> Result<()> {
        self.run("install", values).map(drop)
    }

    /// `helm upgrade --wait --reuse-values` with these values on top.
    pub fn upgrade(&self, values: &Value) -> Result<()> {
        self.run("upgrade", values).map(drop)
    }

    /// `helm test`. Returns the release with the outcome of its test.
    pub fn test(&self) -> Result<Value> {
        serde_json::from_str(&self.run("test", &json!({}))?).context("failed to parse the release")
    }

    /// `helm uninstall`.
    pub fn uninstall(&self) -> Result<()> {
        self.run("uninstall", &json!({})).map(drop)
    }

    fn run(&self, verb: &str, values: &Value) -> Result<String> {
        let python = workspace::chart_python_home().join("bin/python");
        ensure!(python.is_file(), "{} is missing: run `cargo xtask setup`", python.display());
        let mut command = self.control.sandbox().command(python);
        command.arg(SCRIPT).arg(verb).arg(self.chart()?);
        command.arg(values.to_string()).env("KUBECONFIG", self.control.kubeconfig());
        let done = process::finish(command, LIMIT)?.success();
        Ok(done.with_context(|| format!("helm {verb} failed"))?.stdout)
    }

    /// A copy of the chart that fits Debian's older Kubernetes: it admits that version, and its
    /// updates are without a second pod, which 1.22 brought.
    fn chart(&self) -> Result<PathBuf> {
        let copy = self.control.sandbox().home().join("chart");
        if !copy.exists() {
            let mut command = Command::new("cp");
            command.arg("-rL").arg(workspace::root().join("deploy/helm/redirector")).arg(&copy);
            process::finish(command, LIMIT)?.success().context("failed to copy the chart")?;
            edit(&copy.join("Chart.yaml"), |line| match line.starts_with("kubeVersion") {
                true => String::new(),
                false => line.to_owned(),
            })?;
            edit(&copy.join("templates/daemonset.yaml"), |line| match line.trim() {
                "maxUnavailable: 0" => line.replace('0', "1"),
                _ => line.to_owned(),
            })?;
        }
        Ok(copy)
    }
}

/// Changes the lines of a file.
fn edit(path: &Path, change: impl Fn(&str) -> String) -> Result<()> {
    let text =
        fs::read_to_string(path).with_context(|| format!("failed to read {}", path.display()))?;
    write(path, &text.lines().map(|line| change(line) + "\n").collect::<String>())
}
