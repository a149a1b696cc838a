//! The images of the node: the product's, that of pods' sandboxes, and that of jobs.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use testbed::{packages, process, workspace};

/// The image of jobs and of pods' sandboxes: a static shell, and empty folders onto which a job
/// mounts the machine's programs.
pub const TOOLS_IMAGE: &str = "localhost/tools:1";

const CONTAINERFILE: &str = r#"FROM scratch
COPY --chmod=755 busybox /busybox
RUN ["/busybox", "mkdir", "/usr", "/tmp"]
RUN ["/busybox", "ln", "-s", "usr/bin", "usr/lib", "usr/lib64", "usr/sbin", "/"]
ENTRYPOINT ["/busybox", "sleep", "1000000"]
"#;

const LIMIT: Duration = Duration::from_secs(120);

/// The archives that the node imports, in `folder`.
pub(crate) fn archives(folder: &Path) -> Result<[PathBuf; 2]> {
    let product = workspace::image_archive();
    ensure!(product.is_file(), "{} is missing: `cargo xtask image` makes it", product.display());
    Ok([product, tools(folder)?])
}

fn tools(folder: &Path) -> Result<PathBuf> {
    let (context, archive) = (folder.join("tools"), folder.join("tools.tar"));
    fs::create_dir_all(&context).context("failed to make a build context")?;
    fs::copy(packages::path_of("busybox")?, context.join("busybox"))
        .context("failed to copy busybox")?;
    fs::write(context.join("Containerfile"), CONTAINERFILE)
        .context("failed to write a Containerfile")?;
    let build = ["build", "--quiet", "--pull-never", "--isolation=chroot", "--tag", TOOLS_IMAGE];
    buildah(folder, &build, &context)?;
    let target = format!("oci-archive:{}:{TOOLS_IMAGE}", archive.display());
    buildah(folder, &["push", "--quiet", TOOLS_IMAGE], Path::new(&target))?;
    Ok(archive)
}

fn buildah(folder: &Path, words: &[&str], last: &Path) -> Result<()> {
    let mut command = Command::new("buildah");
    command.arg("--root").arg(folder.join("storage")).arg("--runroot").arg(folder.join("run"));
    command.args(["--storage-driver", "vfs"]).args(words).arg(last);
    process::finish(command, LIMIT)?.success().context("failed to make an image").map(drop)
}
