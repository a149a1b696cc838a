//! Foreign programs on the same hooks: ours go first, and get to the front again.

use redirector::datapath::{self, TcHook};
use testbed::foreign_filter::{CONTINUES, ENDS_THE_CHAIN, ForeignFilter, TcxOrder};

use crate::rig::{Bed, hooks, settings};

fn has_tcx() -> bool {
    hooks().contains(&TcHook::Tcx)
}

#[test]
fn ours_go_in_front_of_a_link_that_is_there() {
    if !has_tcx() {
        return;
    }
    let mut bed = Bed::new(TcHook::Tcx);
    let index = bed.veth("guest");
    let _link = bed.run(|_| {
        let foreign = ForeignFilter::returning(ENDS_THE_CHAIN).unwrap();
        foreign.attach_tcx(index, true, TcxOrder::First).unwrap()
    });
    bed.attach_guest("guest", index);
    assert_eq!(bed.run(|datapath| datapath.check_interfaces(10).unwrap()), []);
    let foreign = bed.run(|_| datapath::foreign_filters(&settings().bpffs, index)).unwrap();
    assert_eq!(foreign.len(), 1, "{foreign:?}");
    assert_eq!((foreign[0].hook.as_str(), foreign[0].runs_first), ("tcx ingress", false));
}

#[test]
fn a_link_that_gets_in_front_later_is_overtaken_once() {
    if !has_tcx() {
        return;
    }
    let mut bed = Bed::new(TcHook::Tcx);
    let index = bed.veth("guest");
    bed.attach_guest("guest", index);
    let (_first, foreign) = bed.run(|_| {
        let foreign = ForeignFilter::returning(ENDS_THE_CHAIN).unwrap();
        (foreign.attach_tcx(index, true, TcxOrder::First).unwrap(), foreign)
    });
    let before = bed.run(|_| datapath::foreign_filters(&settings().bpffs, index)).unwrap();
    assert!(before[0].runs_first, "{before:?}");
    let findings = bed.run(|datapath| datapath.check_interfaces(10).unwrap());
    assert_eq!(findings.len(), 1, "{findings:?}");
    assert_eq!(findings[0].overtaken, [format!("tcx ingress: ID {}", before[0].id)]);
    assert!(findings[0].preceded_by.is_empty() && !findings[0].was_missing, "{findings:?}");
    let after = bed.run(|_| datapath::foreign_filters(&settings().bpffs, index)).unwrap();
    assert!(!after[0].runs_first, "{after:?}");
    assert_eq!(bed.run(|datapath| datapath.check_interfaces(10).unwrap()), []);
    // One that insists gets no race: it is reported.
    let _second = bed.run(|_| foreign.attach_tcx(index, false, TcxOrder::First).unwrap());
    let findings = bed.run(|datapath| datapath.check_interfaces(10).unwrap());
    assert_eq!(findings[0].preceded_by.len(), 1, "{findings:?}");
    assert_eq!(bed.run(|datapath| datapath.check_interfaces(10).unwrap()), []);
    let attachments = bed.run(|datapath| datapath.interface_attachments());
    assert_eq!((attachments[0].reattached, attachments[0].preceded_by.len()), (1, 1));
}

#[test]
fn programs_that_were_removed_are_attached_again() {
    let detach = "for link in /sys/fs/bpf/redirector/*/interfaces/*/*; do \
                  bpftool link detach pinned $link || exit 1; done";
    for hook in hooks() {
        let removals: &[(&str, usize)] = match hook {
            TcHook::Tcx => &[(detach, 0)],
            TcHook::Clsact => {
                &[("tc qdisc del dev guest clsact", 0), ("tc filter del dev guest ingress", 1)]
            }
        };
        let mut bed = Bed::new(hook);
        let index = bed.veth("guest");
        bed.attach_guest("guest", index);
        for (removal, left) in removals {
            bed.shell(removal);
            assert_eq!(bed.order(index).len(), *left, "{removal}");
            let findings = bed.run(|datapath| datapath.check_interfaces(10).unwrap());
            assert!(findings.len() == 1 && findings[0].was_missing, "{removal}: {findings:?}");
            assert_eq!(bed.order(index).len(), 2, "{removal}");
            assert_eq!(bed.run(|datapath| datapath.check_interfaces(10).unwrap()), []);
        }
    }
}

