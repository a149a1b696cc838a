//! Programs of others beside ours, and one that keeps ours away, as a running agent tells them.

use std::net::Ipv4Addr;

use serde_json::Value;
use testbed::foreign_program::{AttachMode, ForeignProgram};
use testbed::process::until;

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
/// Nobody connects there.
const NOWHERE: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
const KUBEPODS: &str = "/sys/fs/cgroup/kubepods";

fn datapath(job: &Job) -> Value {
    serde_json::from_str::<Value>(&job.cli(&["status", "-o", "json"]).stdout).unwrap()["datapath"]
        .take()
}

#[test]
fn a_program_beside_ours_is_told_by_status_and_explain() {
    let job = Job::with_config(CONFIG);
    assert_eq!(datapath(&job)["foreign_programs"], Value::Array(vec![]));
    let neighbour = on_node(&job, || ForeignProgram::denying(KUBEPODS, NOWHERE));
    neighbour.attach(AttachMode::Multi);
    let told = &datapath(&job)["foreign_programs"][0];
    assert_eq!(
        (told["cgroup"].as_str(), told["hook"].as_str()),
        (Some(KUBEPODS), Some("connect4")),
        "{told}"
    );
    assert_eq!(
        (told["name"].as_str(), told["runs_first"].as_bool()),
        (Some("foreign_program"), Some(false)),
        "{told}"
    );
    let status = job.cli(&["status"]);
    assert!(status.status.success(), "it is no trouble: {}", status.text());
    let words = format!(
        "neighbours foreign_program (ID {}) is on connect4 of {KUBEPODS}, too, and runs after ours",
        told["id"]
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
        finding["cause"].as_str().unwrap().contains("connect4 as well: foreign_program (ID "),
        "{finding}"
    );
    neighbour.detach();
    assert_eq!(datapath(&job)["foreign_programs"], Value::Array(vec![]));
}

#[test]
fn a_cgroup_that_ours_are_kept_away_from_waits_and_is_told_with_the_reason() {
    let job =
        Job::with_config(&format!("[attach]\ncgroups = [\"kubepods\", \"kept/*\"]\n{CONFIG}"));
    assert_eq!(datapath(&job)["pending_attachments"], Value::Array(vec![]));
    let neighbour = on_node(&job, || {
        std::fs::create_dir("/sys/fs/cgroup/kept").unwrap();
        let neighbour = ForeignProgram::denying("/sys/fs/cgroup/kept", NOWHERE);
        neighbour.attach(AttachMode::Exclusive);
        std::fs::create_dir("/sys/fs/cgroup/kept/job").unwrap();
        neighbour
    });
    until("a cgroup to wait", LIMIT, || {
        Ok(datapath(&job)["pending_attachments"][0]["cgroup"] == "/sys/fs/cgroup/kept/job")
    })
    .unwrap();
    let told = datapath(&job);
    assert!(
        told["pending_attachments"][0]["reason"].as_str().unwrap().contains("exclusively"),
        "{told}"
    );
    assert_eq!(told["attachments"].as_array().unwrap().len(), 1, "the others are attached: {told}");
    let status = job.cli(&["status"]);
    assert_eq!(status.status.code(), Some(1), "{}", status.text());
    assert!(
        status.stdout.contains("! attaching failed: ") && status.stdout.contains("exclusively"),
        "{}",
        status.text()
    );

    // It goes on trying.
    neighbour.detach();
    until("the cgroup to be attached", LIMIT, || {
        Ok(datapath(&job)["attachments"].as_array().unwrap().len() == 2)
    })
    .unwrap();
    assert_eq!(datapath(&job)["pending_attachments"], Value::Array(vec![]));
    assert!(job.cli(&["status"]).status.success());
}
