//! Cgroups by what people name: presets, `auto`, and a change of them by a reload.

use std::{
    fs,
    path::Path,
    time::{Duration, Instant},
};

use testbed::{
    agent::CONFIG_PATH,
    process::{is_machine_busy, until},
    topology::INTERNAL_NAME,
};

use crate::{
    attach::cgroups::{await_attached, greets, on_node},
    rig::{Job, LIMIT},
};

fn config(cgroups: &str) -> String {
    format!(
        "[attach]\ncgroups = {cgroups}\ninterfaces = \"off\"\n[[routes]]\nsource = \
            \"{INTERNAL_NAME}\"\ndestination = \"artifactory.public.company.net\"\n"
    )
}

fn make(job: &Job, cgroups: &[&str]) {
    on_node(job, || {
        for cgroup in cgroups {
            fs::create_dir_all(Path::new("/sys/fs/cgroup").join(cgroup)).unwrap();
        }
    });
}

fn attached_to(job: &Job) -> Vec<String> {
    let status = job.json(&["status"]);
    let attachments = status["datapath"]["attachments"].as_array().unwrap().iter();
    let mut paths: Vec<_> = attachments
        .map(|at| at["cgroup"].as_str().unwrap().trim_start_matches("/sys/fs/cgroup/").to_owned())
        .collect();
    paths.sort();
    paths
}

fn await_attached_to(job: &Job, cgroups: &[&str]) {
    until("the cgroups to be attached", LIMIT, || Ok(attached_to(job) == cgroups))
        .unwrap_or_else(|error| panic!("{error:#}: {:?}", attached_to(job)));
}

/// As [`await_attached_to`], sooner than a periodic scan would attach.
fn assert_attached_soon(job: &Job, cgroups: &[&str]) {
    let started = Instant::now();
    await_attached_to(job, cgroups);
    let took = started.elapsed();
    assert!(took < Duration::from_secs(5) || is_machine_busy(), "{cgroups:?}: after {took:?}");
}

/// The paths that `status` names as missing.
fn missing(job: &Job) -> Vec<String> {
    let status = job.json(&["status"]);
    let problems = status["problems"].as_array().unwrap().iter();
    let messages = problems
        .filter(|problem| problem["code"] == "not_attached")
        .map(|problem| problem["message"].as_str().unwrap());
    let quoted = messages
        .filter(|message| message.contains("in attach.cgroups is not a cgroup"))
        .map(|message| message.split('`').nth(1).unwrap().to_owned());
    quoted.collect()
}

/// The body and the status of `POST /v1/reload`.
fn reload(job: &Job, cgroups: &str) -> (serde_json::Value, u16) {
    job.rig.node.sandbox().write(CONFIG_PATH, &config(cgroups)).unwrap();
    let reply = job.on_node(
        "curl -sS --max-time 30 --unix-socket /run/redirector/control.sock -X POST \
            -w '\\n%{http_code}' http://agent/v1/reload",
    );
    let (body, code) = reply.trim().rsplit_once('\n').unwrap();
    (serde_json::from_str(body).unwrap(), code.parse().unwrap())
}

/// A container of each kind on one Docker machine, and what pulls its image.
#[test]
fn auto_attaches_to_a_fixed_parent_on_a_docker_machine() {
    let job = Job::prepared(&config("[\"auto\"]"), |_| {});
    let jobs = [
        "system.slice/docker-1.scope",
        "system.slice/docker.service",
        "system.slice/system.slice:docker:2",
        "kubelet/kubepods/burstable/pod1/3",
        "docker/4",
    ];
    make(&job, &jobs);
    await_attached_to(&job, &["docker", "kubelet/kubepods", "kubepods", "system.slice"]);
    for cgroup in jobs {
        assert!(greets(&job.executor.beside(cgroup).unwrap()), "{cgroup}");
    }
    assert!(!greets(&job.executor.beside("user.slice/one").unwrap()));
}

/// Jobs come and go, and Docker is restarted: there is never a moment in which a new job is not
/// covered.
#[test]
fn auto_does_not_move_when_the_last_container_ends() {
    let job = Job::prepared(&config("[\"auto\"]"), |_| {});
    make(&job, &["system.slice/docker.service"]);
    await_attached_to(&job, &["kubepods", "system.slice"]);
    on_node(&job, || fs::remove_dir("/sys/fs/cgroup/system.slice/docker.service").unwrap());
    // The scan that this cgroup's creation causes has seen that the service is gone.
    make(&job, &["docker"]);
    await_attached_to(&job, &["docker", "kubepods", "system.slice"]);
    assert!(greets(&job.executor.beside("system.slice/docker-5.scope").unwrap()));
}

#[test]
fn presets_and_paths_cover_what_they_name() {
    let job = Job::prepared(&config("[\"docker\", \"ci-runners\", \"/jobs*\"]"), |_| {});
    let runner = "system.slice/actions.runner.acme-web.host1.service";
    make(&job, &["docker/1", runner, "jobs/1", "system.slice/containerd.service"]);
    await_attached_to(&job, &["docker", "jobs", runner]);
    for cgroup in ["docker/1", runner, "jobs/1"] {
        assert!(greets(&job.executor.beside(cgroup).unwrap()), "{cgroup}");
    }
    let uncovered = job.json(&["status"])["datapath"]["uncovered"].clone();
    let found: Vec<_> = uncovered
        .as_array()
        .unwrap()
        .iter()
        .map(|at| (at["cgroup"].as_str().unwrap(), at["preset"].as_str()))
        .collect();
    assert_eq!(
        found,
        [
            ("/sys/fs/cgroup/kubepods", Some("kubernetes")),
            ("/sys/fs/cgroup/system.slice/containerd.service", Some("image-pulls")),
        ]
    );
    let shown = job.cli(&["status"]).stdout;
    assert!(shown.contains("uncovered  /sys/fs/cgroup/kubepods (preset kubernetes)"), "{shown}");
    let checked = job.cli(&["check"]).stdout;
    assert!(checked.contains("(preset image-pulls)"), "{checked}");
}

