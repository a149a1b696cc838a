//! The rows of `redirector check` about this kernel and these privileges.

use std::{fs, path::Path};

use aya::{maps::MapType, sys::is_map_supported};

use crate::{
    config::CgroupSpec,
    datapath::{
        attach::{
            cgroups::cgroups,
            hierarchy::{Cgroup, cgroup2_mount, is_confined, mounts},
        },
        checks::{
            check::Check,
            debug_log::debug_log,
            features::{self, FEATURES},
            foreign::{self, ForeignProgram},
            kernel::{OLDEST, has_current_comm, kernel_at_least, release, unsupported_release},
            privileges::{capabilities, memlock, seccomp},
        },
        error::DatapathError,
        load::object::{Build, Object},
        pins::{layout, version::Version},
        settings::Settings,
    },
};

/// Checks everything that the datapath needs, without changing anything: the programs are loaded
/// and dropped again.
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
        foreign_programs(settings, specs),
    ]);
    checks.push(bpffs(&settings.bpffs));
    checks.extend(map_kinds());
    checks.extend(programs(settings));
    checks.extend(debug_log(settings));
    checks
}

fn kernel() -> Check {
    match unsupported_release() {
        None => Check::ok("kernel", format!("{}; {OLDEST} or later is needed", release())),
        Some(release) => Check::failed(
            "kernel",
            format!("{release} is older than {OLDEST}"),
            "run a newer kernel on this node",
        ),
    }
}

/// Never a warning: without the helper only the command names of processes that have ended are
/// lost.
fn commands() -> Check {
    let detail = match has_current_comm() {
        true => "events take the caller's command name from the kernel (bpf_get_current_comm)",
        false => {
            "events take the caller's command name from /proc, if the process still runs: connect \
                programs may not read it (since 6.17 without CAP_PERFMON)"
        }
    };
    Check::ok("commands", detail)
}

/// Whether sockets belong to their cgroup2 cgroup in spite of net_cls and net_prio.
fn hybrid(specs: &[CgroupSpec]) -> Check {
    let mounts = mounts().unwrap_or_default();
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
        // Only root may read it, and not in a network namespace other than the initial one.
        Err(_) => Check::ok("jit", "unknown: cannot read net.core.bpf_jit_enable here"),
    }
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
        Ok(_) if is_confined() => Check::warning(
            "cgroup2",
            format!(
                "mounted at {}, where this process's cgroup namespace hides all but its own \
                    cgroup: no executor beside it can be attached to",
                mount.display()
            ),
            "run it in the host's cgroup namespace, or mount the host's /sys/fs/cgroup into this \
                container",
        ),
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

/// The most cgroups to check: a program above one is usually above the others, too.
const MAX_CGROUPS: usize = 32;

/// Foreign programs on our hooks, and whether one of them prevents ours.
fn foreign_programs(settings: &Settings, specs: &[CgroupSpec]) -> Check {
    const NAME: &str = "foreign_programs";
    let found = cgroups(specs).unwrap_or_default();
    let mut labels = Vec::new();
    for cgroup in found.iter().take(MAX_CGROUPS) {
        match foreign::exclusive_program_above(&cgroup.path) {
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
            Err(error) => return unknown(NAME, error),
        }
        match foreign::foreign_programs(&settings.bpffs, &cgroup.path) {
            Ok(programs) => labels.extend(programs.iter().map(label)),
            Err(error) => return unknown(NAME, error),
        }
    }
    labels.sort();
    labels.dedup();
    match labels.as_slice() {
        [] => Check::ok(NAME, "no other program is on our hooks"),
        labels => {
            Check::ok(NAME, format!("other programs are on our hooks, too: {}", labels.join(", ")))
        }
    }
}

fn label(other: &ForeignProgram) -> String {
    format!("{} (ID {}) on {}", other.name.as_deref().unwrap_or("a program"), other.id, other.hook)
}

/// The row of a check that could not be made. It is no failure: the cause has a row of its own.
fn unknown(name: &str, error: DatapathError) -> Check {
    let why = match error {
        DatapathError::NotPermitted { .. } => {
            "not permitted to list the programs on our hooks".to_owned()
        }
        error => format!("{:#}", anyhow::Error::from(error)),
    };
    Check::ok(name, format!("unknown: {why}"))
}

fn bpffs(path: &Path) -> Check {
    const NAME: &str = "bpffs";
    let existing = path.ancestors().find(|path| path.exists()).unwrap_or(Path::new("/"));
    if !layout::is_bpffs(existing) {
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
            format!("cannot write {}", existing.display()),
            "run as uid 0, or change the owner of the directory",
        );
    }
    Check::ok(NAME, format!("pins go to {}", path.display()))
}

/// The kinds of maps that the packet datapath needs, which a kernel may be built without.
fn map_kinds() -> [Check; 2] {
    let check = |name, kind, purpose| match is_map_supported(kind) {
        Ok(true) => Check::ok(name, format!("this kernel has it; needed for {purpose}")),
        Ok(false) => Check::failed(
            name,
            format!("this kernel lacks it: needed for {purpose}"),
            "run a kernel with CONFIG_BPF_SYSCALL of 5.10 or later",
        ),
        // Its cause, a lack of privileges, has a row of its own.
        Err(error) => Check::ok(name, format!("unknown: {}", error.io_error)),
    };
    [
        check("lpm_trie", MapType::LpmTrie, "wildcards of names"),
        check("lru_hash", MapType::LruHash, "half-open connections of guests"),
    ]
}

/// Loads every program, to prove that the verifier accepts them with these privileges and this
/// pool.
fn programs(settings: &Settings) -> Vec<Check> {
    match Object::load(Build::Plain, &settings.pool, &Version::own(), None) {
        Ok(object) => {
            let programs = object.programs();
            let instructions: Option<u32> =
                programs.iter().map(|program| program.verified_instructions).sum();
            let verified = match instructions {
                Some(instructions) => {
                    format!("; the verifier processed {instructions} instructions")
                }
                // Older than 5.16.
                None => String::new(),
            };
            let loaded = Check::ok("programs", format!("{} load{verified}", programs.len()));
            vec![loaded, packet_programs(object.packet_error())]
        }
        Err(error) => {
            let remedy = match &error {
                DatapathError::NotPermitted { .. } => "see what failed above",
                _ => "report it with this line and the kernel's version",
            };
            let detail = match error {
                // The causes are the rows above, each with its remedy.
                DatapathError::NotPermitted { .. } => "not permitted to load them".to_owned(),
                error => format!("{:#}", anyhow::Error::from(error)),
            };
            vec![Check::failed("programs", detail, remedy)]
        }
    }
}

/// The packet programs read packets directly, which takes a verifier that accepts it from an agent
/// without CAP_PERFMON.
fn packet_programs(refused: Option<&DatapathError>) -> Check {
    const NAME: &str = "packet_programs";
    match refused {
        None => Check::ok(NAME, "they load, and read packets directly"),
        Some(error) => Check::failed(
            NAME,
            format!("no names are answered and no guests redirected by packet: {error}"),
            "report it with this line and the kernel's version; connects of cgroups are redirected",
        ),
    }
}
