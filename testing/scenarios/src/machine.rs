//! What an init does: file systems, the loopback device, one child, power off.

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::AsRawFd as _;
use std::os::unix::process::CommandExt as _;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use rustix::mount::{MountFlags, mount};
use rustix::process::{Gid, Uid};
use rustix::thread::{
    CapabilitySet, CapabilitySets, set_capabilities, set_keep_capabilities, set_thread_groups,
    set_thread_res_gid, set_thread_res_uid,
};

/// The cgroup that the datapath is attached to, and the one below it that the scenarios run in.
pub(crate) const ATTACHED: &str = "/sys/fs/cgroup/kubepods";
pub(crate) const POD: &str = "/sys/fs/cgroup/kubepods/podvm";

/// Where pins go.
const BPFFS: &str = "/sys/fs/bpf";

/// CAP_NET_ADMIN and CAP_BPF, by number: all that loading, attaching and pinning may take.
pub(crate) const CAPABILITIES: [u64; 2] = [12, 39];

/// Mounts what the datapath needs, and brings the loopback device up.
pub(crate) fn prepare() -> Result<()> {
    const MOUNTS: [(&str, &str); 5] = [
        ("proc", "/proc"),
        ("sysfs", "/sys"),
        ("devtmpfs", "/dev"),
        ("bpf", BPFFS),
        ("cgroup2", "/sys/fs/cgroup"),
    ];
    for (kind, place) in MOUNTS {
        let _ = std::fs::create_dir_all(place);
        match mount(kind, place, kind, MountFlags::empty(), None::<&CStr>) {
            // The kernel mounts /dev by itself when it is told to.
            Ok(()) | Err(rustix::io::Errno::BUSY) => {}
            Err(error) => {
                return Err(error).with_context(|| format!("failed to mount {kind} at {place}"));
            }
        }
    }
    // Whoever plays may not make cgroups at the root.
    for cgroup in [POD, "/sys/fs/cgroup/jobs"] {
        std::fs::create_dir_all(cgroup)
            .with_context(|| format!("failed to make the cgroup {cgroup}"))?;
    }
    loopback_up().context("failed to bring lo up")
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

/// Runs this program again with one argument, in the pod's cgroup, as this user with
/// [`CAPABILITIES`] and no more. The bpf file system is the user's.
pub(crate) fn start_again(argument: &str, uid: u32) -> Result<()> {
    std::os::unix::fs::chown(BPFFS, Some(uid), Some(uid))
        .with_context(|| format!("failed to give {BPFFS} to uid {uid}"))?;
    let procs = CString::new(format!("{POD}/cgroup.procs")).context("a path holds a zero byte")?;
    let mut command = Command::new("/init");
    command.arg(argument);
    // SAFETY: between fork and exec the closure makes system calls on what was allocated before,
    // and nothing else.
    unsafe {
        command.pre_exec(move || {
            let file = rustix::fs::open(
                procs.as_c_str(),
                rustix::fs::OFlags::WRONLY,
                rustix::fs::Mode::empty(),
            )?;
            rustix::io::write(&file, b"0")?;
            // Before 5.11 tables count against this limit; a service manager raises it, since the
            // product may not.
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

/// Uid 0 gets at exec what its bounding set allows.
fn drop_capabilities() -> io::Result<()> {
    for capability in (0..64_u64).filter(|capability| !CAPABILITIES.contains(capability)) {
        // SAFETY: integers only.
        if unsafe { libc::prctl(libc::PR_CAPBSET_DROP, capability, 0, 0, 0) } != 0 {
            let error = io::Error::last_os_error();
            // The first number that this kernel does not know ends the list.
            return if error.raw_os_error() == Some(libc::EINVAL) { Ok(()) } else { Err(error) };
        }
    }
    Ok(())
}

/// Another uid keeps at exec what is ambient: what `AmbientCapabilities=` of systemd does.
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

/// The machine ends here.
pub(crate) fn power_off() -> ! {
    rustix::fs::sync();
    let _ = rustix::system::reboot(rustix::system::RebootCommand::PowerOff);
    // Process 1 must not return: the kernel would panic before its last lines are out.
    loop {
        std::thread::sleep(std::time::Duration::from_secs(1));
    }
}
