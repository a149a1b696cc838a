//! `cargo xtask image`: builds an image that contains only the static binary and what it is made
//! of, offline with buildah, in a container storage and as an OCI archive.
//!
//! The same commit gives the same digest: the layer's times are those of 1970.

mod archive;

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Instant,
};

use anyhow::{Context as _, bail};
use tempfile::TempDir;
use testbed::{capture, workspace};

pub(crate) use archive::digest;

use crate::{
    arch::Arch,
    build,
    progress::{Step, seconds},
    sbom,
    setup::{self, needs::Group},
};

/// The name that `deploy/daemonset.yaml` uses.
const NAME: &str = concat!("localhost/redirector:", env!("CARGO_PKG_VERSION"));

/// Arguments of `cargo xtask image`.
#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    /// Name and tag of the image
    #[arg(long, default_value = NAME)]
    tag: String,
    /// Architectures; several make an index of images [default: this machine's]
    #[arg(long, value_enum, value_delimiter = ',')]
    arch: Vec<Arch>,
    /// Container storage to put the image into [default: buildah's own]
    #[arg(long, value_name = "DIR")]
    root: Option<PathBuf>,
    /// State of that container storage
    #[arg(long, value_name = "DIR", requires = "root")]
    runroot: Option<PathBuf>,
}

/// Builds the image into a container storage, and the archive.
pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let started = Instant::now();
    setup::ensure(&[Group::Image])?;
    let archs: &[Arch] = if args.arch.is_empty() { &[Arch::HOST] } else { &args.arch };
    let storage = Storage { root: args.root.clone(), runroot: args.runroot.clone() };
    let (archive, images) = build_image(&storage, archs, &args.tag)?;
    for image in images {
        eprintln!("{} for {}: {} kB", args.tag, image.architecture, image.size / 1000);
    }
    eprintln!("{} ({})", archive.display(), seconds(started.elapsed()));
    Ok(())
}

/// Builds only the archive, for the tests, in a temporary storage: the user's own storage stays
/// unchanged.
pub(crate) fn ensure_archive() -> anyhow::Result<PathBuf> {
    setup::ensure(&[Group::Image])?;
    let folder = tempfile::Builder::new()
        .prefix("redirector-image-")
        .tempdir()
        .context("failed to create a directory for a container storage")?;
    let storage = Storage {
        root: Some(folder.path().join("root")),
        runroot: Some(folder.path().join("run")),
    };
    let (archive, _) = build_image(&storage, &[Arch::HOST], NAME)?;
    Ok(archive)
}

struct Storage {
    root: Option<PathBuf>,
    runroot: Option<PathBuf>,
}

impl Storage {
    fn buildah(&self) -> Command {
        let mut command = Command::new("buildah");
        if let Some(root) = &self.root {
            let runroot = self.runroot.clone().unwrap_or_else(|| root.with_extension("run"));
            // A plain directory per layer: it needs no mounts, and works on any file system.
            command
                .arg("--root")
                .arg(root)
                .arg("--runroot")
                .arg(runroot)
                .args(["--storage-driver", "vfs"]);
        }
        command
    }
}

/// Builds the images in the storage and writes the archive; returns the archive's path, and what is
/// in it.
fn build_image(
    storage: &Storage,
    archs: &[Arch],
    tag: &str,
) -> anyhow::Result<(PathBuf, Vec<archive::Image>)> {
    let contexts =
        archs.iter().map(|&arch| Ok((arch, context(arch)?))).collect::<anyhow::Result<Vec<_>>>()?;
    let archive = workspace::image_archive();
    assemble(storage, &contexts, tag, &archive)?;
    let images = archive::images(&archive)?;
    Ok((archive, images))
}

/// Makes an image of each context, an index if there are several, and the archive of it.
fn assemble(
    storage: &Storage,
    contexts: &[(Arch, TempDir)],
    tag: &str,
    archive: &Path,
) -> anyhow::Result<()> {
    let step = Step::start(format!("building the image {tag}"));
    let index = contexts.len() > 1;
    if index {
        // One from an earlier build would keep its images.
        let _ = capture::capture(storage.buildah().args(["rmi", "--force", tag]), |_| {});
    }
    for (arch, context) in contexts {
        let mut command = storage.buildah();
        command.args(["build", "--quiet", "--pull-never", "--format=oci", "--timestamp=0"]);
        command.arg(format!("--platform=linux/{}", arch.debian()));
        command.arg(if index { "--manifest" } else { "--tag" }).arg(tag);
        for label in labels()? {
            command.arg("--label").arg(label);
        }
        let recipe = workspace::root().join("deploy/Containerfile");
        command.arg("--file").arg(recipe).arg(context.path());
        capture::run(&mut command, |line| step.note(line)).context("failed to build the image")?;
    }
    write_archive(storage, (index, tag), archive, &step)?;
    step.done();
    Ok(())
}

