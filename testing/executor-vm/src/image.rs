//! The machine's image, in the cache of tools. `cargo xtask executor-vm` makes it by [`RECIPE`].

use std::{
    hash::{DefaultHasher, Hash as _, Hasher as _},
    path::{Path, PathBuf},
};

use testbed::workspace;

/// A script that makes an image in the folder of its first argument, of packages of Debian's
/// release [`SUITE`]; its second argument is a file with apt's sources.
pub const RECIPE: &str = include_str!("image.sh");

/// Debian 13: systemd 257, Docker 26, Linux 6.12.
pub const SUITE: &str = "trixie";

/// The files of an image, in its folder.
#[derive(Clone, Debug)]
pub struct Image {
    /// The kernel.
    pub kernel: PathBuf,
    /// Its initramfs.
    pub initrd: PathBuf,
    /// The root file system, without a partition table.
    pub disk: PathBuf,
}

impl Image {
    /// The image in this folder.
    #[must_use]
    pub fn in_folder(folder: &Path) -> Self {
        let file = |name| folder.join(name);
        Self { kernel: file("vmlinuz"), initrd: file("initrd.img"), disk: file("disk.img") }
    }

    /// Whether all of it is there.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        [&self.kernel, &self.initrd, &self.disk].into_iter().all(|path| path.is_file())
    }
}

/// The folder of the image. Its name changes with the recipe.
#[must_use]
pub fn home() -> PathBuf {
    let mut hasher = DefaultHasher::new();
    (RECIPE, SUITE).hash(&mut hasher);
    workspace::tools_dir().join(format!("executor-vm-{:016x}", hasher.finish()))
}
