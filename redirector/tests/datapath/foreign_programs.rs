//! Foreign programs on our hooks, at our cgroup and above it: attached before ours and after, in
//! each mode.

use std::{net::Ipv4Addr, time::Duration};

use redirector::{
    config::CgroupSpec,
    datapath::{self, DatapathError},
};
use testbed::{
    foreign_program::{AttachMode, ForeignProgram, NAME, bpf_attach_type},
    topology::LOAD_BALANCERS,
};

use crate::rig::{Bed, PORT, VIP, on_node, settings};

/// The node's root cgroup: above `kubepods`, where our programs are attached.
const ROOT: &str = "/sys/fs/cgroup";

/// The cgroup that our programs are attached to.
const KUBEPODS: &str = "/sys/fs/cgroup/kubepods";

/// An address that no test connects to.
const UNUSED: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);

fn detach_ours(bed: &mut Bed) {
    on_node(&bed.rig, || bed.datapath.attach(&[]).unwrap());
    await_names(bed, &[]);
}

/// Waits until the programs at our cgroup have these names: the kernel detaches a link some time
/// after its last pin is removed.
fn await_names(bed: &Bed, expected: &[&str]) {
    let found = (0..500).any(|_| {
        std::thread::sleep(Duration::from_millis(10));
        foreign_names(bed) == expected
    });
    assert!(found, "{:?}", foreign_names(bed));
}

fn attach_ours(bed: &mut Bed) -> Result<(), DatapathError> {
    on_node(&bed.rig, || bed.datapath.attach(&datapath::cgroups(&[CgroupSpec::Auto])?).map(drop))
}

/// The foreign programs that are in effect where ours are.
fn foreign_programs(bed: &Bed) -> Vec<datapath::ForeignProgram> {
    on_node(&bed.rig, || datapath::foreign_programs(&settings().bpffs, KUBEPODS.as_ref())).unwrap()
}

fn foreign_names(bed: &Bed) -> Vec<String> {
    foreign_programs(bed).into_iter().filter_map(|program| program.name).collect()
}

/// Attaches a program above ours that forbids the only backend, before or after ours. Returns what
/// a connect gets, and which foreign programs are in effect.
fn with_foreign_program(mode: AttachMode, ours_first: bool) -> (String, Vec<String>) {
    let (mut bed, _one, _two) = Bed::with_two_servers();
    bed.put(&[], &LOAD_BALANCERS[..1]);
    let foreign = on_node(&bed.rig, || ForeignProgram::denying(ROOT, LOAD_BALANCERS[0]));
    if !ours_first {
        detach_ours(&mut bed);
    }
    foreign.attach(mode);
    if !ours_first {
        attach_ours(&mut bed).unwrap();
    }
    let seen = (bed.greeting(VIP, PORT), foreign_names(&bed));
    foreign.detach();
    assert_eq!(bed.greeting(VIP, PORT), "one");
    seen
}

#[test]
fn a_multi_program_above_ours_can_forbid_the_backend() {
    for ours_first in [true, false] {
        assert_eq!(
            with_foreign_program(AttachMode::Multi, ours_first),
            ("EPERM".into(), vec![NAME.into()]),
            "ours first: {ours_first}"
        );
    }
}

#[test]
fn a_program_above_ours_that_is_not_multi_does_not_run() {
    for (mode, ours_first) in
        [(AttachMode::Override, true), (AttachMode::Override, false), (AttachMode::Exclusive, true)]
    {
        assert_eq!(
            with_foreign_program(mode, ours_first),
            ("one".into(), vec![]),
            "{mode:?}, ours first: {ours_first}"
        );
    }
}

#[test]
fn a_program_above_ours_never_sees_the_vip() {
    let (bed, _one, _two) = Bed::with_two_servers();
    let foreign = on_node(&bed.rig, || ForeignProgram::denying(ROOT, VIP.parse().unwrap()));
    foreign.attach(AttachMode::Multi);
    assert!(bed.connects(20).flawless());
}

#[test]
fn an_exclusive_program_prevents_attaching_until_it_is_detached() {
    let (mut bed, _one, _two) = Bed::with_two_servers();
    detach_ours(&mut bed);
    let foreign = on_node(&bed.rig, || ForeignProgram::denying(ROOT, UNUSED));
    foreign.attach(AttachMode::Exclusive);
    let refused = attach_ours(&mut bed).expect_err("refused");
    assert!(
        matches!(refused, DatapathError::NotPermitted { .. })
            && refused.to_string().contains("exclusively"),
        "{refused}"
    );
    assert_eq!(foreign_names(&bed), [NAME]);
    foreign.detach();
    attach_ours(&mut bed).unwrap();
    assert_eq!(bed.greeting(VIP, PORT).len(), 3);
}

