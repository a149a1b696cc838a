//! What this kernel and these privileges allow, one by one, each with its remedy.

use std::{fs, path::Path};

use aya::{
    programs::ProgramType,
    sys::{BpfHelper, is_helper_supported},
    util::KernelVersion,
};
use serde::{Deserialize, Serialize};

use super::{
    Cgroup, DatapathError, OtherProgram, Settings, cgroup2_mount, cgroups,
    features::{self, FEATURES},
    object::Object,
    others, pins,
    version::Version,
};
use crate::config::CgroupSpec;

/// How a check came out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// As it should be.
    Ok,
    /// It works, with less.
    Warning,
    /// It can't work.
    Failed,
}

/// One check.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Check {
    /// What was looked at.
    pub name: String,
    /// How it came out.
    pub outcome: Outcome,
    /// What was found.
    pub detail: String,
    /// What to do about it; absent when all is well.
    pub remedy: Option<String>,
}

impl Check {
    /// All is well.
    pub fn ok(name: &str, detail: impl Into<String>) -> Self {
        Self { name: name.into(), outcome: Outcome::Ok, detail: detail.into(), remedy: None }
    }

    /// It works, with less.
    pub fn warning(name: &str, detail: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            outcome: Outcome::Warning,
            detail: detail.into(),
            remedy: Some(remedy.into()),
        }
    }

    /// It can't work.
    pub fn failed(name: &str, detail: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            outcome: Outcome::Failed,
            detail: detail.into(),
            remedy: Some(remedy.into()),
        }
    }
}

/// The oldest kernel that the programs are written for.
const OLDEST: &str = "5.10";

// Capability numbers (linux/capability.h).
const CAP_NET_BIND_SERVICE: u32 = 10;
const CAP_NET_ADMIN: u32 = 12;
const CAP_SYS_ADMIN: u32 = 21;
const CAP_BPF: u32 = 39;

/// Checks everything that the datapath needs, without changing anything: the programs are loaded
/// and let go again.
pub fn preflight(settings: &Settings, specs: &[CgroupSpec]) -> Vec<Check> {
    let mut checks = vec![kernel()];
    checks.extend(
        FEATURES
            .iter()
            .map(|feature| feature.check(|major, minor| kernel_at_least(major, minor, 0))),
    );
    checks.extend([commands(), jit()]);
    checks.extend(capabilities());
    checks.extend([
        seccomp(),
        memlock(),
        cgroup2(specs),
        hybrid(specs),
        neighbours(settings, specs),
    ]);
    checks.extend([bpffs(&settings.bpffs), programs(settings)]);
    checks
}

fn kernel() -> Check {
    match old_kernel() {
        None => Check::ok("kernel", format!("{}; {OLDEST} or later is needed", release())),
        Some(release) => Check::failed(
            "kernel",
            format!("{release} is older than {OLDEST}"),
            "run a newer kernel on this node",
        ),
    }
}

fn release() -> String {
    rustix::system::uname().release().to_string_lossy().into_owned()
}

fn old_kernel() -> Option<String> {
    (!kernel_at_least(5, 10, 0)).then(release)
}

/// Refuses a kernel that the programs are not written for, before anything is made in it.
pub(super) fn refuse_old_kernel() -> Result<(), DatapathError> {
    old_kernel().map_or(Ok(()), |release| Err(DatapathError::TooOld { release, oldest: OLDEST }))
}

fn kernel_at_least(major: u8, minor: u8, patch: u16) -> bool {
    KernelVersion::current().is_ok_and(|version| version >= KernelVersion::new(major, minor, patch))
}

/// Whether connect programs can say the errno: `bpf_set_retval` for these hooks, 6.1 and later.
pub(super) fn has_set_retval() -> bool {
    kernel_at_least(6, 1, 0)
}

/// Whether connect programs can tell the command of their caller. Since 6.17 that takes
/// CAP_PERFMON, which is no capability that we ask for: "program of this type cannot use helper
/// bpf_get_current_comm#16" (6.18). Without it the agent looks the process up.
pub fn tells_commands() -> bool {
    is_helper_supported(ProgramType::CgroupSockAddr, BpfHelper::BPF_FUNC_get_current_comm)
        .unwrap_or(false)
}

/// Nothing is lost by the one or the other but the command of a process that has ended before it is
/// looked up.
fn commands() -> Check {
    let detail = match tells_commands() {
        true => "events have their caller's command from the kernel (bpf_get_current_comm)",
        false => {
            "events have their caller's command from /proc, if it is still there: connect programs \
                may not ask (since 6.17 without CAP_PERFMON)"
        }
    };
    Check::ok("commands", detail)
}

/// Whether sockets know their cgroup2 cgroup beside net_cls and net_prio.
fn hybrid(specs: &[CgroupSpec]) -> Check {
    let mounts = fs::read_to_string("/proc/thread-self/mountinfo").unwrap_or_default();
    let mount = cgroup2_mount();
    let at_root = |cgroup: &Cgroup| mount.as_ref().is_ok_and(|mount| cgroup.path == *mount);
    let at_root_only = cgroups(specs).is_ok_and(|found| found.iter().all(at_root));
    features::socket_cgroups(&mounts, kernel_at_least(5, 15, 0), at_root_only)
}

