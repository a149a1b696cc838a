//! `cargo xtask soak`, short: clients of all kinds while agents, backends, names, routes and guests
//! fail by a fixed schedule.

use std::path::PathBuf;

use soak::{Options, ProfileName};

/// Its first episodes remove pins, change the destination, kill agent and load balancer, fill the
/// disk, silence an upstream and let a tenant attack.
const SEED: u64 = 8;
const MINUTES: f64 = 0.6;

#[test]
fn the_contract_holds_while_everything_goes_wrong() {
    let options = Options {
        profile: ProfileName::Mixed,
        attack: None,
        minutes: Some(MINUTES),
        seed: SEED,
        steps: None,
        keep_going: false,
        list: false,
        binary: Some(PathBuf::from(env!("CARGO_BIN_EXE_redirector"))),
        output: None,
    };
    let reports = soak::run(&options, |report| println!("{report}")).unwrap();
    let [report] = &reports[..] else { panic!("{} reports", reports.len()) };
    assert!(report.is_flawless(), "{report}");
    let faults: u64 = report.faults.values().sum();
    assert!(faults >= 5 && report.count("connect") > 1000, "{report}");
    assert!(report.count("mapped") > 1000 && report.count("unrelated") > 1000, "{report}");
}
