//! The file system of a sandbox: the host's, with a private /etc and /run, and for a node private
//! state, cgroups and bpffs.
//!
//! Everything private is an overlay or a tmpfs inside the sandbox's mount namespace: the host gets
//! neither mount points nor files.

use std::ffi::CString;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use rustix::mount::{MountFlags, UnmountFlags, mount, mount_bind, mount_move, unmount};

/// The content of a sandbox's /etc/resolv.conf.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResolvConf {
    /// `nameserver` lines, in this order.
    pub nameservers: Vec<String>,
    /// Domains of the `search` line, if any.
    pub search: Vec<String>,
    /// `options ndots:N`.
    pub ndots: Option<u8>,
}

impl ResolvConf {
    /// A single name server.
    pub fn of(nameserver: &str) -> Self {
        Self { nameservers: vec![nameserver.to_owned()], search: Vec::new(), ndots: None }
    }

    /// As Kubernetes writes it for a pod: three search domains and `ndots:5`.
    pub fn kubernetes(nameserver: &str) -> Self {
        let search = ["default.svc.cluster.local", "svc.cluster.local", "cluster.local"]
            .map(str::to_owned)
            .to_vec();
        Self { search, ndots: Some(5), ..Self::of(nameserver) }
    }

    /// Replaces the file in the mount namespace of this thread, which must have a private /etc.
    pub(crate) fn write(&self) -> Result<()> {
        replace_file("/etc/resolv.conf", &self.text())
    }

    /// The file's text.
    pub(crate) fn text(&self) -> String {
        let mut text: String =
            self.nameservers.iter().map(|server| format!("nameserver {server}\n")).collect();
        if !self.search.is_empty() {
            text += &format!("search {}\n", self.search.join(" "));
        }
        if let Some(ndots) = self.ndots {
            text += &format!("options ndots:{ndots}\n");
        }
        text
    }
}

impl Default for ResolvConf {
    /// The shim's address in the documented configuration.
    fn default() -> Self {
        Self::of("169.254.20.53")
    }
}

/// A private file system view, under construction inside a new mount namespace.
pub(crate) struct View {
    stage: PathBuf,
}

impl View {
    /// Makes a private /etc (the host's, with these names and resolvers) and an empty /run.
    /// `stage` is an empty folder.
    pub(crate) fn new(stage: &Path, resolv: &ResolvConf) -> Result<Self> {
        tmpfs(stage)?;
        let view = Self { stage: stage.to_owned() };
        view.overlay("/etc")?;
        // On a host with systemd-resolved, resolv.conf is a link into /run, and nsswitch.conf
        // bypasses it.
        replace_file("/etc/resolv.conf", &resolv.text())?;
        replace_file("/etc/nsswitch.conf", "passwd: files\ngroup: files\nhosts: files dns\n")?;
        replace_file("/etc/hosts", "127.0.0.1 localhost\n::1 localhost\n")?;
        tmpfs("/run")?;
        Ok(view)
    }

    /// Adds a certificate authority to the trust store.
    pub(crate) fn trust(&self, ca_pem: &str) -> Result<()> {
        let bundle = "/etc/ssl/certs/ca-certificates.crt";
        fs::create_dir_all("/etc/ssl/certs").context("failed to make /etc/ssl/certs")?;
        let mut trusted = fs::read_to_string(bundle).unwrap_or_default();
        trusted.push_str(ca_pem);
        replace_file(bundle, &trusted)
    }

    /// Makes it a node: private redirector folders, `cgroup` as the cgroup2 root, and a fresh
    /// bpffs.
    pub(crate) fn become_node(&self, cgroup: &Path) -> Result<()> {
        self.overlay("/var/lib")?;
        for folder in ["/etc/redirector", "/var/lib/redirector", "/run/redirector"] {
            if Path::new(folder).exists() {
                fs::remove_dir_all(folder)
                    .with_context(|| format!("failed to empty the node's {folder}"))?;
            }
            fs::create_dir_all(folder)
                .with_context(|| format!("failed to make the node's {folder}"))?;
        }
        self.cgroup_root(cgroup)?;
        mount("bpf", "/sys/fs/bpf", "bpf", MountFlags::empty(), c"mode=0700")
            .context("failed to mount a bpffs at /sys/fs/bpf")
    }

    /// Makes `cgroup` the cgroup2 root, as a container runtime does with a privileged container
    /// that has a cgroup namespace of its own.
    pub(crate) fn own_cgroups(&self, cgroup: &Path) -> Result<()> {
        self.cgroup_root(cgroup)
    }

    /// Replaces the host's cgroup mounts: mountinfo must name one cgroup2, and it must be
    /// reachable.
    fn cgroup_root(&self, cgroup: &Path) -> Result<()> {
        let held = self.folder("cgroup")?;
        mount_bind(cgroup, &held)
            .with_context(|| format!("failed to bind {}", cgroup.display()))?;
        while unmount("/sys/fs/cgroup", UnmountFlags::DETACH).is_ok() {}
        mount_move(&held, "/sys/fs/cgroup")
            .context("failed to mount the node's cgroup root at /sys/fs/cgroup")
    }

    /// Makes `folder` private: reads reach the host's folder, writes stay here.
    fn overlay(&self, folder: &str) -> Result<()> {
        let name = folder.trim_start_matches('/').replace('/', "-");
        let (upper, work) =
            (self.folder(&format!("{name}-upper"))?, self.folder(&format!("{name}-work"))?);
        let options =
            format!("lowerdir={folder},upperdir={},workdir={}", upper.display(), work.display());
        let options = CString::new(options).context("a folder's name holds a zero byte")?;
        mount("overlay", folder, "overlay", MountFlags::empty(), options.as_c_str()).with_context(
            || {
                format!(
                    "failed to mount an overlay over {folder}: does this kernel have overlayfs?"
                )
            },
        )
    }

    fn folder(&self, name: &str) -> Result<PathBuf> {
        let path = self.stage.join(name);
        fs::create_dir_all(&path).with_context(|| format!("failed to make {}", path.display()))?;
        Ok(path)
    }
}

fn tmpfs(target: impl AsRef<Path>) -> Result<()> {
    let target = target.as_ref();
    mount("redirector-rig", target, "tmpfs", MountFlags::empty(), c"mode=0755")
        .with_context(|| format!("failed to mount a tmpfs at {}", target.display()))
}

/// Replaces a file or link. Writing through a link would leave the overlay.
fn replace_file(path: &str, text: &str) -> Result<()> {
    let _ = fs::remove_file(path);
    fs::write(path, text).with_context(|| format!("failed to write {path} in a sandbox"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pods_resolv_conf_has_its_search_domains_and_ndots() {
        let text = ResolvConf::kubernetes("169.254.20.53").text();
        assert_eq!(
            text,
            "nameserver 169.254.20.53\nsearch default.svc.cluster.local svc.cluster.local \
                cluster.local\noptions ndots:5\n"
        );
        assert_eq!(ResolvConf::default().text(), "nameserver 169.254.20.53\n");
    }
}