fn jit() -> Check {
    match fs::read_to_string("/proc/sys/net/core/bpf_jit_enable")
        .map(|text| text.trim().to_owned())
        .as_deref()
    {
        Ok("0") => Check::warning(
            "jit",
            "net.core.bpf_jit_enable is 0: every connect of the host costs more",
            "sysctl -w net.core.bpf_jit_enable=1",
        ),
        Ok(value) => Check::ok("jit", format!("net.core.bpf_jit_enable is {value}")),
        // Only root may read it, and inside a network namespace of its own it is not shown.
        Err(_) => Check::ok("jit", "not known: net.core.bpf_jit_enable can't be read here"),
    }
}

fn capabilities() -> Vec<Check> {
    let needed = [
        ("CAP_BPF", CAP_BPF, "load programs and make tables"),
        (
            "CAP_NET_ADMIN",
            CAP_NET_ADMIN,
            "attach to cgroups, guard the pool, add the listen address",
        ),
        ("CAP_NET_BIND_SERVICE", CAP_NET_BIND_SERVICE, "listen on port 53"),
    ];
    let check = |(name, number, purpose): (&str, u32, &str)| {
        if has_capability(number) || number == CAP_BPF && has_capability(CAP_SYS_ADMIN) {
            Check::ok(name, format!("granted; needed to {purpose}"))
        } else {
            Check::failed(name, format!("missing: needed to {purpose}"), grant(name))
        }
    };
    needed.map(check).into()
}

fn grant(name: &str) -> String {
    let short = name.trim_start_matches("CAP_");
    format!(
        "run as root, or add it: `capabilities.add: [{short}]` in Kubernetes, `--cap-add {short}`, \
            `AmbientCapabilities={name}` in systemd"
    )
}

fn has_capability(number: u32) -> bool {
    let effective =
        status_field("CapEff").and_then(|hex| u64::from_str_radix(&hex, 16).ok()).unwrap_or(0);
    effective >> number & 1 == 1
}

fn status_field(name: &str) -> Option<String> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    status.lines().find_map(|line| {
        line.strip_prefix(name)?.strip_prefix(':').map(str::trim).map(str::to_owned)
    })
}

/// Whether a seccomp filter stands between us and bpf(2). A filter answers EPERM to a command that
/// the kernel answers EINVAL.
fn seccomp() -> Check {
    const REMEDY: &str = "use a profile that allows bpf(2) with CAP_BPF (Kubernetes: \
        `seccompProfile: {type: RuntimeDefault}` on containerd 1.6 or later)";
    let filtered = status_field("Seccomp").is_some_and(|mode| mode != "0");
    match (filtered, bpf_is_blocked()) {
        (true, true) => Check::failed("seccomp", "a seccomp filter blocks bpf(2)", REMEDY),
        (true, false) => Check::ok("seccomp", "a filter is on; it lets bpf(2) through"),
        (false, _) => Check::ok("seccomp", "no filter"),
    }
}

/// A command that does not exist: EINVAL from the kernel (EPERM without any privilege), EPERM or
/// ENOSYS from a filter.
fn bpf_is_blocked() -> bool {
    // SAFETY: command 0xffff with no attributes reads and writes nothing.
    let result = unsafe { libc::syscall(libc::SYS_bpf, 0xffff, std::ptr::null::<u8>(), 0) };
    let errno = std::io::Error::last_os_error().raw_os_error();
    result < 0 && matches!(errno, Some(libc::EPERM | libc::ENOSYS)) && has_capability(CAP_BPF)
}

fn memlock() -> Check {
    if kernel_at_least(5, 11, 0) {
        return Check::ok(
            "memlock",
            "this kernel counts tables against the cgroup's memory, not against RLIMIT_MEMLOCK",
        );
    }
    let limit = rustix::process::getrlimit(rustix::process::Resource::Memlock).current;
    match limit {
        Some(bytes) if bytes < 64 << 20 => Check::failed(
            "memlock",
            format!("RLIMIT_MEMLOCK is {} KiB; before 5.11 tables count against it", bytes >> 10),
            "set `LimitMEMLOCK=infinity` in systemd, or the container runtime's default ulimit",
        ),
        Some(bytes) => Check::ok("memlock", format!("RLIMIT_MEMLOCK is {} MiB", bytes >> 20)),
        None => Check::ok("memlock", "unlimited"),
    }
}

