//! `cargo xtask reproduce`: builds a copy of this checkout in another folder, and compares the
//! programs, the binary and the image with those that are built here.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, ensure};
use tempfile::TempDir;
use testbed::{capture, workspace};

use crate::{
    build_ebpf, image, own_program,
    progress::{Step, seconds},
};

/// Builds everything twice.
pub(crate) fn run() -> anyhow::Result<()> {
    image::ensure_archive()?;
    let copy = Copy::of_checkout()?;
    copy.build("image")?;
    for artefact in programs().into_iter().chain([workspace::release_binary()]) {
        copy.compare(&artefact)?;
        println!("{}: the same from two folders", name(&artefact));
    }
    let archive = workspace::image_archive();
    let [here, there] =
        [archive.clone(), copy.path_of(&archive)?].map(|archive| image::digest(&archive));
    let (here, there) = (here?, there?);
    ensure!(here == there, "the image is {here} here and {there} from another folder");
    println!("image: {here} from two folders");
    Ok(())
}

/// Builds the programs twice: a stage of the tests.
pub(crate) fn compare_programs() -> anyhow::Result<()> {
    build_ebpf::ensure()?;
    let copy = Copy::of_checkout()?;
    copy.build("build-ebpf")?;
    programs().iter().try_for_each(|object| copy.compare(object))
}

fn programs() -> [PathBuf; 2] {
    [workspace::ebpf_object(), workspace::ebpf_debug_object()]
}

/// The same source in another folder, with a target directory of its own.
struct Copy {
    folder: TempDir,
}

impl Copy {
    fn of_checkout() -> anyhow::Result<Self> {
        let folder = tempfile::Builder::new()
            .prefix("redirector-copy-")
            .tempdir()
            .context("failed to create a folder for a copy")?;
        let root = workspace::root();
        let entries =
            fs::read_dir(&root).with_context(|| format!("failed to list {}", root.display()))?;
        let copied = entries
            .flatten()
            .map(|entry| entry.path())
            .filter(|path| !path.join("CACHEDIR.TAG").exists());
        capture::run(Command::new("cp").arg("-a").args(copied).arg(folder.path()), |_| {})
            .context("failed to copy the checkout")?;
        Ok(Self { folder })
    }

    /// Runs a verb of this program on the copy.
    fn build(&self, verb: &str) -> anyhow::Result<()> {
        let step = Step::start(format!("building {verb} in another folder"));
        let mut command = Command::new(own_program::path()?);
        workspace::clean(&mut command);
        command
            .current_dir(self.folder.path())
            .arg(verb)
            .env("CARGO_MANIFEST_DIR", self.folder.path().join("xtask"))
            .env("CARGO_TARGET_DIR", self.target());
        capture::run(&mut command, |line| step.note(line))?;
        eprintln!("       {}", seconds(step.done()));
        Ok(())
    }

    fn target(&self) -> PathBuf {
        self.folder.path().join("target")
    }

    /// The copy's file that corresponds to this one.
    fn path_of(&self, artefact: &Path) -> anyhow::Result<PathBuf> {
        let relative = artefact
            .strip_prefix(workspace::target_dir())
            .with_context(|| format!("{} is outside of the target", artefact.display()))?;
        Ok(self.target().join(relative))
    }

    fn compare(&self, artefact: &Path) -> anyhow::Result<()> {
        let read = |path: &Path| {
            fs::read(path).with_context(|| format!("failed to read {}", path.display()))
        };
        let (here, there) = (read(artefact)?, read(&self.path_of(artefact)?)?);
        ensure!(here == there, "{} differs when another folder builds it", name(artefact));
        Ok(())
    }
}

fn name(path: &Path) -> String {
    path.file_name().unwrap_or(path.as_os_str()).display().to_string()
}
