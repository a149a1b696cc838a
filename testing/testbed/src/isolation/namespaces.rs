//! A network and a mount namespace, held by two file descriptors.
//!
//! They are made by a thread that leaves its process's namespaces, sets the new ones up in plain
//! Rust, and ends. Nothing needs to be killed for them to go away.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::thread;

use anyhow::{Context, Result, anyhow};
use rustix::mount::{MountPropagationFlags, mount_change};
use rustix::thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space, unshare_unsafe};

use super::sysctl;

/// A network and a mount namespace that live as long as this value, or a process inside.
#[derive(Debug)]
pub struct Namespaces {
    net: OwnedFd,
    mount: OwnedFd,
}

impl Namespaces {
    /// New network and mount namespaces, with the network settings of [`sysctl`] whatever the
    /// host's are; `setup` runs inside them and may mount, add devices and run programs.
    pub(crate) fn create(setup: impl FnOnce() -> Result<()> + Send) -> Result<Self> {
        on_a_thread(|| {
            leave(UnshareFlags::NEWNET | UnshareFlags::NEWNS)?;
            sysctl::set_defaults()?;
            setup()?;
            Self::current()
        })?
    }

    /// The network namespace of `net` with a new mount namespace; `setup` runs inside.
    pub(crate) fn create_in(net: &Self, setup: impl FnOnce() -> Result<()> + Send) -> Result<Self> {
        on_a_thread(|| {
            move_into_link_name_space(net.net.as_fd(), Some(LinkNameSpaceType::Network))
                .context("failed to enter a network namespace")?;
            leave(UnshareFlags::NEWNS)?;
            setup()?;
            Self::current()
        })?
    }

    /// Runs `action` on a thread inside the namespaces. Sockets it opens stay in them, wherever
    /// they are used; so do programs it starts.
    pub fn run<T: Send>(&self, action: impl FnOnce() -> T + Send) -> Result<T> {
        on_a_thread(|| {
            // A thread may change its mount namespace only when it shares its root and working
            // directory with no other.
            leave(UnshareFlags::FS)?;
            self.enter().context("failed to enter the rig's namespaces")?;
            Ok(action())
        })?
    }

    /// Moves the calling thread inside. Makes no allocation, so it may run between fork and exec.
    pub(crate) fn enter(&self) -> io::Result<()> {
        move_into_link_name_space(self.net.as_fd(), Some(LinkNameSpaceType::Network))?;
        move_into_link_name_space(self.mount.as_fd(), Some(LinkNameSpaceType::Mount))?;
        Ok(())
    }

    /// A path to the network namespace, good for `ip … netns PATH` and `nsenter --net=PATH` while
    /// this process lives.
    pub fn net_path(&self) -> String {
        format!("/proc/{}/fd/{}", std::process::id(), self.net.as_raw_fd())
    }

    /// A path to the mount namespace, good for `nsenter --mount=PATH` while this process lives.
    pub fn mount_path(&self) -> String {
        format!("/proc/{}/fd/{}", std::process::id(), self.mount.as_raw_fd())
    }

    fn current() -> Result<Self> {
        let open = |kind: &str| -> Result<OwnedFd> {
            let path = format!("/proc/thread-self/ns/{kind}");
            Ok(File::open(&path).with_context(|| format!("failed to open {path}"))?.into())
        };
        Ok(Self { net: open("net")?, mount: open("mnt")? })
    }
}

/// Leaves the process's namespaces; a new mount namespace is made private, so that no mount of ours
/// reaches the host.
fn leave(flags: UnshareFlags) -> Result<()> {
    // SAFETY: the flags never hold CLONE_FILES, so descriptors stay shared by all threads.
    unsafe { unshare_unsafe(flags) }.map_err(|error| match error {
        rustix::io::Errno::PERM => {
            anyhow!("failed to make namespaces: {error}: run it as root (CAP_SYS_ADMIN)")
        }
        error => anyhow!("failed to make namespaces: {error}"),
    })?;
    if flags.contains(UnshareFlags::NEWNS) {
        let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
        mount_change("/", private)
            .context("failed to make the mounts of a new namespace private")?;
    }
    Ok(())
}

/// A namespace belongs to a thread: it must not leak into one that does something else afterwards.
fn on_a_thread<T: Send>(action: impl FnOnce() -> T + Send) -> Result<T> {
    thread::scope(|scope| scope.spawn(action).join()).map_err(|panic| {
        let text = panic
            .downcast_ref::<String>()
            .map(String::as_str)
            .or_else(|| panic.downcast_ref::<&str>().copied());
        anyhow!("a thread inside the rig's namespaces panicked: {}", text.unwrap_or("no message"))
    })
}
