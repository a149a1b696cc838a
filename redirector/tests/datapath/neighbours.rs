//! Other programs on the same hooks, above our cgroup: theirs first and ours first, with each way to attach.

use std::{
    fs::File,
    io,
    net::Ipv4Addr,
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
    time::Duration,
};

use redirector::{
    config::CgroupSpec,
    datapath::{self, DatapathError},
};
use xtask::testbed::customer::LOAD_BALANCERS;

use crate::rig::{Bed, PORT, VIP, on_node, settings};

/// The node's root, as its programs see it: above `kubepods`, where ours are.
const ROOT: &str = "/sys/fs/cgroup";

// Commands and numbers of bpf(2), uapi/linux/bpf.h.
const BPF_PROG_LOAD: i32 = 5;
const BPF_PROG_ATTACH: i32 = 8;
const BPF_PROG_DETACH: i32 = 9;
const CGROUP_SOCK_ADDR: u32 = 18;
const INET4_CONNECT: u32 = 10;

/// How a neighbour attaches: `BPF_PROG_ATTACH` with these flags.
#[derive(Clone, Copy, Debug)]
enum Mode {
    Exclusive = 0,
    Override = 1,
    Multi = 2,
}

/// The attributes of `BPF_PROG_LOAD`, as far as they are needed.
#[repr(C)]
struct Load {
    kind: u32,
    instructions: u32,
    code: u64,
    license: u64,
    unused: [u64; 3],
    name: [u8; 16],
    interface: u32,
    attach_type: u32,
}

/// The attributes of `BPF_PROG_ATTACH` and `BPF_PROG_DETACH`.
#[repr(C)]
struct Attach {
    cgroup: u32,
    program: u32,
    attach_type: u32,
    flags: u32,
}

fn bpf<T>(command: i32, attributes: &mut T) -> io::Result<i32> {
    // SAFETY: the attributes are live, and their size is told.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_mut(attributes), size_of::<T>()) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result as i32) }
}

/// Somebody's connect4 program at the root, which forbids connects to one address.
struct Neighbour {
    program: OwnedFd,
    cgroup: File,
}

impl Neighbour {
    fn that_forbids(address: Ipv4Addr) -> Self {
        Self::at(ROOT, address)
    }

    fn at(cgroup: &str, address: Ipv4Addr) -> Self {
        let instruction = |code: u8, registers: u8, offset: i16, value: u32| {
            u64::from(code) | u64::from(registers) << 8 | u64::from(offset as u16) << 16 | u64::from(value) << 32
        };
        let code = [
            instruction(0x61, 0x12, 4, 0),                                    // r2 = ctx->user_ip4, network byte order
            instruction(0xb7, 0x00, 0, 1),                                    // r0 = 1: allow
            instruction(0x56, 0x02, 1, u32::from_ne_bytes(address.octets())), // if w2 != address, skip one
            instruction(0xb7, 0x00, 0, 0),                                    // r0 = 0: deny
            instruction(0x95, 0x00, 0, 0),                                    // exit
        ];
        let mut load = Load {
            kind: CGROUP_SOCK_ADDR,
            instructions: code.len() as u32,
            code: code.as_ptr() as u64,
            license: c"GPL".as_ptr() as u64,
            unused: [0; 3],
            name: *b"neighbour\0\0\0\0\0\0\0",
            interface: 0,
            attach_type: INET4_CONNECT,
        };
        let program = bpf(BPF_PROG_LOAD, &mut load).unwrap();
        // SAFETY: the kernel has just made this descriptor for us.
        Self { program: unsafe { OwnedFd::from_raw_fd(program) }, cgroup: File::open(cgroup).unwrap() }
    }

    fn attributes(&self, flags: u32) -> Attach {
        let (cgroup, program) = (self.cgroup.as_raw_fd() as u32, self.program.as_raw_fd() as u32);
        Attach { cgroup, program, attach_type: INET4_CONNECT, flags }
    }

    fn attach(&self, mode: Mode) {
        bpf(BPF_PROG_ATTACH, &mut self.attributes(mode as u32)).unwrap();
    }

    fn detach(&self) {
        bpf(BPF_PROG_DETACH, &mut self.attributes(0)).unwrap();
    }
}

fn detach_ours(bed: &mut Bed) {
    on_node(&bed.rig, || bed.datapath.attach(&[]).unwrap());
    await_others(bed, &[]);
}

/// Returns when `expected` and nobody else are in effect: the kernel detaches a link some time after the last pin of it has gone.
fn await_others(bed: &Bed, expected: &[&str]) {
    let only_they = (0..500).any(|_| {
        std::thread::sleep(Duration::from_millis(10));
        others(bed) == expected
    });
    assert!(only_they, "{:?}", others(bed));
}

fn attach_ours(bed: &mut Bed) -> Result<(), DatapathError> {
    on_node(&bed.rig, || bed.datapath.attach(&datapath::cgroups(&[CgroupSpec::Auto])?).map(drop))
}

/// The names of the other programs that are in effect where ours are.
fn others(bed: &Bed) -> Vec<String> {
    let found = on_node(&bed.rig, || datapath::others(&settings().bpffs, "/sys/fs/cgroup/kubepods".as_ref())).unwrap();
    found.into_iter().filter_map(|other| other.name).collect()
}

