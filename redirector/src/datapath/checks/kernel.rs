//! The version of this kernel, and what it implies.

use aya::{
    programs::ProgramType,
    sys::{BpfHelper, is_helper_supported},
    util::KernelVersion,
};

/// The oldest supported kernel.
pub(crate) const OLDEST: &str = "5.10";

pub(crate) fn release() -> String {
    rustix::system::uname().release().to_string_lossy().into_owned()
}

pub(crate) fn unsupported_release() -> Option<String> {
    (!kernel_at_least(5, 10, 0)).then(release)
}

pub(crate) fn kernel_at_least(major: u8, minor: u8, patch: u16) -> bool {
    KernelVersion::current().is_ok_and(|version| version >= KernelVersion::new(major, minor, patch))
}

/// Whether connect programs can set the errno: `bpf_set_retval` on these hooks, 6.1 and later.
pub(crate) fn has_set_retval() -> bool {
    kernel_at_least(6, 1, 0)
}

/// Whether packet programs can read packets directly: without CAP_PERFMON 5.10 refuses to compare
/// the pointers ("R3 pointer comparison prohibited"), 6.1 and later do not.
pub(crate) fn has_direct_access() -> bool {
    kernel_at_least(6, 1, 0)
}

/// Whether connect programs can read the command name of their caller. Since 6.17 that takes
/// CAP_PERFMON, which the agent does not ask for: "program of this type cannot use helper
/// bpf_get_current_comm#16" (6.18). Without it the agent reads /proc.
pub fn has_current_comm() -> bool {
    is_helper_supported(ProgramType::CgroupSockAddr, BpfHelper::BPF_FUNC_get_current_comm)
        .unwrap_or(false)
}
