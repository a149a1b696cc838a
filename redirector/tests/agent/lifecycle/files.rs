//! The agent's files: configurations that were lost, directories that two agents would share.

use std::time::{Duration, Instant};

use testbed::process::until;

use crate::rig::{Job, LIMIT};

const CONFIG: &str = "\
[[routes]]
source = \"artifactory.internal.company.net\"
destination = \"artifactory.public.company.net\"
[[routes]]
source = \"registry.internal.company.net\"
destination = \"203.0.113.7\"
ports = [443]
";

/// What `status` says about the file.
fn config_error(job: &Job) -> String {
    let status = job.json(&["status"]);
    status["config"]["error"].as_str().unwrap_or_default().to_owned()
}

#[test]
fn a_lost_configuration_file_withdraws_no_route() {
    let mut job = Job::with_config(CONFIG);
    let vip = job.vip();
    let within = &CONFIG[..CONFIG.len() - 2];
    for (lost, expected) in [("", "routes = []"), ("# all\n", "routes = []"), (within, "ports")] {
        job.agent.write_config(lost).unwrap();
        until("the file to be refused", LIMIT, || Ok(config_error(&job).contains(expected)))
            .unwrap();
        assert_eq!(job.vip(), vip);
        let status = job.cli(&["status"]);
        assert_eq!(status.status.code(), Some(1), "degraded: {}", status.text());
    }
    // The next start finds nothing better.
    for lost in ["", "[[routes]]\nsource = \"artif"] {
        job.agent.sigterm().unwrap();
        job.agent.write_config(lost).unwrap();
        job.agent.restart().unwrap();
        assert_eq!(job.vip(), vip);
        assert!(!config_error(&job).is_empty(), "{}", job.cli(&["status"]).text());
    }
    job.agent.write_config(CONFIG).unwrap();
    until("the file to be read", LIMIT, || Ok(config_error(&job).is_empty())).unwrap();
    // An operator may remove every route.
    job.agent.write_config("routes = []\n").unwrap();
    until("the routes to go", LIMIT, || {
        Ok(job.json(&["route", "list"])["routes"].as_array().is_some_and(Vec::is_empty))
    })
    .unwrap();
}

#[test]
fn a_file_that_lost_its_directories_still_finds_them() {
    let agent = "[agent]\nrun_dir = \"/run/redirector/own\"\n\
        state_dir = \"/var/lib/redirector/own\"\n";
    let mut job = Job::with_config(&format!("{agent}{CONFIG}"));
    let vip = job.vip();
    for lost in ["", "# all\n", "[[routes]]\nsource = \"artif", CONFIG] {
        job.agent.write_config(lost).unwrap();
        let is_edit = lost == CONFIG;
        if !is_edit {
            // Of the agent that runs.
            until("the file to be refused", LIMIT, || Ok(!config_error(&job).is_empty())).unwrap();
            assert_eq!(job.cli(&["status"]).status.code(), Some(1), "degraded");
        }
        job.agent.sigterm().unwrap();
        job.agent.restart().unwrap();
        assert_eq!(job.vip(), vip, "{lost:?}");
        assert_eq!(config_error(&job).is_empty(), is_edit, "{lost:?}");
    }
    // The last file is whole: its agent has the default directories.
    assert_eq!(
        job.on_node("ls /run/redirector/control.sock").trim(),
        "/run/redirector/control.sock"
    );
}

#[test]
fn a_file_that_cannot_be_read_shows_no_other_agent() {
    let job = Job::with_config(CONFIG);
    for command in ["status", "unload"] {
        let ended = job.cli(&["--config", "/etc/redirector/of-another.toml", command]);
        assert_eq!(ended.status.code(), Some(2), "{}", ended.text());
        assert!(ended.stderr.contains("/etc/redirector/of-another.toml"), "{}", ended.text());
    }
    assert_eq!(job.cli(&["status"]).status.code(), Some(0));
}

fn state_problem(job: &Job, code: &str) -> bool {
    let status = job.json(&["status"]);
    let problems = status["problems"].as_array().cloned().unwrap_or_default();
    problems.iter().any(|problem| problem["code"] == code)
}

