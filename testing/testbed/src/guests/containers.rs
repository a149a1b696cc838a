//! The image and the volumes of containers: the machine's own programs, below an empty root.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::isolation::sandbox::Sandbox;
use crate::{process, workspace};

/// Packing takes milliseconds.
const LIMIT: Duration = Duration::from_secs(30);

/// Folders of an image, onto which volumes are mounted.
const FOLDERS: [&str; 6] = ["usr", "etc", "proc", "sys", "dev", "tmp"];
/// Links to folders of /usr, where this machine has them.
const LINKS: [&str; 4] = ["bin", "lib", "lib64", "sbin"];

/// Packs the image's root file system into `folder`; returns the archive's path.
pub(super) fn image(folder: &Path) -> Result<PathBuf> {
    let (root, archive) = (folder.join("root"), folder.join("root.tar"));
    for name in FOLDERS {
        fs::create_dir_all(root.join(name)).context("failed to make an image's folder")?;
    }
    for name in LINKS.iter().filter(|name| Path::new("/").join(name).is_symlink()) {
        std::os::unix::fs::symlink(format!("usr/{name}"), root.join(name))
            .context("failed to make an image's link")?;
    }
    let mut tar = Command::new("tar");
    tar.args(["--owner=0", "--group=0", "--numeric-owner", "-cf"]).arg(&archive);
    tar.arg("-C").arg(&root).arg(".");
    process::finish(tar, LIMIT)?.success().context("failed to pack an image with tar")?;
    Ok(archive)
}

/// The arguments by which a container gets the machine's programs, the sandbox's /etc and the rig's
/// files.
pub(super) fn arguments(sandbox: &Sandbox) -> Vec<String> {
    let files = sandbox.scope().files().display();
    let target = workspace::target_dir();
    let mut arguments = vec![
        "--volume=/usr:/usr:ro".to_owned(),
        "--volume=/etc:/etc:ro".to_owned(),
        format!("--volume={files}:{files}"),
        format!("--volume={0}:{0}:ro", target.display()),
        format!("--workdir={}", sandbox.home().display()),
        format!("--env=HOME={}", sandbox.home().display()),
    ];
    arguments.extend(sandbox.environment().map(|(key, value)| format!("--env={key}={value}")));
    arguments
}

/// A containers.conf for podman without systemd, on hybrid cgroups.
pub(super) fn podman_configuration() -> String {
    let files = open_files();
    format!(
        "[containers]\npids_limit = 0\n\
         default_ulimits = [\"nofile={files}:{files}\", \"nproc=4096:4096\"]\n\
         [engine]\nruntime = \"runc\"\ncgroup_manager = \"cgroupfs\"\n\
         events_logger = \"none\"\n"
    )
}

/// Keeps this process's limit of open files: raising it needs CAP_SYS_RESOURCE, which root lacks on
/// some machines.
pub(super) fn open_files() -> u64 {
    let limits = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    limits.maximum.unwrap_or(1 << 20)
}
