//! Helm's engine and the schemas of Kubernetes: Python packages, pinned by hash, in an environment
//! of their own.

use std::{fs, process::Command};

use anyhow::Context as _;
use testbed::{capture, workspace};

use crate::progress::Step;

const REQUIREMENTS: &str = include_str!("../../tests/chart/requirements.txt");

/// Whether the environment is complete.
pub(crate) fn present() -> bool {
    fs::read_to_string(workspace::chart_python_home().join(STAMP))
        .is_ok_and(|stamp| stamp == REQUIREMENTS)
}

/// Written last.
const STAMP: &str = "requirements.txt";

/// Makes a new environment.
pub(crate) fn install() -> anyhow::Result<()> {
    let home = workspace::chart_python_home();
    let step = Step::start(format!("installing the chart's tools in {}", home.display()));
    if home.exists() {
        fs::remove_dir_all(&home)
            .with_context(|| format!("failed to remove {}", home.display()))?;
    }
    capture::run(Command::new("python3").args(["-m", "venv"]).arg(&home), |line| step.note(line))?;
    let requirements = tempfile::NamedTempFile::new().context("failed to make a file")?;
    fs::write(requirements.path(), REQUIREMENTS).context("failed to write the requirements")?;
    // Helm's package asks for a newer Python than Debian's, and works with it.
    capture::run(
        Command::new(home.join("bin/pip"))
            .args(["install", "--quiet", "--disable-pip-version-check", "--require-hashes"])
            .args(["--no-deps", "--only-binary", ":all:", "--ignore-requires-python", "-r"])
            .arg(requirements.path()),
        |line| step.note(line),
    )?;
    let stamp = home.join(STAMP);
    fs::write(&stamp, REQUIREMENTS)
        .with_context(|| format!("failed to write {}", stamp.display()))?;
    step.done();
    Ok(())
}
