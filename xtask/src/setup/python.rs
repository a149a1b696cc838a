//! Python packages in a private environment, separate from the machine's.

use std::{fs, path::Path, process::Command};

use anyhow::Context as _;
use testbed::{capture, packages::PYPI, workspace};

use crate::progress::Step;

/// Whether the environment is complete.
pub(crate) fn present() -> bool {
    fs::read_to_string(workspace::python_home().join(STAMP))
        .is_ok_and(|stamp| stamp == PYPI.join("\n"))
}

/// Written last.
const STAMP: &str = "requirements.txt";

/// Whether Python can make an environment; Debian has a separate package for that.
pub(crate) fn can_make() -> bool {
    capture::capture(Command::new("python3").args(["-c", "import ensurepip, venv"]), |_| {})
        .is_ok_and(|finished| finished.status.success())
}

/// Makes a new environment.
pub(crate) fn install() -> anyhow::Result<()> {
    let step = Step::start(format!("installing {} from PyPI", PYPI.join(", ")));
    let home = workspace::python_home();
    if home.exists() {
        fs::remove_dir_all(&home)
            .with_context(|| format!("failed to remove {}", home.display()))?;
    }
    capture::run(Command::new("python3").args(["-m", "venv"]).arg(&home), |line| step.note(line))?;
    let pip = home.join("bin/pip");
    capture::run(
        Command::new(&pip).args(["install", "--quiet", "--disable-pip-version-check"]).args(PYPI),
        |line| step.note(line),
    )?;
    let stamp: &Path = &home.join(STAMP);
    fs::write(stamp, PYPI.join("\n"))
        .with_context(|| format!("failed to write {}", stamp.display()))?;
    step.done_with(&home.display().to_string());
    Ok(())
}
