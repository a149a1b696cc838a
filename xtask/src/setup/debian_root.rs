//! A minimal Debian with systemd and Docker, from this machine's own package sources. The package's
//! test boots it in namespaces, with a layer of its own above it.

use std::{fs, path::PathBuf, process::Command};

use anyhow::Context as _;
use testbed::{capture, workspace};

use super::private_apt;
use crate::progress::Step;

/// What the root has besides the essential packages.
const PACKAGES: &str = "systemd,systemd-sysv,dbus,cloud-init,docker.io,iptables,ca-certificates";

/// What would start at boot, before the tests want it.
const SERVICES: [&str; 3] = ["docker.service", "docker.socket", "containerd.service"];

/// Whether it is there.
pub(crate) fn present() -> bool {
    workspace::debian_root().join("usr/sbin/dockerd").is_file()
}

/// Makes it, under another name until it is complete.
pub(crate) fn install() -> anyhow::Result<()> {
    let root = workspace::debian_root();
    let step = Step::start(format!("making a minimal Debian in {}", root.display()));
    let tools = workspace::tools_dir();
    fs::create_dir_all(&tools).with_context(|| format!("failed to create {}", tools.display()))?;
    let temporary = tempfile::tempdir_in(&tools).context("failed to create a directory")?;
    let made = temporary.path().join("root");
    let mut command = Command::new("mmdebstrap");
    command
        .args(["--variant=minbase", &format!("--include={PACKAGES}")])
        .arg(private_apt::release()?)
        .arg(&made)
        .args(sources()?)
        .env("LC_ALL", "C");
    capture::run(&mut command, |line| step.note(line))?;
    let mut disable = Command::new("chroot");
    disable.arg(&made).args(["systemctl", "--quiet", "disable"]).args(SERVICES);
    capture::run(&mut disable, |line| step.note(line))?;
    // Docker makes it at its first start.
    let state = made.join("var/lib/docker");
    fs::create_dir_all(&state).with_context(|| format!("failed to make {}", state.display()))?;
    // Names of this machine and of its package sources.
    for file in ["etc/hostname", "etc/resolv.conf"] {
        fs::write(made.join(file), "").with_context(|| format!("failed to empty {file}"))?;
    }
    if root.exists() {
        fs::remove_dir_all(&root)
            .with_context(|| format!("failed to remove {}", root.display()))?;
    }
    fs::rename(&made, &root).with_context(|| format!("failed to make {}", root.display()))?;
    step.done();
    Ok(())
}

/// The machine's lists of package sources.
fn sources() -> anyhow::Result<Vec<PathBuf>> {
    let parts = fs::read_dir("/etc/apt/sources.list.d").into_iter().flatten().flatten();
    let mut lists: Vec<_> = parts.map(|entry| entry.path()).collect();
    lists.push("/etc/apt/sources.list".into());
    lists.retain(|path| {
        let is_list = path.extension().is_some_and(|end| end == "list" || end == "sources");
        is_list && path.is_file()
    });
    lists.sort();
    Ok(lists)
}
