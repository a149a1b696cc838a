//! What a query costs: printed for the reference of measured figures, with limits that only a
//! mistake exceeds.

use std::time::Duration;

use redirector::datapath::{NameChange, PublishedName};
use redirector_common::names;

use crate::{
    frames::{Ends, frame},
    queries::wire,
    rig::{Bed, REDIRECT},
};

/// Runs of a program on one packet.
const REPEAT: u32 = 100_000;
/// Runs on a packet that the program changes.
const ANSWERS: u32 = 20_000;
/// Ten times what was measured.
const LIMIT: Duration = Duration::from_micros(5);

fn question(name: &str) -> Vec<u8> {
    let head = [0, 7, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    frame(&Ends::v4(), &[&head[..], &wire(name), &[0, 1, 0, 1]].concat())
}

/// A bed with a full pool of names, 1,000 of them wildcards.
fn full() -> Bed {
    let mut bed = Bed::new();
    let put = |source: String, index| NameChange::Put {
        source: source.parse().unwrap(),
        name: PublishedName::live(index),
    };
    let exact = (0..64_536).map(|index| put(format!("r{index:05}.internal.company.net"), index));
    let wildcards = (64_536..65_536).map(|index| put(format!("*.w{index}.company.net"), index));
    bed.datapath.publish_names(&exact.chain(wildcards).collect::<Vec<_>>()).unwrap();
    bed
}

/// Time of the whole program. A frame without a socket is not answered at a host's egress, so the
/// packet stays the same.
#[test]
fn look_ups_in_a_full_pool_stay_cheap() {
    let bed = full();
    let program = bed.program(names::HOST_EGRESS);
    let mut other = question("www.example.test");
    other[37] = 54;
    let kinds = [
        ("not a query", other),
        ("exact", question("r12345.internal.company.net")),
        ("wildcard", question("build.w65000.company.net")),
        ("foreign", question("www.docs.download.example.com")),
        ("127 labels", question(&["a"; 127].join("."))),
    ];
    for (kind, frame) in &kinds {
        let mut times = [0; 3].map(|_| program.time(frame, REPEAT));
        times.sort_unstable();
        println!("{kind}: {} ns", times[1].as_nanos());
        assert!(times[1] < LIMIT, "{kind}: {times:?}");
    }
}

/// Time of the whole program with its answer, each on a new packet: the median.
#[test]
fn answers_in_place_stay_cheap() {
    let bed = full();
    let program = bed.program(names::INGRESS);
    let mut edns = question("r12345.internal.company.net");
    let (dns, end) = (42, edns.len());
    edns[dns + 11] = 1;
    edns.extend([0, 0, 41, 16, 0, 0, 0, 0, 0, 0, 0]);
    for (at, length) in [(16, end + 11 - 14), (38, end + 11 - 34)] {
        edns[at..at + 2].copy_from_slice(&u16::try_from(length).unwrap().to_be_bytes());
    }
    let kinds = [
        ("exact", question("r12345.internal.company.net")),
        ("exact, EDNS", edns),
        ("wildcard", question("build.w65000.company.net")),
    ];
    for (kind, frame) in &kinds {
        let mut times: Vec<_> = (0..ANSWERS)
            .map(|_| {
                let (verdict, time) = program.timed(frame);
                assert_eq!(verdict, REDIRECT);
                time
            })
            .collect();
        times.sort_unstable();
        let median = times[times.len() / 2];
        println!("{kind}, answered: {} ns", median.as_nanos());
        assert!(median < LIMIT, "{kind}: {median:?}");
    }
}
