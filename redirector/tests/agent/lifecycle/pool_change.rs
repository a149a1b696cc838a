//! The configuration has another pool: a restart moves the routes there, and clients that remember
//! a virtual address of the former one are served for a time.

use testbed::{
    clients::{LoadOptions, LoadProcess},
    process::until,
    topology::INTERNAL_NAME,
};

use crate::rig::{Job, LIMIT};

const ROUTES: &str = "\
[[routes]]
source = \"artifactory.internal.company.net\"
destination = \"artifactory.public.company.net\"
";

fn with_pool(pool: &str) -> String {
    format!("[pool]\nipv4 = \"{pool}\"\n{ROUTES}")
}

/// The peer that a connect to an address gets.
fn peer(job: &Job, vip: &str) -> String {
    let line = format!(
        "python3 -c \"import socket; s = socket.create_connection(('{vip}', 8080), 5); \
            print(s.getpeername()[0])\""
    );
    job.shell(&line).trim().to_owned()
}

fn rules(job: &Job) -> String {
    job.on_node("ip rule; nft list ruleset")
}

#[test]
fn a_changed_pool_moves_every_route_and_loses_no_connect() {
    let mut job = Job::with_config(&with_pool("198.18.0.0/16"));
    let old = job.vip();
    let target = format!("{old}:8080").parse().unwrap();
    let options = LoadOptions::greeted_by(&["lb1", "lb2"], target, 100, 30.0);
    let load = LoadProcess::start(job.executor.sandbox(), &options).unwrap();
    // Names are answered without a gap, by packet.
    let mut asking = job.executor.sandbox().shell(&format!(
        "while [ ! -e stop ]; do getent ahostsv4 {INTERNAL_NAME} >/dev/null || echo failed; done"
    ));
    let asking = asking.stdout(std::process::Stdio::piped()).spawn().unwrap();

    job.agent.write_config(&with_pool("198.19.0.0/16")).unwrap();
    // Ready, although the maps are of another pool.
    let standby = job.agent.beside(&["--standby"]).unwrap();
    job.agent.sigterm().unwrap();
    job.agent = standby;
    job.wait_serving();
    let new = job.vip();
    assert_eq!(new, old.replace("198.18.", "198.19."), "the place in the pool stays");
    assert_eq!((peer(&job, &new), peer(&job, &old)), (new.clone(), old.clone()));
    let status = job.json(&["status"]);
    let problems = status["problems"].as_array().unwrap();
    let former = problems.iter().find(|one| one["code"] == "former_pool").unwrap();
    assert!(former["message"].as_str().unwrap().contains("198.18.0.0/16"), "{former}");
    assert_eq!(status["state"], "ok", "{status}");

    // So does the next start.
    job.agent.sigterm().unwrap();
    job.agent.restart().unwrap();
    assert_eq!((job.vip(), peer(&job, &old)), (new.clone(), old.clone()));
    job.shell("touch stop");
    let asked = asking.wait_with_output().unwrap();
    assert_eq!(String::from_utf8_lossy(&asked.stdout), "");
    let report = load.report().unwrap();
    assert!(report.flawless(), "{report:?}");
    assert_eq!(job.rig.customer.leaked_packets().unwrap(), 0);

    // Outside of the scope both are refused, and afterwards nothing is left.
    let rules_before = rules(&job);
    assert!(rules_before.contains("198.18.0.0/16") && rules_before.contains("198.19.0.0/16"));
    job.agent.sigterm().unwrap();
    let unloaded = job.cli(&["unload"]);
    assert!(unloaded.status.success(), "{}", unloaded.text());
    let left = rules(&job);
    assert!(!left.contains("198.18.0.0/16") && !left.contains("198.19.0.0/16"), "{left}");
    assert_eq!(job.on_node("find /sys/fs/bpf -name 'v[0-9]*'"), "");
}

/// Such a route may be why the pool was changed.
#[test]
fn a_former_pool_that_something_else_uses_ends_at_once() {
    let mut job = Job::with_config(&with_pool("198.18.0.0/16"));
    let _ = job.vip();
    job.agent.sigterm().unwrap();
    job.on_node("ip route add 198.18.64.0/24 dev lo");
    job.agent.write_config(&with_pool("10.99.0.0/24")).unwrap();
    job.agent.restart().unwrap();
    let vip = job.vip();
    assert!(vip.starts_with("10.99.0."), "{vip}");
    assert_eq!(peer(&job, &vip), vip);
    until("the former pool to go", LIMIT, || {
        let pins = job.on_node("ls /sys/fs/bpf/redirector");
        Ok(pins.lines().count() == 1 && !rules(&job).contains("198.18.0.0/16"))
    })
    .unwrap();
    assert_eq!(peer(&job, &vip), vip);
}

#[test]
fn a_failed_start_with_another_pool_changes_nothing() {
    let mut job = Job::with_config(&with_pool("198.18.0.0/16"));
    let vip = job.vip();
    job.agent.sigterm().unwrap();
    let read = |job: &Job| job.rig.node.sandbox().read("/var/lib/redirector/leases.json").unwrap();
    let (leases, before) = (read(&job), rules(&job));
    // Found after the new programs are loaded.
    job.on_node("ip route add 198.19.0.0/16 dev lo");
    job.agent.write_config(&with_pool("198.19.0.0/16")).unwrap();
    assert!(job.agent.restart().is_err(), "the pool is routed");
    assert_eq!((read(&job), rules(&job)), (leases, before));
    assert_eq!(job.on_node("ls /sys/fs/bpf/redirector").lines().count(), 1);
    assert_eq!(peer(&job, &vip), vip);
    job.agent.write_config(&with_pool("198.18.0.0/16")).unwrap();
    job.agent.restart().unwrap();
    assert_eq!(job.vip(), vip);
}
