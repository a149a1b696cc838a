//! The machine's image, made by mmdebstrap once for each recipe.

use std::{
    fs,
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use executor_vm::image::{self, Image, RECIPE, SUITE};
use testbed::{capture, workspace};

use crate::{
    lock,
    progress::{Step, seconds},
    setup::private_apt,
};

/// Two minutes on a busy machine.
const LIMIT: Duration = Duration::from_secs(1800);

/// Makes the image, if it is not in the cache of tools.
pub(super) fn ensure() -> anyhow::Result<()> {
    let is_made = || Image::in_folder(&image::home()).is_complete();
    if is_made() {
        return Ok(());
    }
    let tools = workspace::tools_dir();
    let _lock = lock::acquire(&tools.join("executor-vm.lock"))?;
    if is_made() {
        return Ok(());
    }
    let started = Instant::now();
    let step = Step::start(format!("making a machine of Debian {SUITE} with systemd and Docker"));
    let temporary = tempfile::tempdir_in(&tools).context("failed to create a directory")?;
    make(temporary.path(), &step)?;
    let (made, home) = (temporary.path().join("image"), image::home());
    if home.exists() {
        fs::remove_dir_all(&home)
            .with_context(|| format!("failed to remove {}", home.display()))?;
    }
    fs::rename(&made, &home).with_context(|| format!("failed to make {}", home.display()))?;
    step.done_with(&seconds(started.elapsed()));
    Ok(())
}

/// In a mount namespace of its own, so that nothing stays mounted.
fn make(folder: &Path, step: &Step) -> anyhow::Result<()> {
    let file = |name| folder.join(name);
    let suites = [SUITE.to_owned(), format!("{SUITE}-security")];
    fs::write(file("sources.list"), private_apt::sources(&suites)?)
        .context("failed to write a list of sources")?;
    fs::write(file("image.sh"), RECIPE).context("failed to write a script")?;
    fs::create_dir(file("image")).context("failed to create the image's folder")?;
    let mut command = Command::new("unshare");
    command.args(["--mount", "--propagation", "private", "sh"]).arg(file("image.sh"));
    command.arg(file("image")).arg(file("sources.list")).env("LC_ALL", "C");
    let finished = capture::capture_within(&mut command, LIMIT, |line| step.note(line))?;
    ensure!(finished.status.success(), "failed to make the image:\n{}", finished.output);
    Ok(())
}
