//! `cargo xtask image`: builds an image that contains only the static binary, offline with buildah,
//! in a container storage and as an OCI archive.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Instant,
};

use anyhow::{Context as _, bail};
use testbed::{capture, workspace};

use crate::{
    build,
    progress::{Step, seconds},
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
    let binary = build::ensure()?;
    let storage = Storage { root: args.root.clone(), runroot: args.runroot.clone() };
    let archive = build_image(&storage, &binary, &args.tag)?;
    let size = fs::metadata(&archive)
        .with_context(|| format!("failed to read the size of {}", archive.display()))?
        .len();
    eprintln!(
        "{}: {} kB in {} ({})",
        args.tag,
        size / 1000,
        archive.display(),
        seconds(started.elapsed())
    );
    Ok(())
}

/// Builds only the archive, for the tests, in a temporary storage: the user's own storage stays
/// unchanged.
pub(crate) fn ensure_archive() -> anyhow::Result<PathBuf> {
    setup::ensure(&[Group::Image])?;
    let binary = build::ensure()?;
    let storage = tempfile::Builder::new()
        .prefix("redirector-image-")
        .tempdir()
        .context("failed to create a directory for a container storage")?;
    build_image(
        &Storage {
            root: Some(storage.path().join("root")),
            runroot: Some(storage.path().join("run")),
        },
        &binary,
        NAME,
    )
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

/// Builds the image in the storage and writes the archive; returns the archive's path.
fn build_image(storage: &Storage, binary: &Path, tag: &str) -> anyhow::Result<PathBuf> {
    let step = Step::start(format!("building the image {tag}"));
    let context = tempfile::Builder::new()
        .prefix("redirector-context-")
        .tempdir()
        .context("failed to create a build context")?;
    let copy = context.path().join("redirector");
    fs::copy(binary, &copy).with_context(|| format!("failed to copy {}", binary.display()))?;

    let mut command = storage.buildah();
    command.args(["build", "--quiet", "--pull-never", "--format", "oci", "--tag", tag]);
    for label in labels()? {
        command.arg("--label").arg(label);
    }
    command.arg("--file").arg(workspace::root().join("deploy/Containerfile")).arg(context.path());
    capture::run(&mut command, |line| step.note(line)).context("failed to build the image")?;

    let archive = workspace::image_archive();
    let dir = archive.parent().context("the archive's path has no directory")?;
    fs::create_dir_all(dir).with_context(|| format!("failed to create {}", dir.display()))?;
    let temporary = tempfile::Builder::new()
        .prefix(".image-")
        .tempdir_in(dir)
        .with_context(|| format!("failed to create a directory in {}", dir.display()))?;
    let file = temporary.path().join("image.tar");
    capture::run(
        storage
            .buildah()
            .args(["push", "--quiet", tag])
            .arg(format!("oci-archive:{}:{tag}", file.display())),
        |line| step.note(line),
    )
    .context("failed to write the image's archive")?;
    fs::rename(&file, &archive)
        .with_context(|| format!("failed to move the archive to {}", archive.display()))?;
    step.done();
    Ok(archive)
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