#[test]
fn a_start_on_a_full_disk_serves_and_refuses_changes() {
    let mut job = Job::with_config(CONFIG);
    let vip = job.vip();
    let add = ["route", "add", "new.internal.company.net", "203.0.113.7"];
    // The journal of the last run has to be compacted at the start.
    let before = job.cli(&["route", "add", "old.internal.company.net", "203.0.113.7"]);
    assert!(before.status.success(), "{}", before.text());
    job.agent.sigterm().unwrap();
    job.on_node(
        "s=/var/lib/redirector && cp -a $s /run/copy && mount -t tmpfs -o size=1m full $s && \
         cp -a /run/copy/. $s && ! dd if=/dev/zero of=$s/fill bs=4k 2>/dev/null",
    );
    job.agent.restart().unwrap();
    assert_eq!(job.vip(), vip);
    assert!(state_problem(&job, "state_unwritable"), "{}", job.cli(&["status"]).text());
    let refused = job.cli(&add);
    assert!(!refused.status.success(), "{}", refused.text());
    job.on_node("rm /var/lib/redirector/fill");
    until("the state to be saved", LIMIT, || Ok(!state_problem(&job, "state_unwritable"))).unwrap();
    let added = job.cli(&add);
    assert!(added.status.success(), "{}", added.text());
}

#[test]
fn removed_directories_are_restored() {
    let config = format!("[agent]\nstate_dir = \"/run/state/redirector\"\n{CONFIG}");
    let mut job = Job::with_config(&config);
    let added = job.cli(&["route", "add", "new.internal.company.net", "203.0.113.7"]);
    assert!(added.status.success(), "{}", added.text());
    let list = |job: &Job| job.json(&["route", "list"])["routes"].as_array().map(Vec::len);
    job.on_node("rm -rf /run/state /run/redirector");
    until("the socket and the files to be restored", LIMIT, || {
        let status = job.cli(&["status"]);
        let files = job.rig.node.sandbox().read("/run/state/redirector/routes.json");
        Ok(status.status.success() && files.is_ok_and(|text| text.contains("new.internal")))
    })
    .unwrap();
    assert!(state_problem(&job, "restored"), "{}", job.cli(&["status"]).text());
    job.agent.sigterm().unwrap();
    job.agent.restart().unwrap();
    assert_eq!(list(&job), Some(3));
}

#[test]
fn a_start_that_fails_changes_no_state() {
    let mut job = Job::with_config(CONFIG);
    let vip = job.vip();
    job.agent.sigterm().unwrap();
    let leases = job.rig.node.sandbox().read("/var/lib/redirector/leases.json").unwrap();
    let other = "[pool]\nipv4 = \"10.99.0.0/29\"\n[agent]\nadmin = \"192.0.2.1:1\"\n";
    job.agent.write_config(&format!("{other}{CONFIG}")).unwrap();
    assert!(job.agent.restart().is_err(), "192.0.2.1 is not an address of the node");
    let after = job.rig.node.sandbox().read("/var/lib/redirector/leases.json").unwrap();
    assert_eq!(leases, after);
    job.agent.write_config(CONFIG).unwrap();
    job.agent.restart().unwrap();
    assert_eq!(job.vip(), vip);
}

#[test]
fn a_second_agent_cannot_take_the_datapath_over() {
    let job = Job::with_config(CONFIG);
    let path = "/etc/redirector/second.toml";
    let own = "[agent]\nrun_dir = \"/run/second\"\nstate_dir = \"/var/lib/redirector/second\"\n\
        admin = \"off\"\n[dns]\nlisten = [\"127.0.0.77:53\"]\n";
    job.rig.node.sandbox().write(path, own).unwrap();
    let began = Instant::now();
    let second = job.cli(&["--config", path, "run"]);
    assert_eq!(second.status.code(), Some(1), "{}", second.text());
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
    assert!(
        second.stderr.contains("another agent") && second.stderr.contains("/sys/fs/bpf"),
        "{}",
        second.text()
    );
    let unloaded = job.cli(&["--config", path, "unload"]);
    assert_eq!(unloaded.status.code(), Some(1), "{}", unloaded.text());
    let status = job.cli(&["status"]);
    assert_eq!(status.status.code(), Some(0), "{}", status.text());
    let _ = job.vip();
}
