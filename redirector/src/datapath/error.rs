//! Errors of the datapath.

use std::{io, path::PathBuf};

use aya::{EbpfError, maps::MapError, programs::ProgramError};
use ipnet::IpNet;

use crate::datapath::checks::privileges;

/// Why an operation on the datapath failed.
#[derive(Debug, thiserror::Error)]
pub enum DatapathError {
    /// EPERM, with its probable cause.
    #[error("not permitted to {action}: {cause}")]
    NotPermitted {
        /// The operation.
        action: String,
        /// Which capability, seccomp profile or limit is the probable cause, and the remedy.
        cause: String,
    },
    /// This kernel lacks the operation.
    #[error("this kernel can't {action}: run `redirector check` to see what is missing")]
    Unsupported {
        /// The operation.
        action: String,
        /// The errno.
        source: io::Error,
    },
    /// The kernel is older than the programs.
    #[error("kernel {release} is older than {oldest}: run a newer kernel on this node")]
    KernelTooOld {
        /// The kernel's release.
        release: String,
        /// The oldest supported kernel.
        oldest: &'static str,
    },
    /// No cgroup2 hierarchy is mounted.
    #[error(
        "no cgroup2 hierarchy is mounted here: mount one (`mount -t cgroup2 none \
            /sys/fs/cgroup/unified`) or boot with `systemd.unified_cgroup_hierarchy=1`"
    )]
    NoCgroup2,
    /// A configured cgroup that does not exist or is no cgroup.
    #[error("attach.cgroups: `{pattern}` {problem}")]
    Cgroup {
        /// As configured.
        pattern: String,
        /// What is wrong with it, and the remedy.
        problem: String,
    },
    /// The directory of the pins is not in a bpf file system.
    #[error(
        "{path} is not in a bpf file system: `mount -t bpf bpf /sys/fs/bpf`, or set `agent.bpffs` \
            to a directory of one"
    )]
    NotBpffs {
        /// The directory.
        path: PathBuf,
    },
    /// The pins belong to another version of the maps. `redirector run` upgrades older ones.
    #[error(
        "the loaded datapath has ABI {found}, this binary has {ours}: {}",
        if found > ours {
            "run the binary that made it or a newer one, or `redirector unload` first (connects to \
                VIPs are not redirected until the next start)"
        } else {
            "`redirector run` upgrades it in place; until then use the older binary to inspect it"
        }
    )]
    AbiMismatch {
        /// The version of the pins.
        found: u32,
        /// The version of this binary.
        ours: u32,
    },
    /// The pins belong to another pool.
    #[error(
        "the loaded datapath serves pool {found}, the configuration has {wanted}: set `pool.{key} \
            = \"{found}\"` again, or run `redirector unload` first (VIPs change with the pool)",
        key = if found.addr().is_ipv4() { "ipv4" } else { "ipv6" }
    )]
    PoolMismatch {
        /// The pool of the pins.
        found: IpNet,
        /// The configured one.
        wanted: IpNet,
    },
    /// A pinned map differs from the one that this binary would create.
    #[error(
        "the pinned map {path} has {found}, this binary would create {ours}: run `redirector \
            unload` first"
    )]
    MapMismatch {
        /// The pin.
        path: PathBuf,
        /// Its type and sizes.
        found: String,
        /// The type and sizes that were expected.
        ours: String,
    },
    /// The packet programs are not loaded.
    #[error("the packet datapath is not available: {cause}")]
    NoPacketPrograms {
        /// Why this kernel refused them.
        cause: String,
    },
    /// The plan does not fit into the maps.
    #[error("{what} of the datapath are used up: {remedy}")]
    Full {
        /// What is used up.
        what: &'static str,
        /// The remedy.
        remedy: &'static str,
    },
    /// A call failed for a reason that no variant above names.
    #[error("failed to {action}")]
    Call {
        /// The operation.
        action: String,
        /// The error of the kernel or of aya.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

impl DatapathError {
    /// `failed to <action>`, because of `source`.
    pub(crate) fn call(
        action: impl Into<String>,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Self {
        Self::Call { action: action.into(), source: source.into() }
    }

    /// Whether the cause is an interface that does not exist any more.
    pub(crate) fn is_missing_interface(&self) -> bool {
        let Self::Call { source, .. } = self else { return false };
        let errno = source.downcast_ref::<io::Error>().and_then(io::Error::raw_os_error);
        matches!(errno, Some(libc::ENODEV | libc::ENXIO))
    }

    /// Whether this kernel or these privileges are the cause, whatever the configuration: exit code
    /// 3.
    pub fn is_platform(&self) -> bool {
        matches!(
            self,
            Self::KernelTooOld { .. }
                | Self::NotPermitted { .. }
                | Self::Unsupported { .. }
                | Self::NoCgroup2
                | Self::NotBpffs { .. }
        )
    }

    /// Whether the configuration is the cause: exit code 2.
    pub fn is_configuration(&self) -> bool {
        matches!(self, Self::Cgroup { .. } | Self::PoolMismatch { .. })
    }
}

pub(crate) fn from_io(action: &str, error: io::Error) -> DatapathError {
    match error.raw_os_error() {
        Some(libc::EPERM) => DatapathError::NotPermitted {
            action: action.to_owned(),
            cause: privileges::explain_eperm(),
        },
        Some(libc::EINVAL) | Some(libc::ENOSYS) | Some(libc::EOPNOTSUPP) => {
            DatapathError::Unsupported { action: action.to_owned(), source: error }
        }
        _ => DatapathError::call(action, error),
    }
}

pub(crate) fn from_ebpf(action: &str, error: EbpfError) -> DatapathError {
    match error {
        EbpfError::MapError(MapError::CreateError { name, io_error }) => {
            from_io(&format!("create the map {name}"), io_error)
        }
        EbpfError::MapError(MapError::SyscallError(error)) => from_io(action, error.io_error),
        EbpfError::ProgramError(error) => from_program(action, error),
        other => DatapathError::call(action, other),
    }
}

pub(crate) fn from_program(action: &str, error: ProgramError) -> DatapathError {
    match error {
        ProgramError::LoadError { io_error, verifier_log } => {
            tracing::debug!(%verifier_log, action, "the verifier's log");
            match io_error.raw_os_error() {
                Some(libc::EPERM) | Some(libc::ENOSYS) => from_io(action, io_error),
                _ => DatapathError::Unsupported {
                    action: action.to_owned(),
                    source: io::Error::new(
                        io_error.kind(),
                        format!("{io_error}: {}", verifier_reason(&verifier_log.to_string())),
                    ),
                },
            }
        }
        ProgramError::SyscallError(error) => from_io(action, error.io_error),
        other => DatapathError::call(action, other),
    }
}

/// The verifier writes the reason last, before its statistics.
fn verifier_reason(log: &str) -> &str {
    const STATISTICS: &[&str] = &["processed ", "verification time ", "stack depth "];
    let is_reason =
        |line: &&str| !line.is_empty() && !STATISTICS.iter().any(|start| line.starts_with(start));
    log.lines().rev().find(is_reason).unwrap_or("no verifier log")
}
