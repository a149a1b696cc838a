//! Foreign programs on our hooks, and one that prevents attaching.

use std::net::Ipv4Addr;

use serde_json::Value;
use testbed::{
    foreign_program::{AttachMode, ForeignProgram},
    process::until,
};

use crate::{
    attach::cgroups::on_node,
    rig::{Job, LIMIT},
    stage::ask,
};

const CONFIG: &str = "\
[[routes]]
source = \"artifactory.internal.company.net\"
destination = \"artifactory.public.company.net\"
";
/// An address that no test connects to.
const NOWHERE: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
const KUBEPODS: &str = "/sys/fs/cgroup/kubepods";

fn datapath(job: &Job) -> Value {
    serde_json::from_str::<Value>(&job.cli(&["status", "-o", "json"]).stdout).unwrap()["datapath"]
        .take()
}

#[test]
fn status_and_explain_show_a_foreign_program() {
    let job = Job::with_config(CONFIG);
    assert_eq!(datapath(&job)["foreign_programs"], Value::Array(vec![]));
    let foreign = on_node(&job, || ForeignProgram::denying(KUBEPODS, NOWHERE));
    foreign.attach(AttachMode::Multi);
    let program = &datapath(&job)["foreign_programs"][0];
    assert_eq!(
        (program["cgroup"].as_str(), program["hook"].as_str()),
        (Some(KUBEPODS), Some("connect4")),
        "{program}"
    );
    assert_eq!(
        (program["name"].as_str(), program["runs_first"].as_bool()),
        (Some("foreign_program"), Some(false)),
        "{program}"
    );
    let status = job.cli(&["status"]);
    assert!(status.status.success(), "it does not degrade: {}", status.text());
    let words = format!(
        "foreign    foreign_program (ID {}) is on connect4 of {KUBEPODS} and runs after ours",
        program["id"]
    );
    assert!(status.stdout.contains(&words), "{}", status.text());
    let (explained, finished) = ask(&job, &["explain", testbed::topology::INTERNAL_NAME]);
    let finding = &explained["findings"][0];
    assert_eq!(
        (&finding["code"], &finding["prevents"]),
        (&"foreign_program".into(), &false.into()),
        "{}",
        finished.text()
    );
    assert!(
        finding["cause"].as_str().unwrap().contains("connect4 too: foreign_program (ID "),
        "{finding}"
    );
    foreign.detach();
    assert_eq!(datapath(&job)["foreign_programs"], Value::Array(vec![]));
}

#[test]
fn an_exclusive_foreign_program_leaves_its_cgroup_pending() {
    let job =
        Job::with_config(&format!("[attach]\ncgroups = [\"kubepods\", \"kept/*\"]\n{CONFIG}"));
    assert_eq!(datapath(&job)["pending_attachments"], Value::Array(vec![]));
    let foreign = on_node(&job, || {
        std::fs::create_dir("/sys/fs/cgroup/kept").unwrap();
        let foreign = ForeignProgram::denying("/sys/fs/cgroup/kept", NOWHERE);
        foreign.attach(AttachMode::Exclusive);
        std::fs::create_dir("/sys/fs/cgroup/kept/job").unwrap();
        foreign
    });
    until("a pending cgroup", LIMIT, || {
        Ok(datapath(&job)["pending_attachments"][0]["cgroup"] == "/sys/fs/cgroup/kept/job")
    })
    .unwrap();
    let datapath_info = datapath(&job);
    assert!(
        datapath_info["pending_attachments"][0]["reason"].as_str().unwrap().contains("exclusively"),
        "{datapath_info}"
    );
    assert_eq!(
        datapath_info["attachments"].as_array().unwrap().len(),
        1,
        "the other cgroup is attached: {datapath_info}"
    );
    let status = job.cli(&["status"]);
    assert_eq!(status.status.code(), Some(1), "{}", status.text());
    assert!(
        status.stdout.contains("! attaching failed: ") && status.stdout.contains("exclusively"),
        "{}",
        status.text()
    );

    // The agent keeps retrying.
    foreign.detach();
    until("the cgroup to be attached", LIMIT, || {
        Ok(datapath(&job)["attachments"].as_array().unwrap().len() == 2)
    })
    .unwrap();
    assert_eq!(datapath(&job)["pending_attachments"], Value::Array(vec![]));
    assert!(job.cli(&["status"]).status.success());
}