/// The files of an image, in a folder.
fn context(arch: Arch) -> anyhow::Result<TempDir> {
    let binary = build::for_arch(arch)?;
    let context = tempfile::Builder::new()
        .prefix("redirector-context-")
        .tempdir()
        .context("failed to create a build context")?;
    let copy = context.path().join("redirector");
    fs::copy(&binary, &copy).with_context(|| format!("failed to copy {}", binary.display()))?;
    sbom::write(arch, context.path())?;
    Ok(context)
}

fn write_archive(
    storage: &Storage,
    (index, tag): (bool, &str),
    archive: &Path,
    step: &Step,
) -> anyhow::Result<()> {
    let dir = archive.parent().context("the archive's path has no directory")?;
    fs::create_dir_all(dir).with_context(|| format!("failed to create {}", dir.display()))?;
    let temporary = tempfile::Builder::new()
        .prefix(".image-")
        .tempdir_in(dir)
        .with_context(|| format!("failed to create a directory in {}", dir.display()))?;
    let file = temporary.path().join("image.tar");
    let mut command = storage.buildah();
    if index {
        command.args(["manifest", "push", "--all", "--quiet", tag]);
    } else {
        command.args(["push", "--quiet", tag]);
    }
    command.arg(format!("oci-archive:{}:{tag}", file.display()));
    capture::run(&mut command, |line| step.note(line))
        .context("failed to write the image's archive")?;
    fs::rename(&file, archive)
        .with_context(|| format!("failed to move the archive to {}", archive.display()))
}

/// The image's labels, by the keys that OCI defines.
fn labels() -> anyhow::Result<Vec<String>> {
    let mut labels = vec![
        "org.opencontainers.image.title=redirector".to_owned(),
        "org.opencontainers.image.description=An eBPF-accelerated connection redirector".to_owned(),
        "org.opencontainers.image.licenses=(MIT OR Apache-2.0) AND (MIT OR GPL-2.0-only)"
            .to_owned(),
        format!("org.opencontainers.image.version={}", env!("CARGO_PKG_VERSION")),
    ];
    // A clone has a commit; an unpacked source archive has none.
    let root = workspace::root();
    let git = capture::capture(
        Command::new("git").current_dir(&root).args(["rev-parse", "HEAD"]),
        |_| {},
    );
    if let Ok(commit) = git
        && commit.status.success()
    {
        labels.push(format!("org.opencontainers.image.revision={}", commit.output.trim()));
    }
    if labels.iter().any(|label| label.contains('\n')) {
        bail!("a label contains a line break: {labels:?}");
    }
    Ok(labels)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A context with the files of the recipe.
    fn small_context(arch: Arch) -> TempDir {
        let context = tempfile::tempdir().unwrap();
        for file in ["redirector", "sbom.cdx.json", "THIRD-PARTY-LICENCES"] {
            fs::write(context.path().join(file), format!("{file} for {}", arch.debian())).unwrap();
        }
        context
    }

    /// As `cargo xtask image --arch x86_64,aarch64`, with files in place of the release builds.
    #[test]
    fn an_index_has_an_image_for_each_architecture() {
        let folder = tempfile::tempdir().unwrap();
        let storage = Storage { root: Some(folder.path().join("root")), runroot: None };
        let contexts = Arch::ALL.map(|arch| (arch, small_context(arch)));
        let archives = [1, 2].map(|number| {
            let archive = folder.path().join(format!("{number}.tar"));
            assemble(&storage, &contexts, NAME, &archive).unwrap();
            archive
        });
        let images = archive::images(&archives[0]).unwrap();
        let architectures: Vec<_> =
            images.iter().map(|image| image.architecture.as_str()).collect();
        assert_eq!(architectures, Arch::ALL.map(Arch::debian));
        for arch in architectures {
            let mut skopeo = Command::new("skopeo");
            skopeo.args(["--override-arch", arch, "inspect", "--config"]);
            skopeo.arg(format!("oci-archive:{}", archives[0].display()));
            let config = capture::run(&mut skopeo, |_| {}).unwrap();
            let config: serde_json::Value = serde_json::from_str(&config).unwrap();
            assert_eq!(config["architecture"], arch, "{config}");
            let title = &config["config"]["Labels"]["org.opencontainers.image.title"];
            assert_eq!(title, "redirector", "{config}");
        }
        // A second build replaces the images of the first, and is the same.
        let [first, second] = archives.map(|archive| digest(&archive).unwrap());
        assert_eq!(first, second);
    }
}
