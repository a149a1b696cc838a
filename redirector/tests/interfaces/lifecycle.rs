//! From the first attachment to the unload.

use redirector::datapath::InterfaceRole;
use redirector_common::names;

use crate::rig::{Bed, GUEST_PROGRAMS, hooks, target};

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
