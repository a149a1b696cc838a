//! Cgroups that come and go while the agent runs.

use std::{
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use redirector_common::{abi, names};
use testbed::{Sandbox, process::until, topology::INTERNAL_NAME};

use crate::rig::{Job, LIMIT};

/// Matches cgroups in directories that do not exist yet, one and two levels deep.
const CONFIG: &str = "\
[attach]
cgroups = [\"jobs/*\", \"nested/*/job-*\"]
interfaces = \"off\"
[[routes]]
source = \"artifactory.internal.company.net\"
destination = \"artifactory.public.company.net\"
";

/// The node's cgroup2 mount.
const CGROUPS: &str = "/sys/fs/cgroup";

/// Runs `action` in the node's namespaces.
pub(crate) fn on_node<T: Send>(job: &Job, action: impl FnOnce() -> T + Send) -> T {
    job.rig.node.sandbox().namespaces().run(action).unwrap()
}

/// The directory with the pinned links of every cgroup.
fn links() -> PathBuf {
    format!("/sys/fs/bpf/redirector/v{}/links", abi::ABI).into()
}

/// The pin of the last link of a cgroup.
fn last_pin(cgroup: &Path) -> PathBuf {
    let id = fs::metadata(cgroup).unwrap().ino();
    links().join(id.to_string()).join(names::PROGRAMS[names::PROGRAMS.len() - 1].name)
}

/// Creates a cgroup, and returns how long it took until every program was attached to it. Call
/// it on the node.
fn attached_after(cgroup: &str) -> Duration {
    let cgroup = Path::new(CGROUPS).join(cgroup);
    let started = Instant::now();
    fs::create_dir(&cgroup).unwrap();
    let pin = last_pin(&cgroup);
    while !pin.exists() {
        assert!(started.elapsed() < LIMIT, "{} is not attached", cgroup.display());
        std::thread::sleep(Duration::from_micros(100));
    }
    started.elapsed()
}

fn attached(job: &Job) -> usize {
    job.json(&["status"])["datapath"]["attachments"].as_array().unwrap().len()
}

/// Waits until this many cgroups are attached, and nothing else is pinned.
pub(crate) fn await_attached(job: &Job, count: usize) {
    let reached = until("the cgroups to be attached", LIMIT, || {
        Ok(attached(job) == count
            && on_node(job, || fs::read_dir(links()).unwrap().count()) == count)
    });
    reached.unwrap_or_else(|error| {
        panic!("{error:#}: {} of {count}\n{}", attached(job), job.agent.log_tail())
    });
}

pub(crate) fn greets(sandbox: &Sandbox) -> bool {
    sandbox
        .run(&format!("curl -sS --max-time 10 http://{INTERNAL_NAME}:8080/"), LIMIT)
        .unwrap()
        .status
        .success()
}

/// Periodic scans, every two or ten seconds, would be too slow.
#[test]
fn a_new_cgroup_is_attached_without_waiting_for_a_scan() {
    let job = Job::with_config(CONFIG);
    let status = job.cli(&["status"]).stdout;
    assert!(status.contains("no cgroup matches attach.cgroups"), "{status}");
    let times = on_node(&job, || {
        fs::create_dir_all("/sys/fs/cgroup/jobs").unwrap();
        fs::create_dir_all("/sys/fs/cgroup/nested/one").unwrap();
        let nested = (0..10).map(|number| attached_after(&format!("nested/one/job-{number}")));
        (0..10)
            .map(|number| attached_after(&format!("jobs/{number}")))
            .chain(nested)
            .collect::<Vec<_>>()
    });
    let mut sorted = times.clone();
    sorted.sort_unstable();
    assert!(sorted[sorted.len() / 2] < Duration::from_secs(1), "{times:?}");
    assert_eq!(attached(&job), 20);
    assert!(
        greets(&job.executor.beside("jobs/3").unwrap())
            && greets(&job.executor.beside("nested/one/job-3/below").unwrap())
    );
    assert!(!greets(&job.executor.beside("nested/one/other").unwrap()), "it does not match");
    println!("attached after {sorted:?}");
}

#[test]
fn a_thousand_short_lived_cgroups_leave_nothing_behind() {
    const MANY: usize = 1000;
    const LEFT: usize = 10;
    let job = Job::with_config(CONFIG);
    let path = |number: usize| format!("{CGROUPS}/jobs/{number}");
    on_node(&job, || {
        fs::create_dir_all("/sys/fs/cgroup/jobs").unwrap();
        (0..MANY).for_each(|number| fs::create_dir(path(number)).unwrap());
    });
    await_attached(&job, MANY);
    assert!(greets(&job.executor.beside("jobs/999").unwrap()));
    on_node(&job, || (LEFT..MANY).for_each(|number| fs::remove_dir(path(number)).unwrap()));
    await_attached(&job, LEFT);
    // Each is removed while it is being attached.
    on_node(&job, || {
        for number in LEFT..MANY {
            fs::create_dir(path(number)).unwrap();
            if number % 3 == 0 {
                std::thread::sleep(Duration::from_millis(1));
            }
            fs::remove_dir(path(number)).unwrap();
        }
    });
    await_attached(&job, LEFT);
    assert!(greets(&job.executor.beside("jobs/3").unwrap()));
    let status = job.json(&["status"]);
    assert_eq!(
        (status["state"].as_str(), &status["routes"][0]["counters"]["established"]),
        (Some("ok"), &2.into()),
        "{status}"
    );
    let log = job.agent.log();
    assert!(!log.contains(" ERROR ") && !log.contains(" WARN "), "{log}");
}

/// By default 16,384 events are queued for a process that does not read them; this makes 20,000.
#[test]
fn cgroups_whose_events_were_lost_are_found() {
    let job = Job::with_config(CONFIG);
    on_node(&job, || fs::create_dir_all("/sys/fs/cgroup/jobs").unwrap());
    let signal = |name: &str| {
        job.rig
            .node
            .sandbox()
            .run(&format!("kill -{name} {}", job.agent.pid()), LIMIT)
            .unwrap()
            .success()
            .unwrap()
    };
    signal("STOP");
    on_node(&job, || {
        for number in 0..10_000 {
            let path = format!("{CGROUPS}/jobs/{number}");
            fs::create_dir(&path).unwrap();
            fs::remove_dir(&path).unwrap();
        }
        fs::create_dir("/sys/fs/cgroup/jobs/late").unwrap();
    });
    signal("CONT");
    await_attached(&job, 1);
    // An agent that was stopped for two seconds answers names only after its next heartbeat.
    let late = job.executor.beside("jobs/late").unwrap();
    until("the late job to be redirected", LIMIT, || Ok(greets(&late))).unwrap();
}

/// A job's sockets may outlive its cgroup: in another process, or in the kernel until their last
/// data is acknowledged.
#[test]
fn a_connection_that_outlives_its_cgroup_is_counted_to_its_end() {
    let job = Job::with_config(CONFIG);
    on_node(&job, || fs::create_dir_all("/sys/fs/cgroup/jobs/short").unwrap());
    await_attached(&job, 1);
    let script = format!(
        "import os, socket, time\n\
         s = socket.create_connection(('{INTERNAL_NAME}', 8080)); s.recv(100)\n\
         open('connected', 'w').close()\n\
         while not os.path.exists('close'): time.sleep(0.01)\n\
         print(s.getpeername()[0]); s.close()"
    );
    let sandbox = job.executor.beside("jobs/short").unwrap();
    let mut command = sandbox.command("/usr/bin/python3");
    let mut child =
        command.args(["-c", &script]).stdout(std::process::Stdio::piped()).spawn().unwrap();
    until("a connection", LIMIT, || Ok(sandbox.home().join("connected").exists())).unwrap();
    // Moved out of the cgroup, which is removed; the socket still belongs to it.
    job.rig
        .node
        .sandbox()
        .run(
            &format!(
                "echo {} >/sys/fs/cgroup/cgroup.procs; rmdir /sys/fs/cgroup/jobs/short",
                child.id()
            ),
            LIMIT,
        )
        .unwrap()
        .success()
        .unwrap();
    until("the cgroup to be released", LIMIT, || Ok(attached(&job) == 0)).unwrap();
    let counters = || job.json(&["status"])["routes"][0]["counters"].clone();
    assert_eq!((&counters()["established"], &counters()["closed"]), (&1.into(), &0.into()));
    fs::write(sandbox.home().join("close"), "").unwrap();
    let mut peer = String::new();
    std::io::Read::read_to_string(child.stdout.as_mut().unwrap(), &mut peer).unwrap();
    assert!(peer.starts_with("198.18.") && child.wait().unwrap().success(), "{peer}");
    until("its end to be counted", LIMIT, || Ok(counters()["closed"] == 1)).unwrap();
    await_attached(&job, 0);
}
