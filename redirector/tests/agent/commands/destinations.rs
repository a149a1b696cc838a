//! Destinations that no executor can use, and addresses that are not used.

use std::net::Ipv4Addr;

use testbed::process::until;

use crate::{
    rig::{Job, LIMIT},
    stage::{CONFIG, assert_cause},
};

#[test]
fn an_ipv6_only_destination_is_named_everywhere() {
    const NAME: &str = "six.internal.company.net";
    let job = Job::with_config(CONFIG);
    let added = job.cli(&["route", "add", NAME, "2001:db8::7"]);
    assert!(added.status.success(), "{}", added.text());
    assert!(added.stderr.contains("there is no pool.ipv6"), "{}", added.text());
    let status = job.json(&["status"]);
    let problems = status["problems"].as_array().unwrap();
    let named = |problem: &&serde_json::Value| problem["code"] == "unusable_family";
    let problem = problems.iter().find(named).unwrap_or_else(|| panic!("{status}"));
    assert_eq!((&problem["source"], &problem["degrades"]), (&NAME.into(), &true.into()));
    let words = ["IPv6 addresses only", "pool.ipv6"];
    assert_cause(&job, &["explain", NAME], "unusable_family", &words);
    assert_cause(&job, &["verify", NAME, "--timeout", "3"], "unusable_family", &words);
}

#[test]
fn addresses_that_a_name_must_not_have_are_shown() {
    let mut job = Job::with_config(CONFIG);
    let given = [[203, 0, 113, 7], [127, 0, 0, 1], [169, 254, 169, 254]].map(Ipv4Addr::from);
    job.dns.set_addresses(&given).unwrap();
    let show = || job.json(&["route", "show", testbed::topology::INTERNAL_NAME]);
    until("the rejected addresses", LIMIT, || {
        let rejected = show()["route"]["resolution"]["rejected"].clone();
        Ok(rejected.as_array().is_some_and(|rejected| rejected.len() == 2))
    })
    .unwrap();
    let backends = show()["route"]["backends"].clone();
    let addresses: Vec<_> =
        backends.as_array().unwrap().iter().map(|backend| &backend["address"]).collect();
    assert_eq!(addresses, ["203.0.113.7"]);
    let status = job.cli(&["status"]);
    for words in ["127.0.0.1 (loopback)", "169.254.169.254 (link-local)"] {
        assert!(status.stdout.contains(words), "{words}: {}", status.text());
    }
    let shown = job.cli(&["route", "show", testbed::topology::INTERNAL_NAME]);
    assert!(shown.stdout.contains("not used"), "{}", shown.text());
}
