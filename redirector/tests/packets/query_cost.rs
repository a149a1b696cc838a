//! What a query costs, printed for the reference of measured figures.

use redirector::datapath::{NameChange, PublishedName};
use redirector_common::names;

use crate::{
    frames::{Ends, frame},
    queries::wire,
    rig::Bed,
};

/// Runs of a program on one packet.
const REPEAT: u32 = 200_000;

/// Program time of look-ups with a full pool, less the time of a packet that is no query. A frame
/// without a socket is not answered at a host's egress, so the packet stays the same.
#[test]
fn look_ups_in_a_full_pool() {
    let mut bed = Bed::new();
    let put = |source: String, index| NameChange::Put {
        source: source.parse().unwrap(),
        name: PublishedName::live(index),
    };
    let exact = (0..64_536).map(|index| put(format!("r{index:05}.internal.company.net"), index));
    let wildcards = (64_536..65_536).map(|index| put(format!("*.w{index}.company.net"), index));
    bed.datapath.publish_names(&exact.chain(wildcards).collect::<Vec<_>>()).unwrap();
    let program = bed.program(names::HOST_EGRESS);
    let question = |name: &str| {
        let question = [&[0, 7, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0][..], &wire(name), &[0, 1, 0, 1]];
        frame(&Ends::v4(), &question.concat())
    };
    let mut other = question("www.example.test");
    other[37] = 54;
    let kinds = [
        ("not a query", other),
        ("exact", question("r12345.internal.company.net")),
        ("wildcard", question("build.w65000.company.net")),
        ("foreign", question("www.docs.download.example.com")),
        ("127 labels", question(&["a"; 127].join("."))),
    ];
    for round in 0..3 {
        for (kind, frame) in &kinds {
            println!("{round} {kind}: {} ns", program.time(frame, REPEAT).as_nanos());
        }
    }
}
