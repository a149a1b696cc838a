//! What the privileges of this process allow, and why bpf(2) returns EPERM.

use procfs::process::Process;
use rustix::thread::{CapabilitySet, capabilities as capabilities_of_thread};

use crate::datapath::checks::{
    check::{Check, Outcome},
    kernel::kernel_at_least,
};

pub(crate) fn capabilities() -> Vec<Check> {
    let needed = [
        ("CAP_BPF", CapabilitySet::BPF, "load programs and create maps"),
        (
            "CAP_NET_ADMIN",
            CapabilitySet::NET_ADMIN,
            "attach to cgroups, guard the pool, add the listen address",
        ),
        ("CAP_NET_BIND_SERVICE", CapabilitySet::NET_BIND_SERVICE, "listen on port 53"),
    ];
    let check = |(name, capability, purpose): (&str, CapabilitySet, &str)| {
        if has_capability(capability)
            || capability == CapabilitySet::BPF && has_capability(CapabilitySet::SYS_ADMIN)
        {
            Check::ok(name, format!("granted; needed to {purpose}"))
        } else {
            Check::failed(name, format!("missing: needed to {purpose}"), remedy_for(name))
        }
    };
    needed.map(check).into()
}

pub(crate) fn remedy_for(name: &str) -> String {
    let short = name.trim_start_matches("CAP_");
    format!(
        "run as root, or add it: `capabilities.add: [{short}]` in Kubernetes, `--cap-add {short}`, \
            `AmbientCapabilities={name}` in systemd"
    )
}

/// Whether the calling thread has it in its effective set.
pub(crate) fn has_capability(capability: CapabilitySet) -> bool {
    capabilities_of_thread(None).is_ok_and(|sets| sets.effective.contains(capability))
}

/// Whether a seccomp filter blocks bpf(2).
pub(crate) fn seccomp() -> Check {
    const REMEDY: &str = "use a profile that allows bpf(2) with CAP_BPF (Kubernetes: \
        `seccompProfile: {type: RuntimeDefault}` on containerd 1.6 or later)";
    let status = Process::myself().and_then(|process| process.status());
    let filtered = status.is_ok_and(|status| status.seccomp.is_some_and(|mode| mode != 0));
    match (filtered, bpf_is_blocked()) {
        (true, true) => Check::failed("seccomp", "a seccomp filter blocks bpf(2)", REMEDY),
        (true, false) => Check::ok("seccomp", "a filter is active; it allows bpf(2)"),
        (false, _) => Check::ok("seccomp", "no filter"),
    }
}

/// An unknown command: EINVAL from the kernel (EPERM without any privilege), EPERM or ENOSYS from a
/// filter.
fn bpf_is_blocked() -> bool {
    // SAFETY: command 0xffff with no attributes reads and writes nothing.
    let result = unsafe { libc::syscall(libc::SYS_bpf, 0xffff, std::ptr::null::<u8>(), 0) };
    let errno = std::io::Error::last_os_error().raw_os_error();
    result < 0
        && matches!(errno, Some(libc::EPERM | libc::ENOSYS))
        && has_capability(CapabilitySet::BPF)
}

pub(crate) fn memlock() -> Check {
    if kernel_at_least(5, 11, 0) {
        return Check::ok(
            "memlock",
            "this kernel charges maps to the cgroup's memory, not to RLIMIT_MEMLOCK",
        );
    }
    let limit = rustix::process::getrlimit(rustix::process::Resource::Memlock).current;
    match limit {
        Some(bytes) if bytes < 64 << 20 => Check::failed(
            "memlock",
            format!(
                "RLIMIT_MEMLOCK is {} KiB; before 5.11 it limits the memory of maps",
                bytes >> 10
            ),
            "set `LimitMEMLOCK=infinity` in systemd, or the container runtime's default ulimit",
        ),
        Some(bytes) => Check::ok("memlock", format!("RLIMIT_MEMLOCK is {} MiB", bytes >> 20)),
        None => Check::ok("memlock", "unlimited"),
    }
}

/// The probable causes of EPERM: capabilities, seccomp, RLIMIT_MEMLOCK.
pub(crate) fn explain_eperm() -> String {
    let mut checks = capabilities();
    checks.extend([seccomp(), memlock()]);
    let causes: Vec<String> = checks
        .into_iter()
        .filter(|check| check.outcome == Outcome::Failed && check.name != "CAP_NET_BIND_SERVICE")
        .map(|check| {
            format!("{} ({}): {}", check.name, check.detail, check.remedy.unwrap_or_default())
        })
        .collect();
    if causes.is_empty() {
        return "capabilities, seccomp and RLIMIT_MEMLOCK look right; a security module (AppArmor, \
            SELinux, lockdown) may forbid bpf(2): see the kernel's log".into();
    }
    causes.join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn capabilities_of_this_process_are_read() {
        // These tests need root, like the whole suite.
        assert!(has_capability(CapabilitySet::NET_ADMIN), "run the tests as root");
        assert!(!has_capability(CapabilitySet::from_bits_retain(1 << 63)));
    }

    #[test]
    fn bpf_is_not_blocked_where_the_tests_run() {
        assert!(!bpf_is_blocked());
        assert_eq!(seccomp().outcome, Outcome::Ok);
    }
}