/// A connection of the node's own network, from a cgroup that nothing covers.
#[test]
fn a_service_with_connections_is_listed_as_uncovered() {
    let job = Job::prepared(&config("[\"kubernetes\"]"), |_| {});
    make(&job, &["a.service"]);
    let mut child = job
        .rig
        .node
        .sandbox()
        .command("/bin/sh")
        .args([
            "-c",
            "echo 0 >/sys/fs/cgroup/a.service/cgroup.procs; exec /usr/bin/python3 -c \"\
            import socket, time; s = socket.create_connection(('203.0.113.7', 8080)); \
            open('open', 'w').close(); time.sleep(60)\"",
        ])
        .spawn()
        .unwrap();
    until("a connection", LIMIT, || Ok(job.rig.node.sandbox().home().join("open").exists()))
        .unwrap();
    let uncovered = job.json(&["status"])["datapath"]["uncovered"].clone();
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(
        uncovered,
        serde_json::json!([
            {"cgroup": "/sys/fs/cgroup/a.service", "preset": null, "connections": 1}
        ])
    );
}

/// The reply used to come up to ten seconds before the change.
#[test]
fn a_reload_returns_when_its_cgroups_are_attached() {
    /// More than one step attaches to.
    const MANY: usize = 60;
    let job = Job::prepared(&config("[\"kubernetes\"]"), |_| {});
    let jobs: Vec<String> = (0..MANY).map(|number| format!("jobs/{number}")).collect();
    make(&job, &jobs.iter().map(String::as_str).collect::<Vec<_>>());
    let (reply, code) = reload(&job, "[\"jobs/*\"]");
    let (attached, covered) =
        (attached_to(&job).len(), greets(&job.executor.beside("jobs/59").unwrap()));
    assert_eq!((code, attached, covered), (200, MANY, true), "{reply}");
    assert!(!greets(job.executor.sandbox()), "kubepods is not selected any more");
    let (reply, code) = reload(&job, "[\"kubernetes\"]");
    assert_eq!((code, attached_to(&job)), (200, vec!["kubepods".to_owned()]), "{reply}");
    assert!(greets(job.executor.sandbox()));
    let (reply, code) = reload(&job, "[\"no-such-cgroup\"]");
    assert_eq!(code, 422, "{reply}");
    assert!(
        reply["error"]["message"].as_str().unwrap().contains("is not a cgroup below"),
        "{reply}"
    );
    await_attached(&job, 1);
    assert!(greets(job.executor.sandbox()), "the earlier configuration stays");
}

/// As at boot, where the agent starts before the service that makes the cgroup.
#[test]
fn an_agent_starts_before_the_cgroup_of_a_path_exists() {
    let mut job = Job::prepared(&config("[\"/jobs/one\"]"), |_| {});
    assert_eq!((attached_to(&job), missing(&job)), (vec![], vec!["/jobs/one".to_owned()]));
    let next = job.agent.beside(&["--take-over"]).unwrap();
    let mut former = std::mem::replace(&mut job.agent, next);
    assert_eq!(former.wait_ended().unwrap().code(), Some(0), "{}", former.log_tail());
    assert_eq!((attached_to(&job), missing(&job)), (vec![], vec!["/jobs/one".to_owned()]));
    make(&job, &["jobs/one"]);
    assert_attached_soon(&job, &["jobs/one"]);
    assert!(greets(&job.executor.beside("jobs/one/below").unwrap()));
    assert_eq!(missing(&job), [""; 0]);
    for log in [former.log(), job.agent.log()] {
        assert_eq!(log.matches("`/jobs/one` is not a cgroup").count(), 1, "{log}");
    }
}

#[test]
fn a_removed_path_stops_no_other_cgroup_from_being_attached() {
    let job = Job::prepared(&config("[\"jobs/*\", \"system.slice/x.service\"]"), |rig| {
        let prepare = || fs::create_dir_all("/sys/fs/cgroup/system.slice/x.service").unwrap();
        rig.node.sandbox().namespaces().run(prepare).unwrap();
    });
    assert_eq!(attached_to(&job), ["system.slice/x.service"]);
    for round in 1..=2 {
        on_node(&job, || fs::remove_dir("/sys/fs/cgroup/system.slice/x.service").unwrap());
        until("the path to be reported", LIMIT, || Ok(missing(&job) == ["system.slice/x.service"]))
            .unwrap();
        make(&job, &["jobs/one"]);
        assert_attached_soon(&job, &["jobs/one"]);
        assert!(greets(&job.executor.beside("jobs/one/below").unwrap()));
        on_node(&job, || {
            fs::remove_dir("/sys/fs/cgroup/jobs/one/below").unwrap();
            fs::remove_dir("/sys/fs/cgroup/jobs/one").unwrap();
        });
        make(&job, &["system.slice/x.service"]);
        assert_attached_soon(&job, &["system.slice/x.service"]);
        assert!(greets(&job.executor.beside("system.slice/x.service").unwrap()));
        assert_eq!(missing(&job), [""; 0]);
        let log = job.agent.log();
        assert_eq!(log.matches("x.service` is not a cgroup").count(), round, "{log}");
    }
    let log = job.agent.log();
    assert!(!log.contains(" ERROR "), "{log}");
}
