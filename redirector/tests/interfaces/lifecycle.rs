//! From the first attachment to the unload.

use redirector::datapath::{self, InterfaceRole, TcHook, Version};
use redirector_common::{abi, names};

use crate::rig::{Bed, GUEST_PROGRAMS, hooks, settings, target};

#[test]
fn a_guest_gets_both_programs_and_the_host_gets_one() {
    for hook in hooks() {
        let mut bed = Bed::new(hook);
        let index = bed.veth("guest");
        bed.attach_guest("guest", index);
        bed.attach(&target("lo", 1, InterfaceRole::Host));
        let found = bed.run(|datapath| datapath.interface_attachments());
        assert_eq!(
            found.iter().map(|at| (at.index, at.role, at.hook)).collect::<Vec<_>>(),
            [(1, InterfaceRole::Host, hook), (index, InterfaceRole::Guest, hook)],
            "{found:?}"
        );
        assert_eq!(found[0].programs, [names::HOST_EGRESS]);
        assert_eq!(found[1].programs, GUEST_PROGRAMS);
        assert!(found[1].redirects && !found[0].redirects);
        let mut inspected = bed.inspected();
        inspected.sort_by_key(|at| at.index);
        assert_eq!(inspected, found);
    }
}

#[test]
fn a_restarted_agent_adopts_and_keeps_what_was_counted() {
    for hook in hooks() {
        let mut bed = Bed::new(hook);
        let index = bed.veth("guest");
        bed.attach_guest("guest", index);
        bed.count_flows(index, 3);
        let before = bed.order(index);
        bed.reopen(&Version::own());
        assert_eq!(bed.run(|datapath| datapath.pinned_interfaces().unwrap()), [index]);
        bed.attach_guest("guest", index);
        let after = bed.order(index);
        // The links or filters are the same; their programs are new.
        assert_eq!((before.len(), after.len()), (2, 2), "{before:?} {after:?}");
        assert_ne!(before, after);
        assert_eq!(bed.counted_flows(index), Some(3));
    }
}

#[test]
fn an_upgrade_swaps_the_programs_and_moves_the_pins() {
    for hook in hooks() {
        let mut bed = Bed::new(hook);
        let index = bed.veth("guest");
        bed.attach_guest("guest", index);
        bed.count_flows(index, 3);
        let newer = Version { abi: abi::ABI + 1, ..Version::own() };
        bed.reopen(&newer);
        assert_eq!(bed.run(|datapath| datapath.pinned_interfaces().unwrap()), [index]);
        bed.attach_guest("guest", index);
        assert_eq!(bed.order(index).len(), 2, "{:?}", bed.order(index));
        assert_eq!(bed.counted_flows(index), Some(3));
        assert_eq!(bed.names(&settings().bpffs), [format!("v{}", newer.abi)]);
        let dir = settings().bpffs.join(format!("v{}/interfaces/{index}", newer.abi));
        assert!(!bed.names(&dir).is_empty());
    }
}

#[test]
fn an_older_versions_interfaces_are_released_before_its_pins() {
    let mut bed = Bed::new(hooks()[0]);
    let (kept, released) = (bed.veth("kept"), bed.veth("released"));
    bed.attach_guest("kept", kept);
    bed.attach_guest("released", released);
    bed.reopen(&Version { abi: abi::ABI + 1, ..Version::own() });
    bed.attach_guest("kept", kept);
    assert_eq!(bed.order(released).len(), 2);
    assert_eq!(bed.names(&settings().bpffs).len(), 2);
    bed.run(|datapath| datapath.detach_interfaces(&[released]).unwrap());
    assert_eq!((bed.order(released).len(), bed.order(kept).len()), (0, 2));
    assert_eq!(bed.names(&settings().bpffs).len(), 1);
}

#[test]
fn unload_leaves_nothing_of_ours_and_everything_of_others() {
    for hook in hooks() {
        let mut bed = Bed::new(hook);
        let (guest, shared) = (bed.veth("guest"), bed.veth("shared"));
        bed.add_foreign_filter("shared", "ingress", 5);
        bed.attach_guest("guest", guest);
        bed.attach_guest("shared", shared);
        bed.attach(&target("lo", 1, InterfaceRole::Host));
        let removed = bed.run(|_| datapath::unload(&settings().bpffs)).unwrap();
        assert_eq!((removed.interfaces, removed.packet_programs), (3, 5), "{removed:?}");
        assert!(!bed.shell("ip netns list; ls /sys/fs/bpf").contains("redirector"));
        for index in [guest, shared, 1] {
            let left = bed.order(index);
            assert!(left.iter().all(|program| program.starts_with("foreign")), "{left:?}");
        }
        let qdiscs = bed.shell("tc qdisc show");
        assert_eq!(qdiscs.matches("clsact").count(), 1, "{qdiscs}");
        assert!(bed.shell("tc filter show dev shared ingress").contains("foreign"));
    }
}