#[test]
fn removed_pins_of_interfaces_detach_nothing_and_are_restored() {
    for hook in hooks() {
        let mut bed = Bed::new(hook);
        let index = bed.veth("guest");
        bed.attach_guest("guest", index);
        let mut pins = bed.pins(index);
        // Nobody knows then who made the qdisc, so `unload` leaves it.
        pins.retain(|pin| pin != "clsact_added");
        bed.shell("rm -r /sys/fs/bpf/redirector/*/interfaces/*");
        assert_eq!(bed.order(index).len(), 2, "{hook:?}");
        let findings = bed.run(|datapath| datapath.check_interfaces(10).unwrap());
        assert!(findings.len() == 1 && findings[0].was_unpinned, "{findings:?}");
        assert!(!findings[0].was_missing, "{findings:?}");
        assert_eq!(bed.pins(index), pins);
        assert_eq!(bed.run(|datapath| datapath.check_interfaces(10).unwrap()), []);
    }
}

#[test]
fn a_filter_of_the_first_priority_shares_it_and_is_overtaken() {
    let mut bed = Bed::new(TcHook::Clsact);
    let index = bed.veth("guest");
    bed.add_foreign_filter("guest", "ingress", 1);
    bed.attach_guest("guest", index);
    assert!(bed.order(index)[0].starts_with("rd_ingress "), "{:?}", bed.order(index));
    bed.add_foreign_filter("guest", "egress", 1);
    let findings = bed.run(|datapath| datapath.check_interfaces(10).unwrap());
    assert_eq!(findings.len(), 1, "{findings:?}");
    assert!(findings[0].overtaken[0].starts_with("clsact egress: foreign"), "{findings:?}");
    assert!(findings[0].preceded_by.is_empty(), "{findings:?}");
    assert_eq!(bed.run(|datapath| datapath.check_interfaces(10).unwrap()), []);
}

#[test]
fn a_filter_that_must_stay_in_front_is_reported() {
    let mut bed = Bed::new(TcHook::Clsact);
    let index = bed.veth("guest");
    // All filters of one priority are of one kind and protocol.
    bed.add_foreign_filter_for("ip", "guest", "ingress", 1);
    bed.attach_guest("guest", index);
    let findings = bed.run(|datapath| datapath.check_interfaces(10).unwrap());
    let reported = &findings[0].preceded_by;
    assert!(reported.len() == 1 && reported[0].ends_with("priority 1"), "{findings:?}");
    assert_eq!(bed.run(|datapath| datapath.check_interfaces(10).unwrap()), []);
    let attachments = bed.run(|datapath| datapath.interface_attachments());
    assert_eq!((attachments[0].reattached, attachments[0].preceded_by.len()), (0, 1));
}

#[test]
fn an_ingress_qdisc_is_named_as_the_obstacle() {
    let mut bed = Bed::new(TcHook::Clsact);
    let index = bed.veth("guest");
    bed.shell("tc qdisc add dev guest ingress");
    let failures = bed.run(|datapath| {
        datapath.attach(&[]).unwrap();
        let target = crate::rig::target("guest", index, datapath::InterfaceRole::Guest);
        datapath.attach_interfaces(&[target]).unwrap()
    });
    let reason = format!("{:#}", anyhow::Error::msg(failures[0].error.to_string()));
    let source = std::error::Error::source(&failures[0].error).map(ToString::to_string);
    assert!(source.is_some_and(|text| text.contains("`ingress` qdisc")), "{reason}");
    // Both or none, and the owner's qdisc stays.
    assert!(bed.order(index).is_empty(), "{:?}", bed.order(index));
    assert!(bed.shell("tc qdisc show dev guest").contains("ingress"));
}

#[test]
fn a_neighbour_that_continues_sees_packets_after_ours() {
    if !has_tcx() {
        return;
    }
    let mut bed = Bed::new(TcHook::Tcx);
    let index = bed.veth("guest");
    bed.attach_guest("guest", index);
    let _last = bed.run(|_| {
        let foreign = ForeignFilter::returning(CONTINUES).unwrap();
        foreign.attach_tcx(index, true, TcxOrder::Last).unwrap()
    });
    assert_eq!(bed.run(|datapath| datapath.check_interfaces(10).unwrap()), []);
    let programs = bed.run(|_| datapath::foreign_filters(&settings().bpffs, index)).unwrap();
    assert!(programs.len() == 1 && !programs[0].runs_first, "{programs:?}");
}
