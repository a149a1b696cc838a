//! The init of the machine: file systems, the loopback device, the scenarios, power off.

use std::{
    ffi::{CStr, CString},
    io,
    os::{fd::AsRawFd as _, unix::process::CommandExt as _},
    process::Command,
};

use anyhow::{Context as _, Result, ensure};
use rustix::{
    mount::{MountFlags, mount},
    process::{Gid, Uid},
    thread::{
        CapabilitySet, CapabilitySets, set_capabilities, set_keep_capabilities, set_thread_groups,
        set_thread_res_gid, set_thread_res_uid,
    },
};

/// The cgroup that the datapath is attached to.
pub(crate) const ATTACHED: &str = "/sys/fs/cgroup/kubepods";
/// The cgroup below it that the scenarios run in.
pub(crate) const POD: &str = "/sys/fs/cgroup/kubepods/podvm";
/// A cgroup elsewhere.
pub(crate) const JOBS: &str = "/sys/fs/cgroup/jobs";

/// Where the datapath is pinned.
const BPFFS: &str = "/sys/fs/bpf";

/// CAP_NET_ADMIN and CAP_BPF, by number: loading, attaching and pinning need no others.
pub(crate) const CAPABILITIES: [u64; 2] = [12, 39];

/// Mounts the file systems that the datapath needs, loads the modules of network devices, and
/// brings the loopback device up.
pub(crate) fn prepare() -> Result<()> {
    const MOUNTS: [(&str, &str); 5] = [
        ("proc", "/proc"),
        ("sysfs", "/sys"),
        ("devtmpfs", "/dev"),
        ("bpf", BPFFS),
        ("cgroup2", "/sys/fs/cgroup"),
    ];
    for (kind, target) in MOUNTS {
        let _ = std::fs::create_dir_all(target);
        match mount(kind, target, kind, MountFlags::empty(), None::<&CStr>) {
            // Some kernels mount /dev themselves (CONFIG_DEVTMPFS_MOUNT).
            Ok(()) | Err(rustix::io::Errno::BUSY) => {}
            Err(error) => {
                return Err(error).with_context(|| format!("failed to mount {kind} at {target}"));
            }
        }
    }
    // The scenarios may not create cgroups at the root.
    for cgroup in [POD, JOBS] {
        std::fs::create_dir_all(cgroup)
            .with_context(|| format!("failed to make the cgroup {cgroup}"))?;
    }
    load_modules()?;
    loopback_up().context("failed to bring lo up")
}

/// Loads the modules of the archive, whose names begin with their place in the order.
fn load_modules() -> Result<()> {
    const FOLDER: &str = "/modules";
    let entries = std::fs::read_dir(FOLDER).with_context(|| format!("failed to read {FOLDER}"))?;
    let mut paths: Vec<_> = entries.flatten().map(|entry| entry.path()).collect();
    paths.sort_unstable();
    for path in paths {
        let file = std::fs::File::open(&path)
            .with_context(|| format!("failed to open {}", path.display()))?;
        match rustix::system::finit_module(&file, c"", 0) {
            // Built into this kernel.
            Ok(()) | Err(rustix::io::Errno::EXIST) => {}
            Err(error) => {
                return Err(error).with_context(|| format!("failed to load {}", path.display()));
            }
        }
    }
    Ok(())
}

fn loopback_up() -> io::Result<()> {
    let socket = rustix::net::socket(
        rustix::net::AddressFamily::INET,
        rustix::net::SocketType::DGRAM,
        None,
    )?;
    // SAFETY: all zeroes is a valid `ifreq`.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    request.ifr_name[0] = b'l' as libc::c_char;
    request.ifr_name[1] = b'o' as libc::c_char;
    request.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING) as libc::c_short;
    // SAFETY: the request outlives the call, which writes nothing beyond it.
    let result =
        unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS as _, &raw const request) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Runs this program again with one argument, in the pod's cgroup, as this user with exactly
/// [`CAPABILITIES`]. The user owns the bpf file system.
pub(crate) fn run_scenarios(argument: &str, uid: u32) -> Result<()> {
    std::os::unix::fs::chown(BPFFS, Some(uid), Some(uid))
        .with_context(|| format!("failed to give {BPFFS} to uid {uid}"))?;
    let procs = CString::new(format!("{POD}/cgroup.procs")).context("a path holds a zero byte")?;
    let mut command = Command::new("/init");
    command.arg(argument);
    // SAFETY: between fork and exec the closure only makes system calls, on what was allocated
    // before.
    unsafe {
        command.pre_exec(move || {
            let file = rustix::fs::open(
                procs.as_c_str(),
                rustix::fs::OFlags::WRONLY,
                rustix::fs::Mode::empty(),
            )?;
            rustix::io::write(&file, b"0")?;
            // Before 5.11 maps count against this limit. The product may not raise it; a service
            // manager does.
            let unlimited = rustix::process::Rlimit { current: None, maximum: None };
            rustix::process::setrlimit(rustix::process::Resource::Memlock, unlimited)?;
            drop_capabilities()?;
            if uid == 0 { Ok(()) } else { become_user(uid) }
        });
    }
    let status =
        command.status().with_context(|| format!("failed to start the scenarios as uid {uid}"))?;
    ensure!(status.success(), "the scenarios of uid {uid} ended with {status}");
    Ok(())
}

/// At exec, uid 0 gets what its bounding set allows.
fn drop_capabilities() -> io::Result<()> {
    for capability in (0..64_u64).filter(|capability| !CAPABILITIES.contains(capability)) {
        // SAFETY: integers only.
        if unsafe { libc::prctl(libc::PR_CAPBSET_DROP, capability, 0, 0, 0) } != 0 {
            let error = io::Error::last_os_error();
            // The first number that is unknown to this kernel ends the list.
            return if error.raw_os_error() == Some(libc::EINVAL) { Ok(()) } else { Err(error) };
        }
    }
    Ok(())
}

/// At exec, other uids keep their ambient capabilities, as with `AmbientCapabilities=` of systemd.
fn become_user(uid: u32) -> io::Result<()> {
    let set = CAPABILITIES.iter().fold(CapabilitySet::empty(), |set, &capability| {
        set | CapabilitySet::from_bits_retain(1 << capability)
    });
    set_keep_capabilities(true)?;
    let (user, group) = (Uid::from_raw(uid), Gid::from_raw(uid));
    set_thread_groups(&[])?;
    set_thread_res_gid(group, group, group)?;
    set_thread_res_uid(user, user, user)?;
    set_capabilities(None, CapabilitySets { effective: set, permitted: set, inheritable: set })?;
    for capability in CAPABILITIES {
        // SAFETY: integers only.
        if unsafe {
            libc::prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_RAISE, capability, 0, 0)
        } != 0
        {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}

/// Powers the machine off.
pub(crate) fn power_off() -> ! {
    rustix::fs::sync();
    let _ = rustix::system::reboot(rustix::system::RebootCommand::PowerOff);
    // Process 1 must not return: the kernel would panic before its last lines are out.
    loop {
        std::thread::sleep(std::time::Duration::from_secs(1));
    }
}