/// Puts a neighbour that forbids the only backend above us, before or after ours is attached: what a connect gets, and who else is in effect.
fn beside_a_neighbour(mode: Mode, ours_first: bool) -> (String, Vec<String>) {
    let (mut bed, _one, _two) = Bed::with_two_servers();
    bed.put(&[], &LOAD_BALANCERS[..1]);
    let neighbour = on_node(&bed.rig, || Neighbour::that_forbids(LOAD_BALANCERS[0]));
    if !ours_first {
        detach_ours(&mut bed);
    }
    neighbour.attach(mode);
    if !ours_first {
        attach_ours(&mut bed).unwrap();
    }
    let seen = (bed.greeting(VIP, PORT), others(&bed));
    neighbour.detach();
    assert_eq!(bed.greeting(VIP, PORT), "one");
    seen
}

#[test]
fn a_multi_neighbour_above_us_decides_after_us_on_the_backend_whoever_came_first() {
    for ours_first in [true, false] {
        assert_eq!(beside_a_neighbour(Mode::Multi, ours_first), ("EPERM".into(), vec!["neighbour".into()]), "ours first: {ours_first}");
    }
}

#[test]
fn a_neighbour_above_us_that_is_not_multi_is_not_run_below_our_cgroup() {
    for (mode, ours_first) in [(Mode::Override, true), (Mode::Override, false), (Mode::Exclusive, true)] {
        assert_eq!(beside_a_neighbour(mode, ours_first), ("one".into(), vec![]), "{mode:?}, ours first: {ours_first}");
    }
}

#[test]
fn a_neighbour_that_never_saw_the_vip_can_not_forbid_it() {
    let (bed, _one, _two) = Bed::with_two_servers();
    let neighbour = on_node(&bed.rig, || Neighbour::that_forbids(VIP.parse().unwrap()));
    neighbour.attach(Mode::Multi);
    assert!(bed.connects(20).flawless());
}

#[test]
fn an_exclusive_neighbour_that_came_first_is_told_and_left_alone_until_it_goes() {
    let (mut bed, _one, _two) = Bed::with_two_servers();
    detach_ours(&mut bed);
    let neighbour = on_node(&bed.rig, || Neighbour::that_forbids(Ipv4Addr::new(192, 0, 2, 1)));
    neighbour.attach(Mode::Exclusive);
    let refused = attach_ours(&mut bed).expect_err("refused");
    assert!(matches!(refused, DatapathError::NotPermitted { .. }) && refused.to_string().contains("exclusively"), "{refused}");
    assert_eq!(others(&bed), ["neighbour"]);
    neighbour.detach();
    attach_ours(&mut bed).unwrap();
    assert_eq!(bed.greeting(VIP, PORT).len(), 3);
}

#[test]
fn unload_leaves_other_programs_and_other_pins_in_place() {
    let (bed, _one, _two) = Bed::with_two_servers();
    let neighbour = on_node(&bed.rig, || Neighbour::that_forbids(Ipv4Addr::new(192, 0, 2, 1)));
    neighbour.attach(Mode::Multi);
    let theirs = settings().bpffs.join("v1-of-somebody");
    on_node(&bed.rig, || std::fs::create_dir(&theirs).unwrap());
    on_node(&bed.rig, || datapath::unload(&settings().bpffs)).unwrap();
    await_others(&bed, &["neighbour"]);
    assert!(on_node(&bed.rig, || theirs.is_dir()));
}

/// The line of `redirector check` about other programs, with what it attaches to.
fn checked(bed: &Bed) -> datapath::Check {
    let checks = on_node(&bed.rig, || datapath::preflight(&settings(), &[CgroupSpec::Auto]));
    checks.into_iter().find(|check| check.name == "neighbours").unwrap()
}

#[test]
fn who_runs_before_ours_and_who_after_is_told() {
    let (mut bed, _one, _two) = Bed::with_two_servers();
    assert_eq!(checked(&bed).detail, "no other program is on our hooks");
    let address = Ipv4Addr::new(192, 0, 2, 1);
    detach_ours(&mut bed);
    let (above, beside) = on_node(&bed.rig, || (Neighbour::that_forbids(address), Neighbour::at("/sys/fs/cgroup/kubepods", address)));
    above.attach(Mode::Multi);
    beside.attach(Mode::Multi);
    attach_ours(&mut bed).unwrap();
    let found = on_node(&bed.rig, || datapath::others(&settings().bpffs, "/sys/fs/cgroup/kubepods".as_ref())).unwrap();
    let told: Vec<_> = found.iter().map(|other| (other.hook.as_str(), other.runs_first)).collect();
    // The one at the same cgroup came before ours; the one above runs last, whenever it came.
    assert_eq!(told, [("connect4", true), ("connect4", false)], "{found:?}");
    let check = checked(&bed);
    assert_eq!((check.outcome, check.detail.matches("neighbour (ID ").count()), (datapath::Outcome::Ok, 2), "{check:?}");
    beside.detach();
    above.detach();
}

#[test]
fn an_exclusive_neighbour_is_named_before_the_agent_starts() {
    let (mut bed, _one, _two) = Bed::with_two_servers();
    detach_ours(&mut bed);
    let neighbour = on_node(&bed.rig, || Neighbour::that_forbids(Ipv4Addr::new(192, 0, 2, 1)));
    neighbour.attach(Mode::Exclusive);
    let check = checked(&bed);
    assert_eq!(check.outcome, datapath::Outcome::Failed, "{check:?}");
    assert!(check.detail.contains("connect4 of /sys/fs/cgroup exclusively") && check.remedy.is_some(), "{check:?}");
    neighbour.detach();
}