#[test]
fn unload_leaves_foreign_programs_and_pins_in_place() {
    let (bed, _one, _two) = Bed::with_two_servers();
    let foreign = on_node(&bed.rig, || ForeignProgram::denying(ROOT, UNUSED));
    foreign.attach(AttachMode::Multi);
    let foreign_pins = settings().bpffs.join("v1-foreign");
    on_node(&bed.rig, || std::fs::create_dir(&foreign_pins).unwrap());
    on_node(&bed.rig, || datapath::unload(&settings().bpffs)).unwrap();
    await_names(&bed, &[NAME]);
    assert!(on_node(&bed.rig, || foreign_pins.is_dir()));
}

/// The row of `redirector check` about foreign programs, with what it attaches to.
fn check_row(bed: &Bed) -> datapath::Check {
    let checks = on_node(&bed.rig, || datapath::preflight(&settings(), &[CgroupSpec::Auto]));
    checks.into_iter().find(|check| check.name == "foreign_programs").unwrap()
}

#[test]
fn foreign_programs_are_listed_in_their_order() {
    let (mut bed, _one, _two) = Bed::with_two_servers();
    assert_eq!(check_row(&bed).detail, "no other program is on our hooks");
    detach_ours(&mut bed);
    let (above, beside) = on_node(&bed.rig, || {
        (ForeignProgram::denying(ROOT, UNUSED), ForeignProgram::denying(KUBEPODS, UNUSED))
    });
    above.attach(AttachMode::Multi);
    beside.attach(AttachMode::Multi);
    attach_ours(&mut bed).unwrap();
    let found = foreign_programs(&bed);
    let order: Vec<_> =
        found.iter().map(|program| (program.hook.as_str(), program.runs_first)).collect();
    // The one at the same cgroup came before ours; the one above runs last in either order.
    assert_eq!(order, [("connect4", true), ("connect4", false)], "{found:?}");
    let check = check_row(&bed);
    assert_eq!(
        (check.outcome, check.detail.matches("foreign_program (ID ").count()),
        (datapath::Outcome::Ok, 2),
        "{check:?}"
    );
    beside.detach();
    above.detach();
}

#[test]
fn foreign_programs_on_sendmsg_and_recvmsg_are_listed() {
    let (bed, _one, _two) = Bed::with_two_servers();
    let hooks = [
        ("recvmsg4", bpf_attach_type::BPF_CGROUP_UDP4_RECVMSG),
        ("recvmsg6", bpf_attach_type::BPF_CGROUP_UDP6_RECVMSG),
        ("sendmsg4", bpf_attach_type::BPF_CGROUP_UDP4_SENDMSG),
        ("sendmsg6", bpf_attach_type::BPF_CGROUP_UDP6_SENDMSG),
    ];
    let attached = hooks.map(|(_, attach_type)| {
        let foreign = on_node(&bed.rig, || ForeignProgram::allowing(ROOT, attach_type));
        foreign.attach(AttachMode::Multi);
        foreign
    });
    let found: Vec<String> =
        foreign_programs(&bed).into_iter().map(|program| program.hook).collect();
    assert_eq!(found, hooks.map(|(name, _)| name));
    let check = check_row(&bed);
    for (name, _) in hooks {
        assert!(check.detail.contains(&format!(" on {name}")), "{check:?}");
    }
    attached.iter().for_each(ForeignProgram::detach);
    assert_eq!(foreign_names(&bed), Vec::<String>::new());
}

#[test]
fn check_names_an_exclusive_program() {
    let (mut bed, _one, _two) = Bed::with_two_servers();
    detach_ours(&mut bed);
    let foreign = on_node(&bed.rig, || ForeignProgram::denying(ROOT, UNUSED));
    foreign.attach(AttachMode::Exclusive);
    let check = check_row(&bed);
    assert_eq!(check.outcome, datapath::Outcome::Failed, "{check:?}");
    assert!(
        check.detail.contains("connect4 of /sys/fs/cgroup exclusively") && check.remedy.is_some(),
        "{check:?}"
    );
    foreign.detach();
}