#[test]
fn filters_are_removed_although_their_record_is_lost() {
    let mut bed = Bed::new(TcHook::Clsact);
    let index = bed.veth("guest");
    bed.attach_guest("guest", index);
    bed.shell("rm -r /sys/fs/bpf/redirector/*/interfaces/*");
    let removed = bed.run(|_| datapath::unload(&settings().bpffs)).unwrap();
    assert_eq!((removed.interfaces, removed.packet_programs), (1, 2), "{removed:?}");
    assert!(bed.order(index).is_empty(), "{:?}", bed.order(index));
}

#[test]
fn an_index_that_another_interface_gets_begins_from_nothing() {
    for hook in hooks() {
        let mut bed = Bed::new(hook);
        let index = bed.veth("first");
        bed.attach_guest("first", index);
        bed.count_flows(index, 3);
        bed.shell("ip link delete first");
        let namespace = bed.namespace();
        bed.shell(&format!(
            "ip link add second index {index} type veth peer name second netns {namespace}"
        ));
        // The agent missed both, or was not running.
        bed.reopen(&Version::own());
        bed.attach_guest("second", index);
        assert_eq!(bed.order(index).len(), 2, "{hook:?}");
        assert_eq!(bed.counted_flows(index), Some(0));
        let attachments = bed.inspected();
        assert_eq!(attachments[0].name.as_deref(), Some("second"), "{attachments:?}");
    }
}

#[test]
fn an_interface_that_is_gone_is_no_failure_and_leaves_no_pin() {
    for hook in hooks() {
        let mut bed = Bed::new(hook);
        let index = bed.veth("guest");
        bed.attach_guest("guest", index);
        bed.shell("ip link delete guest");
        bed.run(|datapath| {
            assert_eq!(datapath.check_interfaces(10).unwrap(), []);
            let gone = target("guest", index, InterfaceRole::Guest);
            datapath.detach_interfaces(&[index]).unwrap();
            assert!(datapath.attach_interfaces(&[gone]).unwrap().is_empty());
        });
        assert_eq!(bed.pins(index), Vec::<String>::new());
        assert_eq!(bed.counted_flows(index), None);
        assert!(bed.run(|datapath| datapath.interface_attachments()).is_empty());
    }
}

#[test]
fn a_changed_role_changes_the_programs() {
    for hook in hooks() {
        let mut bed = Bed::new(hook);
        let index = bed.veth("eth7");
        bed.attach_guest("eth7", index);
        bed.attach(&target("eth7", index, InterfaceRole::Host));
        assert_eq!(bed.order(index).len(), 1);
        assert_eq!(bed.counted_flows(index), None);
        // Also by an agent that did not attach it.
        bed.attach_guest("eth7", index);
        bed.reopen(&Version::own());
        bed.attach(&target("eth7", index, InterfaceRole::Host));
        assert_eq!(bed.order(index).len(), 1, "{hook:?}");
        let attachments = bed.inspected();
        assert_eq!(attachments[0].programs, [names::HOST_EGRESS], "{attachments:?}");
    }
}

#[test]
fn names_only_is_a_flag_and_keeps_the_programs() {
    let mut bed = Bed::new(hooks()[0]);
    let index = bed.veth("guest");
    bed.attach_guest("guest", index);
    let order = bed.order(index);
    let mut names_only = target("guest", index, InterfaceRole::Guest);
    names_only.redirects = false;
    bed.attach(&names_only);
    assert_eq!(bed.order(index), order);
    let attachments = bed.inspected();
    assert!(!attachments[0].redirects, "{attachments:?}");
}

#[test]
fn thousands_of_interfaces_cost_little_each() {
    const INTERFACES: u32 = 600;
    for hook in hooks() {
        let mut bed = Bed::new(hook);
        let targets = bed.pairs(INTERFACES / 2);
        let started = std::time::Instant::now();
        let failures = bed.run(|datapath| {
            datapath.attach(&[]).unwrap();
            datapath.attach_interfaces(&targets).unwrap()
        });
        let attached = started.elapsed();
        assert!(failures.is_empty(), "{failures:?}");
        let started = std::time::Instant::now();
        let found = bed.run(|datapath| datapath.check_interfaces(usize::MAX).unwrap());
        let checked = started.elapsed();
        assert_eq!(found, []);
        bed.reopen(&Version::own());
        let started = std::time::Instant::now();
        let failures = bed.run(|datapath| {
            datapath.attach(&[]).unwrap();
            datapath.attach_interfaces(&targets).unwrap()
        });
        let adopted = started.elapsed();
        assert!(failures.is_empty(), "{failures:?}");
        let each = [attached, checked, adopted].map(|time| time / INTERFACES);
        println!(
            "{hook:?}, each: attached {:?}, checked {:?}, adopted {:?}",
            each[0], each[1], each[2]
        );
        assert!(attached.as_secs() < 60 && checked.as_secs() < 5, "{each:?}");
    }
}
