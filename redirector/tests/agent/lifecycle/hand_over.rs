//! One agent follows another: upgrades, standby, and crashes with sockets that outlive the agent.

use std::{
    net::{SocketAddr, TcpListener, UdpSocket},
    thread,
    time::{Duration, Instant},
};

use rustix::process::Signal;
use testbed::{
    Executor, Rig,
    agent::{Agent, AgentOptions},
    clients::{DnsLoad, DnsLoadOptions, LoadOptions, LoadProcess},
    customer::DnsServer,
    lookup_programs::{LookupPrograms, Resolver},
    process::{is_machine_busy, until},
    topology::{DNS_ADDRESS, INTERNAL_NAME, UNRELATED_NAME},
};

use crate::{
    dns::interception::{self, ONE, address, is_vip, pod},
    fake_api::FakeApi,
    rig::{Job, LIMIT, binary},
};

/// Every query goes to the shim.
pub(super) const CONFIG: &str = "\
[dns]
intercept = \"off\"
[[routes]]
source = \"artifactory.internal.company.net\"
destination = \"artifactory.public.company.net\"
";

const SHIM: &str = "169.254.20.53";

/// How soon a standby answers after SIGKILL, if the machine lets it.
const TAKE_OVER: Duration = Duration::from_millis(200);
/// Upgrades under one load.
const UPGRADES: usize = 4;
/// Seconds of one load.
const SECONDS: u16 = 12;
const RATE: u32 = 400;

fn lookups(executor: &Executor, server: &str) -> DnsLoad {
    let names = [INTERNAL_NAME, UNRELATED_NAME].map(str::to_owned).to_vec();
    let count = SECONDS * RATE as u16;
    // A busy machine may answer late; what is lost is never answered.
    let options = DnsLoadOptions {
        server: server.parse().unwrap(),
        rate: RATE,
        count,
        retry_ms: 5000,
        names,
    };
    DnsLoad::start(executor.sandbox(), &options).unwrap()
}

/// Asserts that each query had its answer from its first packet, and no other answer.
fn assert_none_lost(mut load: DnsLoad, agent: &Agent) {
    load.wait_half().unwrap();
    let report = load.report().unwrap();
    let output = format!("{report:?}\n{}", agent.log_tail());
    println!("slowest {} ms", report.slowest_ms);
    assert_eq!(report.sent, u64::from(SECONDS) * u64::from(RATE), "{output}");
    assert_eq!((report.unanswered, report.refused, report.lost), (0, 0, 0), "{output}");
    let expected = [format!("{INTERNAL_NAME} 0"), format!("{UNRELATED_NAME} 0")];
    assert!(report.answers.keys().all(|answer| expected.contains(answer)), "{output}");
    assert!(report.failed.is_empty() && report.wrong_source == 0, "{output}");
}

/// Replaces the agent by another one.
fn upgrade(job: &mut Job) {
    let next = job.agent.beside(&["--take-over"]).unwrap();
    let mut former = std::mem::replace(&mut job.agent, next);
    let ended = former.wait_ended().unwrap();
    assert_eq!(ended.code(), Some(0), "{}", former.log_tail());
}

#[test]
fn twenty_upgrades_lose_no_lookup_and_no_connect() {
    let mut job = Job::with_config(CONFIG);
    let vip = job.vip();
    for _ in 0..5 {
        let target = format!("{vip}:8080").parse().unwrap();
        let seconds = f64::from(SECONDS);
        let connects = LoadOptions::greeted_by(&["lb1", "lb2"], target, 200, seconds);
        let connects = LoadProcess::start(job.executor.sandbox(), &connects).unwrap();
        let lookups = lookups(&job.executor, SHIM);
        for _ in 0..UPGRADES {
            upgrade(&mut job);
        }
        assert_none_lost(lookups, &job.agent);
        let report = connects.report().unwrap();
        assert!(report.flawless(), "{report:?}\n{}", job.agent.log_tail());
    }
    assert_eq!(job.vip(), vip);
    assert_eq!(job.json(&["status"])["agent"]["pid"], job.agent.pid());
}

#[test]
fn an_upgrade_keeps_interception_at_sockets() {
    let mut job = Job::with_config(interception::CONFIG);
    let executor = pod(&job, "stranger", ONE);
    assert!(is_vip(&address(&executor, INTERNAL_NAME)));
    let lookups = lookups(&executor, ONE);
    for _ in 0..UPGRADES {
        upgrade(&mut job);
    }
    // The resolver refuses the internal name, so any query that had passed us would show.
    assert_none_lost(lookups, &job.agent);
    assert!(is_vip(&address(&executor, INTERNAL_NAME)));
}

/// Sends queries until one is answered, and returns how long the first one took.
fn time_to_answer(executor: &Executor) -> Duration {
    time_to_answer_for(executor, INTERNAL_NAME)
}

