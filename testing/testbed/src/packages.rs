//! The programs that the test bed needs, and their paths. `cargo xtask setup` installs them.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Result, bail};

use crate::workspace;

/// Debian packages, each with a program by which its presence is detected.
pub const DEBIAN: &[(&str, &str)] = &[
    ("iproute2", "ip"),
    ("nftables", "nft"),
    ("util-linux", "nsenter"),
    ("haproxy", "haproxy"),
    ("nsd", "nsd"),
    ("nginx-light", "nginx"),
    ("docker-registry", "docker-registry"),
    ("skopeo", "skopeo"),
    ("curl", "curl"),
    ("ca-certificates", "update-ca-certificates"),
    ("bind9-dnsutils", "dig"),
    ("dnsmasq-base", "dnsmasq"),
    ("dnsperf", "dnsperf"),
    ("knot-dnsutils", "kdig"),
    ("unbound", "unbound"),
    ("iptables", "iptables"),
    ("python3-venv", "python3"),
    ("strace", "strace"),
    // Networks of containers without privileges.
    ("slirp4netns", "slirp4netns"),
    ("passt", "pasta"),
    ("rootlesskit", "rootlesskit"),
    ("uidmap", "newuidmap"),
    // Git over SSH.
    ("git", "git"),
    ("openssh-client", "ssh"),
    ("dropbear-bin", "dropbear"),
    // These read the metrics, the alert rules, the completions and the manual pages.
    ("prometheus", "promtool"),
    ("jq", "jq"),
    ("zsh", "zsh"),
    ("fish", "fish"),
    ("man-db", "man"),
    // Opens the status page.
    ("chromium-headless-shell", "chromium-headless-shell"),
];

/// Debian packages that are unpacked instead of installed, since their installation would change
/// the machine; each with its program.
pub const UNPACKED: &[(&str, &str)] = &[
    ("systemd-resolved", "lib/systemd/systemd-resolved"),
    // Guests of the tests: gVisor, nested containers, and a micro-VM's kernel with its modules.
    ("runsc", "usr/bin/runsc"),
    ("docker.io", "usr/sbin/dockerd"),
    ("containerd", "usr/bin/containerd"),
    (GUEST_KERNEL, "boot/vmlinuz"),
];

/// As [`UNPACKED`], for a Kubernetes of the test bed.
pub const CLUSTER: &[(&str, &str)] = &[
    ("containerd", "usr/bin/containerd"),
    ("containernetworking-plugins", "usr/lib/cni/bridge"),
    ("etcd-server", "usr/bin/etcd"),
    ("kubernetes-client", "usr/bin/kubectl"),
];

/// The metapackage of the small kernel that micro-VMs boot.
pub const GUEST_KERNEL: &str = if cfg!(target_arch = "aarch64") {
    "linux-image-cloud-arm64"
} else {
    "linux-image-cloud-amd64"
};

/// PyPI packages of the test bed's Python environment, [`workspace::python_home`]. Its pip is the
/// demo's real pip. The last two are .NET, which PyPI has for x86_64 only, and what runs it.
pub const PYPI: &[&str] = if cfg!(target_arch = "x86_64") {
    &["pypiserver==2.4.2", "prometheus-client==0.23.1", "dotnetcore2==3.1.23", "pythonnet==3.2.1"]
} else {
    &["pypiserver==2.4.2", "prometheus-client==0.23.1"]
};

/// Where programs are, besides PATH: on Debian a user's PATH lacks the sbin folders.
const FOLDERS: &[&str] =
    &["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"];

/// Whether `program` is installed.
pub fn is_installed(program: &str) -> bool {
    find(program).is_some()
}

/// A command for `program` by its absolute path. The error names the missing package.
pub fn tool(program: &str) -> Result<Command> {
    Ok(Command::new(path_of(program)?))
}

/// The absolute path of `program`. The error names the missing package.
pub fn path_of(program: &str) -> Result<PathBuf> {
    let Some(path) = find(program) else {
        let package = DEBIAN
            .iter()
            .chain(OTHERS)
            .find(|(_, known)| *known == program)
            .map_or(program, |(package, _)| package);
        bail!(
            "{program} is not installed: run `cargo xtask setup`, or `apt-get install {package}`"
        );
    };
    Ok(path)
}

/// Programs that tests run and that `cargo xtask setup` installs under another list; each with its
/// package.
const OTHERS: &[(&str, &str)] = &[
    ("qemu-system-x86", "qemu-system-x86_64"),
    ("qemu-system-arm", "qemu-system-aarch64"),
    ("busybox-static", "busybox"),
    ("default-jdk-headless", "javac"),
    ("musl-tools", "musl-gcc"),
];

/// Where an unpacked package is.
pub fn unpacked_home(package: &str) -> PathBuf {
    workspace::tools_dir().join("unpacked").join(package)
}

/// A program of an unpacked package, by its path there.
pub fn unpacked(program: &str) -> Result<PathBuf> {
    let package = UNPACKED
        .iter()
        .chain(CLUSTER)
        .find(|(_, known)| *known == program)
        .map_or(program, |(package, _)| package);
    let path = unpacked_home(package).join(program);
    if !path.is_file() {
        bail!(
            "{} is missing: run `cargo xtask setup`, which unpacks {package} there",
            path.display()
        );
    }
    Ok(path)
}

/// A program of the Python environment that setup creates; the error names the remedy.
pub fn python_tool(program: &str) -> Result<PathBuf> {
    let path = workspace::python_home().join("bin").join(program);
    if !path.is_file() {
        bail!(
            "{} is missing: run `cargo xtask setup`, which makes a Python environment with {}",
            path.display(),
            PYPI.join(", ")
        );
    }
    Ok(path)
}

fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = FOLDERS.iter().map(PathBuf::from).chain(std::env::split_paths(&path));
    folders.map(|folder| folder.join(program)).find(|candidate| candidate.is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_program_is_reported_with_package_and_command() {
        let error = path_of("no-such-program").unwrap_err().to_string();
        assert!(
            error.contains("cargo xtask setup")
                && error.contains("apt-get install no-such-program"),
            "{error}"
        );
    }
}
