//! `redirector events`: connect events as an operator sees them, and that no reader delays
//! anything.

use std::{
    io::{BufRead, BufReader, Read, Write},
    os::unix::net::UnixStream,
    time::Duration,
};

use serde_json::Value;
use testbed::{
    ExecutorOptions, Rig,
    agent::{Agent, AgentOptions, CAPABILITIES},
    clients::LoadOptions,
    clients::LoadProcess,
    process::{self, until},
};

use crate::{
    commands::operate,
    rig::{Job, LIMIT, binary},
};

const CONFIG: &str = "\
[[routes]]
source = \"artifactory.internal.company.net\"
destination = \"artifactory.public.company.net\"
ports = [\"443\", \"8080\"]
[[routes]]
source = \"refusing.internal.company.net\"
destination = \"203.0.113.1\"
";

/// The events that `redirector events -o json` prints with these arguments.
fn events(job: &Job, arguments: &[&str]) -> Vec<Value> {
    let finished = job.cli(&[&["events", "-o", "json"], arguments].concat());
    let finished =
        finished.success().unwrap_or_else(|error| panic!("{error:#}\n{}", job.agent.log_tail()));
    finished.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn results(events: &[Value]) -> Vec<&str> {
    events.iter().map(|event| event["result"].as_str().unwrap_or("lost")).collect()
}

/// Waits for this many events, and returns them.
fn wait_for(job: &Job, arguments: &[&str], number: usize) -> Vec<Value> {
    let mut found = Vec::new();
    until(&format!("{number} events"), LIMIT, || {
        found = events(job, arguments);
        Ok(found.len() >= number)
    })
    .unwrap();
    found
}

/// Connects with bash, and keeps the process and any connection for a second.
fn connect(job: &Job, to: &str) {
    job.shell(&format!("bash -c 'exec 3<>/dev/tcp/{to} && read -r line <&3; sleep 1; true'"));
}

/// A thousand connects a second from the executor, in the background.
fn load(job: &Job, seconds: f64) -> LoadProcess {
    let target = format!("{}:8080", job.vip()).parse().unwrap();
    let options = LoadOptions::greeted_by(&["lb1", "lb2"], target, 1000, seconds);
    LoadProcess::start(job.executor.sandbox(), &options).unwrap()
}

/// A request for events on the control socket, whose response is not read yet.
fn ask(job: &Job, query: &str) -> UnixStream {
    let mut stream = UnixStream::connect(operate::socket(job)).unwrap();
    write!(stream, "GET /v1/events?{query} HTTP/1.1\r\nHost: agent\r\nConnection: close\r\n\r\n")
        .unwrap();
    stream
}

#[test]
fn callers_that_end_at_once_are_named() {
    let job = Job::with_config(CONFIG);
    // Without CAP_PERFMON a kernel from 6.17 on does not provide the command; each process ends 30
    // ms after its connect, which is refused here. A busy machine may delay the agent for longer.
    let mut rounds = 0;
    until("24 of 30 callers", LIMIT, || {
        job.shell(
            "for n in $(seq 30); do bash -c 'true 3<>/dev/tcp/artifactory.internal.company.net/22; \
                sleep 0.03; true' 2>/dev/null || true; done",
        );
        rounds += 1;
        let seen = wait_for(&job, &["--result", "denied"], 30 * rounds);
        let new = &seen[30 * (rounds - 1)..];
        Ok(new.iter().filter(|event| event["command"] == "bash").count() >= 24)
    })
    .unwrap();
}

/// CAP_PERFMON, which the agent can do without.
const CAP_PERFMON: u32 = 38;

#[test]
fn with_perfmon_the_kernel_names_callers_that_are_gone() {
    let rig = Rig::new().unwrap();
    let executor = rig.executor(ExecutorOptions::pod("job")).unwrap();
    let _dns = rig.customer.dns_server().unwrap();
    let capabilities = Some([&CAPABILITIES[..], &[CAP_PERFMON]].concat());
    let options = AgentOptions { capabilities, ..AgentOptions::with_config(binary(), CONFIG) };
    let agent = Agent::start(&rig.node, options).unwrap();
    // Each process ends with its connect, long before the next read of the events.
    let connects = "for n in $(seq 30); do bash -c 'exec 3<>/dev/tcp/\
        artifactory.internal.company.net/22' 2>/dev/null || true; done";
    executor.run(connects, LIMIT).unwrap().success().unwrap();
    let mut commands = Vec::new();
    until("30 events", LIMIT, || {
        let shown = rig.node.cli(binary(), &["events", "-o", "json", "--result", "denied"])?;
        let lines = shown.stdout.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        commands = lines.map(|event| event["command"].to_string()).collect();
        Ok(commands.len() >= 30)
    })
    .unwrap();
    assert!(commands.iter().all(|name| name == "\"bash\""), "{commands:?}\n{}", agent.log_tail());
}

#[test]
fn events_of_a_name_are_those_of_its_wildcard() {
    let wildcard = "[[routes]]\nsource = \"*.wild.company.net\"\ndestination = \"203.0.113.1\"\n";
    let job = Job::with_config(&format!("wildcards = \"one_label\"\n{CONFIG}{wildcard}"));
    connect(&job, "refusing.internal.company.net/443");
    connect(&job, "host.wild.company.net/443");
    let seen = wait_for(&job, &["--route", "host.wild.company.net"], 1);
    assert_eq!(seen[0]["source"], "*.wild.company.net", "{seen:#?}");
    assert_eq!(events(&job, &["--route", "*.wild.company.net"]), seen);
    let refused = job.cli(&["events", "--route", "a.host.wild.company.net"]);
    assert!(refused.text().contains("no route"), "{}", refused.text());
}

#[test]
fn events_name_the_caller_as_table_and_json() {
    let job = Job::with_config(CONFIG);
    connect(&job, "artifactory.internal.company.net/8080");
    connect(&job, "refusing.internal.company.net/443");
    connect(&job, "artifactory.internal.company.net/22");
    let seen = wait_for(&job, &[], 4);
    assert_eq!(results(&seen), ["established", "closed", "refused", "denied"], "{seen:#?}");
    for event in &seen {
        assert_eq!(
            (event["version"].as_u64(), event["sampling_ratio"].as_u64()),
            (Some(1), Some(1)),
            "{event:#}"
        );
        assert!(
            event["cgroup"].as_str().is_some_and(|path| path.ends_with("/kubepods/podjob")),
            "{event:#}"
        );
        assert!(event["pid"].as_u64().is_some_and(|pid| pid > 1), "{event:#}");
    }
    let [established, closed, refused, denied] = &seen[..] else { unreachable!() };
    assert_eq!(
        (established["source"].as_str(), established["vip_port"].as_u64()),
        (Some("artifactory.internal.company.net"), Some(8080))
    );
    assert_eq!(
        (established["vip"].as_str(), established["command"].as_str()),
        (Some(job.vip().as_str()), Some("bash")),
        "{established:#}"
    );
    assert_eq!(
        (established["backend"].as_str(), &established["traffic"]),
        (closed["backend"].as_str(), &Value::Null)
    );
    assert!(
        closed["traffic"]["rx_bytes"].as_u64() >= Some(4)
            && closed["elapsed_ns"].as_u64() > Some(900_000_000),
        "{closed:#}"
    );
    assert_eq!(
        (refused["backend"].as_str(), refused["reason"].as_str()),
        (Some("203.0.113.1:443"), None)
    );
    assert_eq!(
        (denied["backend"].as_str(), denied["reason"].as_str()),
        (None, Some("port_not_listed"))
    );

    let table = job.cli(&["events"]).stdout;
    assert_eq!(table.lines().count(), 5, "{table}");
    assert!(table.lines().next().unwrap().contains("TIME (UTC)"), "{table}");
    assert!(
        table.contains("artifactory.internal.company.net:8080")
            && table.contains(" received, ")
            && table.contains("port not listed"),
        "{table}"
    );

    let of = |arguments: &[&str]| results(&events(&job, arguments)).join(" ");
    assert_eq!(of(&["--route", "refusing.internal.company.net"]), "refused");
    assert_eq!(of(&["--failed"]), "refused denied");
    assert_eq!(of(&["--result", "closed,denied"]), "closed denied");
    assert_eq!(of(&["--limit", "1"]), "denied");
    let unknown = job.cli(&["events", "--route", "refusin.internal.company.net"]);
    assert_eq!(unknown.status.code(), Some(1), "{}", unknown.text());
    assert!(
        unknown.stderr.contains("refusing.internal.company.net"),
        "the nearest one is named: {}",
        unknown.text()
    );
}

#[test]
fn a_follower_ends_after_its_count_or_with_the_agent() {
    let mut job = Job::with_config(CONFIG);
    let follow = |count: Option<&str>| {
        let mut command = job.rig.node.command(binary());
        command
            .args(["events", "--follow", "-o", "json"])
            .args(count.iter().map(|count| format!("--count={count}")));
        command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
        command.spawn().unwrap()
    };
    let (mut counting, mut endless) = (follow(Some("1")), follow(None));
    until("two followers", LIMIT, || Ok(job.json(&["status"])["events"]["readers"] == 2)).unwrap();
    connect(&job, "artifactory.internal.company.net/8080");
    let mut line = String::new();
    BufReader::new(endless.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(serde_json::from_str::<Value>(&line).unwrap()["result"], "established", "{line}");
    assert!(process::wait(&mut counting, LIMIT).unwrap().expect("it ends").success());
    let mut text = String::new();
    counting.stdout.unwrap().read_to_string(&mut text).unwrap();
    assert_eq!(text.lines().count(), 1, "{text}");
    job.agent.sigterm().unwrap();
    assert_eq!(process::wait(&mut endless, LIMIT).unwrap().expect("it ends").code(), Some(1));
    let mut words = String::new();
    endless.stderr.unwrap().read_to_string(&mut words).unwrap();
    assert!(words.contains("the agent stopped"), "{words}");
}

#[test]
fn a_stuck_reader_loses_events_and_gets_their_number() {
    let job = Job::with_config(CONFIG);
    let mut stuck = ask(&job, "follow=true");
    until("a follower", LIMIT, || Ok(job.json(&["status"])["events"]["readers"] == 1)).unwrap();
    let load = load(&job, 8.0);
    for _ in 0..10 {
        assert!(job.cli(&["status"]).status.success(), "{}", job.agent.log_tail());
        std::thread::sleep(Duration::from_millis(200));
    }
    assert!(load.report().unwrap().flawless());
    // The backlog is bounded.
    assert!(events(&job, &[]).len() <= 1000);
    stuck.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
    let mut sent = Vec::new();
    let _ = stuck.read_to_end(&mut sent);
    let sent = String::from_utf8_lossy(&sent);
    let lost = sent
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .filter(|line| line["lost_by"] == "reader");
    let lost: u64 = lost.map(|line| line["lost"].as_u64().unwrap()).sum();
    assert!(lost > 0, "{} bytes were sent", sent.len());
}

#[test]
fn more_than_sixteen_followers_are_refused() {
    let job = Job::with_config(CONFIG);
    let mut readers: Vec<UnixStream> = (0..16).map(|_| ask(&job, "follow=true")).collect();
    until("sixteen followers", LIMIT, || Ok(job.json(&["status"])["events"]["readers"] == 16))
        .unwrap();
    let mut refused = String::new();
    ask(&job, "follow=true").read_to_string(&mut refused).unwrap();
    assert!(refused.starts_with("HTTP/1.1 429") && refused.contains("\"too_many\""), "{refused}");
    // A reader that does not follow is not limited.
    assert_eq!(events(&job, &[]), Vec::<Value>::new());
    readers.pop();
    until("fifteen followers", LIMIT, || Ok(job.json(&["status"])["events"]["readers"] == 15))
        .unwrap();
    let mut wrong = String::new();
    ask(&job, "follow=maybe").read_to_string(&mut wrong).unwrap();
    assert!(
        wrong.starts_with("HTTP/1.1 400")
            && wrong.contains("the parameters are follow, route, result, failed and limit"),
        "{wrong}"
    );
}

#[test]
fn the_next_agent_shows_events_of_the_outage() {
    let mut job = Job::with_config(CONFIG);
    let vip = job.vip();
    job.agent.sigkill().unwrap();
    let down = job.cli(&["events"]);
    assert_eq!(down.status.code(), Some(1), "{}", down.text());
    connect(&job, &format!("{vip}/8080"));
    job.agent.restart().unwrap();
    let seen = wait_for(&job, &[], 2);
    assert_eq!(results(&seen), ["established", "closed"], "{seen:#?}");
}

#[test]
fn a_failed_connect_resolves_the_destination_early() {
    const MOVING: &str = "\
[[routes]]
source = \"artifactory.internal.company.net\"
destination = \"artifactory.public.company.net\"
";
    let mut job = Job::with_config(MOVING);
    let show = |job: &Job| job.json(&["route", "show", "artifactory.internal.company.net"]);
    job.dns.set_ttl(3600);
    job.dns.set_addresses(&["203.0.113.7".parse().unwrap()]).unwrap();
    let followed = |job: &Job| {
        let route = show(job)["route"].clone();
        (
            route["resolution"]["ttl_seconds"].as_u64().unwrap(),
            route["backends"][0]["address"].as_str().unwrap_or_default().to_owned(),
        )
    };
    until("the long TTL", LIMIT, || Ok(followed(&job).0 > 120)).unwrap();
    job.dns.set_addresses(&["203.0.113.1".parse().unwrap()]).unwrap();
    connect(&job, "artifactory.internal.company.net/9");
    // Much earlier than the TTL of an hour requires.
    until("the new address", LIMIT, || Ok(followed(&job).1 == "203.0.113.1")).unwrap();
}
