//! An emulated machine: a kernel and its user space.

use std::path::PathBuf;

use super::kernels::Entry;

/// A machine to boot.
pub(super) struct Machine {
    pub(super) entry: Entry,
    pub(super) kernel: PathBuf,
    /// The archive with the kernel's modules and the scenarios, which are its init.
    pub(super) initrd: PathBuf,
    /// Plays only the scenarios of packets.
    pub(super) packets_only: bool,
}