/// Three causes of the same EPERM, told apart.
pub(super) fn why_not_permitted() -> String {
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

fn cgroup2(specs: &[CgroupSpec]) -> Check {
    let mount = match cgroup2_mount() {
        Ok(mount) => mount,
        Err(error) => {
            return Check::failed(
                "cgroup2",
                error.to_string(),
                "mount it, or mount the host's into this container",
            );
        }
    };
    match cgroups(specs) {
        Ok(found) if found.is_empty() => {
            let remedy = "nothing is needed if they appear later; else correct `attach.cgroups`";
            Check::warning(
                "cgroup2",
                format!("mounted at {}; no cgroup matches attach.cgroups yet", mount.display()),
                remedy,
            )
        }
        Ok(found) => {
            let paths: Vec<String> =
                found.iter().take(5).map(|cgroup| cgroup.path.display().to_string()).collect();
            let more = if found.len() > 5 {
                format!(" and {} more", found.len() - 5)
            } else {
                String::new()
            };
            Check::ok(
                "cgroup2",
                format!("mounted at {}; attaches to {}{more}", mount.display(), paths.join(", ")),
            )
        }
        Err(error) => Check::failed("cgroup2", error.to_string(), "correct `attach.cgroups`"),
    }
}

/// Cgroups whose hooks are looked at: whoever is above one is above others, too.
const ASKED: usize = 32;

/// Whose programs are on our hooks already, and whether one of them keeps ours away.
fn neighbours(settings: &Settings, specs: &[CgroupSpec]) -> Check {
    const NAME: &str = "neighbours";
    let found = cgroups(specs).unwrap_or_default();
    let mut words = Vec::new();
    for cgroup in found.iter().take(ASKED) {
        match others::exclusive_above(&cgroup.path) {
            Ok(Some((hook, at))) => {
                let detail = format!(
                    "a program is attached to {hook} of {} exclusively: ours can't be below it",
                    at.display()
                );
                return Check::failed(
                    NAME,
                    detail,
                    "`bpftool cgroup tree` names it; its owner has to attach it with `multi`, or \
                        as a link",
                );
            }
            Ok(None) => {}
            Err(error) => return not_known(NAME, error),
        }
        match others::others(&settings.bpffs, &cgroup.path) {
            Ok(others) => words.extend(others.iter().map(told)),
            Err(error) => return not_known(NAME, error),
        }
    }
    words.sort();
    words.dedup();
    match words.as_slice() {
        [] => Check::ok(NAME, "no other program is on our hooks"),
        words => {
            Check::ok(NAME, format!("other programs are on our hooks, too: {}", words.join(", ")))
        }
    }
}

fn told(other: &OtherProgram) -> String {
    format!("{} (ID {}) on {}", other.name.as_deref().unwrap_or("a program"), other.id, other.hook)
}

/// What is in the way of looking is in the way of everything else and has its line above.
fn not_known(name: &str, error: DatapathError) -> Check {
    let why = match error {
        DatapathError::NotPermitted { .. } => {
            "not permitted to ask which programs are on our hooks".to_owned()
        }
        error => format!("{:#}", anyhow::Error::from(error)),
    };
    Check::ok(name, format!("not known: {why}"))
}

fn bpffs(path: &Path) -> Check {
    const NAME: &str = "bpffs";
    let existing = path.ancestors().find(|path| path.exists()).unwrap_or(Path::new("/"));
    if !pins::is_bpffs(existing) {
        let remedy = "`mount -t bpf bpf /sys/fs/bpf` (in Kubernetes, mount the host's \
            /sys/fs/bpf), or set `agent.bpffs`";
        return Check::failed(
            NAME,
            format!("{} is not in a bpf file system", path.display()),
            remedy,
        );
    }
    if rustix::fs::access(existing, rustix::fs::Access::WRITE_OK).is_err() {
        return Check::failed(
            NAME,
            format!("{} can't be written", existing.display()),
            "run as uid 0, or change the folder's owner",
        );
    }
    Check::ok(NAME, format!("pins go to {}", path.display()))
}

/// The proof: the verifier takes every program, under these privileges, with this pool.
fn programs(settings: &Settings) -> Check {
    match Object::load(&settings.pool, &Version::own(), None) {
        Ok(object) => {
            let programs = object.programs();
            let instructions: Option<u32> =
                programs.iter().map(|program| program.verified_instructions).sum();
            let verified = match instructions {
                Some(instructions) => {
                    format!("; the verifier looked at {instructions} instructions")
                }
                // Told since 5.16.
                None => String::new(),
            };
            Check::ok("programs", format!("{} load{verified}", programs.len()))
        }
        Err(error) => {
            let remedy = match &error {
                DatapathError::NotPermitted { .. } => "see what failed above",
                _ => "report it with this line and the kernel's version",
            };
            let detail = match error {
                // Its causes are the lines above, each with its remedy.
                DatapathError::NotPermitted { .. } => "not permitted to load them".to_owned(),
                error => format!("{:#}", anyhow::Error::from(error)),
            };
            Check::failed("programs", detail, remedy)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn capabilities_are_read_from_the_process_itself() {
        // These tests need root, as the whole suite does.
        assert!(has_capability(CAP_NET_ADMIN), "run the tests as root");
        assert!(!has_capability(63));
    }

    #[test]
    fn bpf_is_not_blocked_where_the_tests_run() {
        assert!(!bpf_is_blocked());
        assert_eq!(seccomp().outcome, Outcome::Ok);
    }
}
