//! Other programs on the same hooks, above our cgroup: theirs first and ours first, with each way
//! to attach.

use std::{net::Ipv4Addr, time::Duration};

use redirector::{
    config::CgroupSpec,
    datapath::{self, DatapathError},
};
use testbed::foreign_program::{AttachMode, ForeignProgram};
use testbed::topology::LOAD_BALANCERS;

use crate::rig::{Bed, PORT, VIP, on_node, settings};

/// The node's root, as its programs see it: above `kubepods`, where ours are.
const ROOT: &str = "/sys/fs/cgroup";

fn detach_ours(bed: &mut Bed) {
    on_node(&bed.rig, || bed.datapath.attach(&[]).unwrap());
    await_others(bed, &[]);
}

/// Returns when `expected` and nobody else are in effect: the kernel detaches a link some time
/// after the last pin of it has gone.
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
    let found = on_node(&bed.rig, || {
        datapath::foreign_programs(&settings().bpffs, "/sys/fs/cgroup/kubepods".as_ref())
    })
    .unwrap();
    found.into_iter().filter_map(|other| other.name).collect()
}

/// Puts a neighbour that forbids the only backend above us, before or after ours is attached: what
/// a connect gets, and who else is in effect.
fn beside_a_neighbour(mode: AttachMode, ours_first: bool) -> (String, Vec<String>) {
    let (mut bed, _one, _two) = Bed::with_two_servers();
    bed.put(&[], &LOAD_BALANCERS[..1]);
    let neighbour = on_node(&bed.rig, || ForeignProgram::at(ROOT, LOAD_BALANCERS[0]));
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
        assert_eq!(
            beside_a_neighbour(AttachMode::Multi, ours_first),
            ("EPERM".into(), vec!["neighbour".into()]),
            "ours first: {ours_first}"
        );
    }
}

#[test]
fn a_neighbour_above_us_that_is_not_multi_is_not_run_below_our_cgroup() {
    for (mode, ours_first) in
        [(AttachMode::Override, true), (AttachMode::Override, false), (AttachMode::Exclusive, true)]
    {
        assert_eq!(
            beside_a_neighbour(mode, ours_first),
            ("one".into(), vec![]),
            "{mode:?}, ours first: {ours_first}"
        );
    }
}

#[test]
fn a_neighbour_that_never_saw_the_vip_can_not_forbid_it() {
    let (bed, _one, _two) = Bed::with_two_servers();
    let neighbour = on_node(&bed.rig, || ForeignProgram::at(ROOT, VIP.parse().unwrap()));
    neighbour.attach(AttachMode::Multi);
    assert!(bed.connects(20).flawless());
}

#[test]
fn an_exclusive_neighbour_that_came_first_is_told_and_left_alone_until_it_goes() {
    let (mut bed, _one, _two) = Bed::with_two_servers();
    detach_ours(&mut bed);
    let neighbour = on_node(&bed.rig, || ForeignProgram::at(ROOT, Ipv4Addr::new(192, 0, 2, 1)));
    neighbour.attach(AttachMode::Exclusive);
    let refused = attach_ours(&mut bed).expect_err("refused");
    assert!(
        matches!(refused, DatapathError::NotPermitted { .. })
            && refused.to_string().contains("exclusively"),
        "{refused}"
    );
    assert_eq!(others(&bed), ["neighbour"]);
    neighbour.detach();
    attach_ours(&mut bed).unwrap();
    assert_eq!(bed.greeting(VIP, PORT).len(), 3);
}

#[test]
fn unload_leaves_other_programs_and_other_pins_in_place() {
    let (bed, _one, _two) = Bed::with_two_servers();
    let neighbour = on_node(&bed.rig, || ForeignProgram::at(ROOT, Ipv4Addr::new(192, 0, 2, 1)));
    neighbour.attach(AttachMode::Multi);
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
    let (above, beside) = on_node(&bed.rig, || {
        (ForeignProgram::at(ROOT, address), ForeignProgram::at("/sys/fs/cgroup/kubepods", address))
    });
    above.attach(AttachMode::Multi);
    beside.attach(AttachMode::Multi);
    attach_ours(&mut bed).unwrap();
    let found = on_node(&bed.rig, || {
        datapath::foreign_programs(&settings().bpffs, "/sys/fs/cgroup/kubepods".as_ref())
    })
    .unwrap();
    let told: Vec<_> = found.iter().map(|other| (other.hook.as_str(), other.runs_first)).collect();
    // The one at the same cgroup came before ours; the one above runs last, whenever it came.
    assert_eq!(told, [("connect4", true), ("connect4", false)], "{found:?}");
    let check = checked(&bed);
    assert_eq!(
        (check.outcome, check.detail.matches("neighbour (ID ").count()),
        (datapath::Outcome::Ok, 2),
        "{check:?}"
    );
    beside.detach();
    above.detach();
}

#[test]
fn an_exclusive_neighbour_is_named_before_the_agent_starts() {
    let (mut bed, _one, _two) = Bed::with_two_servers();
    detach_ours(&mut bed);
    let neighbour = on_node(&bed.rig, || ForeignProgram::at(ROOT, Ipv4Addr::new(192, 0, 2, 1)));
    neighbour.attach(AttachMode::Exclusive);
    let check = checked(&bed);
    assert_eq!(check.outcome, datapath::Outcome::Failed, "{check:?}");
    assert!(
        check.detail.contains("connect4 of /sys/fs/cgroup exclusively") && check.remedy.is_some(),
        "{check:?}"
    );
    neighbour.detach();
}
