//! Python's packages, in a private environment: nothing is put among the machine's own.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::Context as _;

use crate::{exec, progress::Step};
use xtask::workspace;

/// What the environment holds; its directory is named by it, so that a new list makes a new environment.
const REQUIREMENTS: &[&str] = &["pypiserver==2.4.2"];

/// The environment that [`install`] makes.
pub(crate) fn home() -> PathBuf {
    workspace::python_home()
}

/// Whether the environment is there and whole.
pub(crate) fn present() -> bool {
    fs::read_to_string(home().join(STAMP)).is_ok_and(|stamp| stamp == REQUIREMENTS.join("\n"))
}

/// Written last.
const STAMP: &str = "requirements.txt";

/// Whether Python can make an environment; Debian has that in a package of its own.
pub(crate) fn can_make() -> bool {
    exec::capture(Command::new("python3").args(["-c", "import ensurepip, venv"]), |_| {}).is_ok_and(|finished| finished.status.success())
}

/// Makes the environment anew.
pub(crate) fn install() -> anyhow::Result<()> {
    let step = Step::start(format!("installing {} from PyPI", REQUIREMENTS.join(", ")));
    let home = home();
    if home.exists() {
        fs::remove_dir_all(&home).with_context(|| format!("failed to remove {}", home.display()))?;
    }
    exec::run(Command::new("python3").args(["-m", "venv"]).arg(&home), |line| step.note(line))?;
    let pip = home.join("bin/pip");
    exec::run(Command::new(&pip).args(["install", "--quiet", "--disable-pip-version-check"]).args(REQUIREMENTS), |line| step.note(line))?;
    let stamp: &Path = &home.join(STAMP);
    fs::write(stamp, REQUIREMENTS.join("\n")).with_context(|| format!("failed to write {}", stamp.display()))?;
    step.done_with(&home.display().to_string());
    Ok(())
}