/// The same for another name. The query is sent once.
fn time_to_answer_for(executor: &Executor, name: &str) -> Duration {
    let query = |id: u8| {
        let name = name.split('.').flat_map(|label| {
            std::iter::once(u8::try_from(label.len()).unwrap()).chain(label.bytes())
        });
        let head = [0, id, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        head.into_iter().chain(name).chain([0, 0, 1, 0, 1]).collect::<Vec<u8>>()
    };
    let asked = || {
        let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
        socket.set_read_timeout(Some(LIMIT)).unwrap();
        let begun = Instant::now();
        socket.send_to(&query(7), (SHIM, 53)).unwrap();
        let mut reply = [0; 512];
        let length = socket.recv(&mut reply).unwrap();
        assert_eq!((reply[1], reply[3] & 15, reply[7]), (7, 0, 1), "{:?}", &reply[..length]);
        begun.elapsed()
    };
    executor.sandbox().namespaces().run(asked).unwrap()
}

#[test]
fn a_standby_takes_over_when_the_agent_dies_or_ends() {
    let mut job = Job::with_config(CONFIG);
    let vip = job.vip();
    let mut fastest = LIMIT;
    // A busy machine may delay each: the best of several is what the agent needs.
    for round in 0..10 {
        if round >= 3 && fastest < TAKE_OVER {
            break;
        }
        let kill = round != 1;
        let standby = job.agent.beside(&["--standby"]).unwrap();
        let info = job.json(&["status"])["agent"]["standby"].clone();
        assert_eq!((&info["pid"], &info["ready"]), (&standby.pid().into(), &true.into()));
        let refused = job.agent.beside(&["--standby"]).unwrap_err();
        let expected = format!("agent {} waits to take over already", standby.pid());
        assert!(format!("{refused:#}").contains(&expected), "{refused:#}");
        let refused = job.agent.beside(&[]).unwrap_err();
        let expected = format!("another agent, pid {}, uses", job.agent.pid());
        assert!(format!("{refused:#}").contains(&expected), "{refused:#}");
        if kill {
            job.agent.sigkill().unwrap();
        } else {
            assert!(job.agent.sigterm().unwrap().success());
        }
        let took = time_to_answer(&job.executor);
        println!("after {}: {took:?}", if kill { "SIGKILL" } else { "SIGTERM" });
        // Without the standby, nobody answers.
        assert!(took < Duration::from_secs(5), "{took:?}");
        fastest = fastest.min(if kill { took } else { LIMIT });
        job.agent = standby;
        assert_eq!(job.vip(), vip);
        job.wait_serving();
        let log = job.agent.log();
        let early = log.find("answering DNS while the datapath is being opened");
        assert!(early.is_some() && early < log.find("has its sockets"), "{log}");
    }
    assert!(fastest < TAKE_OVER || is_machine_busy(), "{fastest:?}");
}

#[test]
fn a_standby_that_ends_leaves_the_agent_alone() {
    let job = Job::with_config(CONFIG);
    let mut standby = job.agent.beside(&["--standby"]).unwrap();
    assert!(standby.sigterm().unwrap().success());
    until("the end of the standby to show", LIMIT, || {
        Ok(job.json(&["status"])["agent"]["standby"].is_null())
    })
    .unwrap();
    assert!(is_vip(&job.vip()));
    let mut killed = job.agent.beside(&["--standby"]).unwrap();
    killed.sigkill().unwrap();
    assert!(is_vip(&job.vip()), "{}", job.agent.log_tail());
}

/// It has read the file before, and nobody else is left.
#[test]
fn a_standby_serves_although_the_file_has_become_invalid() {
    let mut job = Job::with_config(CONFIG);
    let vip = job.vip();
    let standby = job.agent.beside(&["--standby"]).unwrap();
    job.agent.write_config("routes = 7\n").unwrap();
    job.on_node("rm /var/lib/redirector/last-good*");
    job.agent.sigkill().unwrap();
    job.agent = standby;
    job.wait_serving();
    assert_eq!(job.vip(), vip);
    let status = job.json(&["status"]);
    assert!(
        status["config"]["error"].as_str().is_some_and(|why| why.contains("routes")),
        "{status}"
    );
}

#[test]
fn a_standby_can_be_stopped_while_the_agent_hangs() {
    let job = Job::with_config(CONFIG);
    job.agent.signal(Signal::STOP).unwrap();
    let mut standby = job.agent.launch_beside(&["--standby"]).unwrap();
    until("the standby to wait", LIMIT, || Ok(standby.log().contains("waiting for"))).unwrap();
    assert!(standby.sigterm().unwrap().success(), "{}", standby.log_tail());
    job.agent.signal(Signal::CONT).unwrap();
    assert!(is_vip(&job.vip()));
}

#[test]
fn only_the_agent_of_the_same_pod_is_ready() {
    let mut job = Job::with_config(CONFIG);
    let ready = |job: &Job| {
        let finished = job.cli(&["ready"]);
        (finished.status.code(), finished.text())
    };
    assert_eq!(ready(&job), (Some(0), "the agent serves\n".to_owned()));
    // What does not resolve is for metrics and alerts.
    job.cli(&["route", "add", "n.internal.company.net", "nowhere.invalid"]).success().unwrap();
    until("the agent to be degraded", LIMIT, || Ok(job.json(&["status"])["state"] == "degraded"))
        .unwrap();
    assert_eq!(ready(&job).0, Some(0));
    // A command in another pod, whose own agent does not run.
    let line = format!("unshare --pid --fork --mount-proc {} ready", binary().display());
    let other = job.rig.node.sandbox().run(&line, LIMIT).unwrap();
    let refusal = "no agent in this PID namespace serves or is ready to take over";
    assert!(other.status.code() == Some(1) && other.text().contains(refusal), "{}", other.text());
    let standby = job.agent.beside(&["--standby"]).unwrap();
    assert!(job.agent.sigterm().unwrap().success());
    job.agent = standby;
    assert_eq!(ready(&job), (Some(0), "the agent serves\n".to_owned()));
    assert!(job.agent.sigterm().unwrap().success());
    assert!(ready(&job).0 == Some(1) && ready(&job).1.contains(refusal), "{:?}", ready(&job));
}

/// Whether nobody has the addresses of the agent's sockets on the node.
fn can_bind(rig: &Rig) -> [bool; 3] {
    let [dns, admin]: [SocketAddr; 2] =
        [format!("{SHIM}:53"), "127.0.0.1:9464".to_owned()].map(|text| text.parse().unwrap());
    let bind = move || {
        [
            UdpSocket::bind(dns).is_ok(),
            TcpListener::bind(dns).is_ok(),
            TcpListener::bind(admin).is_ok(),
        ]
    };
    rig.node.sandbox().namespaces().run(bind).unwrap()
}

/// An executor, the customer's DNS, and an agent whose sockets are stored, as systemd does.
fn with_stored_sockets(rig: &Rig) -> (Executor, DnsServer, Agent) {
    let executor = rig.executor(testbed::ExecutorOptions::pod("job")).unwrap();
    let dns = rig.customer.dns_server().unwrap();
    let options =
        AgentOptions { keeps_sockets: true, ..AgentOptions::with_config(binary(), CONFIG) };
    (executor, dns, Agent::start(&rig.node, options).unwrap())
}

#[test]
fn stored_sockets_outlive_a_killed_agent() {
    let rig = Rig::new().unwrap();
    let (executor, _dns, mut agent) = with_stored_sockets(&rig);
    let expected = [
        "control".to_owned(),
        "tcp-127.0.0.1-9464".to_owned(),
        format!("tcp-{SHIM}-53"),
        format!("udp-{SHIM}-53"),
    ];
    for _ in 0..3 {
        let mut stored = agent.stored().unwrap();
        stored.sort();
        // The journal of each agent replaces that of the last one.
        assert_eq!(stored.remove(1), format!("queries-{}", agent.pid()));
        assert_eq!(stored, expected);
        agent.sigkill().unwrap();
        assert_eq!(can_bind(&rig), [false; 3], "the ports stay ours");
        let waiting = thread::scope(|scope| {
            let waiting = scope.spawn(|| time_to_answer(&executor));
            thread::sleep(Duration::from_millis(300));
            agent.restart().unwrap();
            waiting.join().unwrap()
        });
        println!("answered after {waiting:?}");
        assert!(waiting >= Duration::from_millis(300), "it waited in the socket: {waiting:?}");
        let status = rig.node.cli(binary(), &["status"]).unwrap();
        assert!(status.stdout.contains(&format!("pid {}", agent.pid())), "{}", status.text());
    }
    // An address that the configuration has no more is given back.
    agent.write_config(&format!("[agent]\nadmin = \"off\"\n{CONFIG}")).unwrap();
    agent.restart().unwrap();
    until("the removal of a socket", LIMIT, || Ok(agent.stored()?.len() == 4)).unwrap();
    assert_eq!(can_bind(&rig), [false, false, true]);
}

/// One query for a name that waits for a silent upstream, and how the client got its answer.
fn lost_with_the_agent(job: &Job, end: impl FnOnce()) -> Duration {
    let upstream = DNS_ADDRESS.parse().unwrap();
    job.rig.customer.silence(upstream).unwrap();
    let queries = || job.json(&["status"])["dns"]["counters"]["queries"].as_u64();
    let before = queries();
    thread::scope(|scope| {
        let waiting = scope.spawn(|| time_to_answer_for(&job.executor, UNRELATED_NAME));
        until("the query to be read", LIMIT, || Ok(queries() > before)).unwrap();
        job.rig.customer.unsilence(upstream).unwrap();
        end();
        waiting.join().unwrap()
    })
}

#[test]
fn a_killed_agents_queries_are_answered_by_the_next() {
    let mut job = Job::with_config(CONFIG);
    for _ in 0..3 {
        let standby = job.agent.beside(&["--standby"]).unwrap();
        let pid = i32::try_from(job.agent.pid()).unwrap();
        let pid = rustix::process::Pid::from_raw(pid).unwrap();
        let kill = || rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
        println!("answered after {:?}", lost_with_the_agent(&job, kill));
        job.agent = standby;
        job.wait_serving();
    }
}

/// Octets that wait in the shim's UDP socket.
fn waiting_octets(rig: &Rig) -> u64 {
    let line = format!("ss -Huln src {SHIM}:53");
    let shown = rig.node.sandbox().run(&line, LIMIT).unwrap().success().unwrap().stdout;
    shown.split_whitespace().nth(1).map_or(0, |octets| octets.parse().unwrap())
}

/// The resolvers of glibc, musl, Node, Go and a JVM ask while no agent runs.
#[test]
fn real_resolvers_wait_for_the_next_agent() {
    let rig = Rig::new().unwrap();
    let (executor, _dns, mut agent) = with_stored_sockets(&rig);
    let programs = LookupPrograms::prepare(&executor.sandbox().home().join("lookups")).unwrap();
    // On a busy machine an agent may start for longer than their five seconds.
    let resolv = format!("nameserver {SHIM}\noptions timeout:25 attempts:2\n");
    executor.sandbox().write("/etc/resolv.conf", &resolv).unwrap();
    for resolver in Resolver::ALL {
        agent.sigkill().unwrap();
        assert_eq!(waiting_octets(&rig), 0, "{resolver:?}");
        let line = programs.line(resolver, INTERNAL_NAME);
        let output = thread::scope(|scope| {
            let lookup = scope.spawn(|| executor.run(&line, LIMIT).unwrap().text());
            until("a query in the socket", LIMIT, || Ok(waiting_octets(&rig) > 0)).unwrap();
            agent.restart().unwrap();
            lookup.join().unwrap()
        });
        let addresses = output.split(|c: char| c != '.' && !c.is_ascii_digit());
        assert!(addresses.into_iter().any(is_vip), "{resolver:?}: {output}\n{}", agent.log_tail());
    }
}

#[test]
fn an_api_server_that_is_silent_delays_no_answer() {
    let rig = Rig::new().unwrap();
    let executor = rig.executor(testbed::ExecutorOptions::pod("job")).unwrap();
    let _dns = rig.customer.dns_server().unwrap();
    let api = FakeApi::start(&rig);
    let level = "--log-level=redirector=info,redirector::dns::queries=trace".to_owned();
    let options = AgentOptions {
        keeps_sockets: true,
        environment: api.environment(),
        arguments: vec![level],
        ..AgentOptions::with_config(binary(), CONFIG)
    };
    let mut agent = Agent::start(&rig.node, options).unwrap();
    api.set_silent();
    agent.sigkill().unwrap();
    let before = agent.log().len();
    thread::scope(|scope| {
        let waiting = scope.spawn(|| time_to_answer(&executor));
        agent.restart().unwrap();
        waiting.join().unwrap();
    });
    // The query has waited in the socket, so it is answered at once, and not after the wait.
    let log = agent.log()[before..].to_owned();
    let (answered, gave_up) =
        (log.find(INTERNAL_NAME), log.find("has not listed the pods within 3s"));
    assert!(answered.is_some() && gave_up.is_some() && answered < gave_up, "{log}");
}

#[test]
fn after_kills_interception_at_sockets_waits() {
    let mut job = Job::with_config(interception::CONFIG);
    let executor = pod(&job, "stranger", ONE);
    assert!(is_vip(&address(&executor, INTERNAL_NAME)));
    for _ in 0..3 {
        job.agent.restart().unwrap();
        let interception = &job.json(&["status"])["dns"]["interception"];
        let reason = interception["reason"].as_str().unwrap_or_default();
        assert!(reason.ends_with("since the last agent was killed"), "{interception}");
        // Another kill would cost no query.
        let found = address(&executor, INTERNAL_NAME);
        assert!(!address(&executor, UNRELATED_NAME).is_empty());
        // On a busy machine the time may be over.
        let still = job.json(&["status"])["dns"]["interception"]["reason"].is_string();
        assert!(!(still && is_vip(&found)), "{found}");
    }
    until("interception to resume", LIMIT, || Ok(is_vip(&address(&executor, INTERNAL_NAME))))
        .unwrap();
    assert!(job.json(&["status"])["dns"]["interception"]["reason"].is_null());
}
