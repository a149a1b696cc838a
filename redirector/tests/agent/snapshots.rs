//! The exact output of every command in every state of the agent: `snapshots/` has one file for
//! each state. `INSTA_UPDATE=always cargo test -p redirector --test agent snapshots` updates them;
//! review the difference before committing it.

use std::fmt::Write as _;

use testbed::process::{self, Finished, until};

use crate::rig::{Job, LIMIT, binary};

/// A route that works, one whose name does not resolve, and one whose only backend refuses.
const CONFIG: &str = "\
[[routes]]
source = \"artifactory.internal.company.net\"
destination = [\"203.0.113.7\", \"203.0.113.8\"]
ports = [\"443\", \"80\", \"8443:8080\"]
";
const TROUBLE: &str = "\
[[routes]]
source = \"nowhere.internal.company.net\"
destination = \"nowhere.public.company.net\"
[[routes]]
source = \"refusing.internal.company.net\"
destination = \"203.0.113.1\"
source_ips = [\"192.0.2.77\"]
";
const PLATFORM_YAML: &str = "\
spec:
  infrastructure:
    executorPrivateDNS:
      proxyTag: insiders
      routes:
        - source: npm.internal.company.net
          destination: artifactory.public.company.net
          resolverIP: 203.0.113.53
";

/// Commands that only read, in the order of the help.
const READING: &[&str] = &[
    "status",
    "route list",
    "route show artifactory.internal.company.net",
    "route show unknown.internal.company.net",
    "route history",
    "route export",
    "explain artifactory.internal.company.net",
    "explain unknown.internal.company.net",
    "config check",
    "config show",
];

/// Commands that show activity.
const WATCHING: &[&str] = &["events", "top --once"];

/// A terminal session: commands, what they printed, and how they ended.
struct Session<'a> {
    job: &'a Job,
    text: String,
}

impl<'a> Session<'a> {
    fn new(job: &'a Job) -> Self {
        Self { job, text: String::new() }
    }

    /// Runs a command as root.
    fn run(&mut self, line: &str) -> &mut Self {
        let arguments: Vec<&str> = line.split(' ').collect();
        let finished = self.job.cli(&arguments);
        self.note(&format!("node# redirector {line}"), &finished)
    }

    fn run_all(&mut self, lines: &[&str]) -> &mut Self {
        lines.iter().fold(self, |session, line| session.run(line))
    }

    /// Runs a command as a user without privileges.
    fn run_as_nobody(&mut self, line: &str) -> &mut Self {
        let mut command = self.job.rig.node.command("setpriv");
        command
            .args(["--reuid=65534", "--regid=65534", "--clear-groups", "--"])
            .arg(binary())
            .args(line.split(' '));
        let finished = process::finish(command, LIMIT).unwrap();
        self.note(&format!("nobody$ redirector {line}"), &finished)
    }

    fn note(&mut self, prompt: &str, finished: &Finished) -> &mut Self {
        let _ = write!(self.text, "{prompt}\n{}", finished.stdout);
        finished.stderr.lines().for_each(|line| {
            let _ = writeln!(self.text, "2> {line}");
        });
        match finished.status.code() {
            Some(0) => {}
            Some(code) => {
                let _ = writeln!(self.text, "exit {code}");
            }
            None => panic!("{prompt}: {}", finished.text()),
        }
        self.text.push('\n');
        self
    }

    /// Compares with a snapshot. Values that differ between runs or machines are replaced by names.
    fn assert(&self, name: &str) {
        self.assert_with(&[], name);
    }

    /// The same with further replacements: a regular expression, and its substitute.
    fn assert_with(&self, different: &[(&str, &str)], name: &str) {
        let mut settings = insta::Settings::clone_current();
        settings.set_omit_expression(true);
        settings.set_prepend_module_to_snapshot(false);
        for (expression, substitute) in [
            (r"/tmp/redirector-rig-[^ /]*", "[rig]"),
            (r"redirector-rig-[0-9-]+", "[rig]"),
            (r"/(sys/fs/cgroup|[a-z/]*cgroup[a-z0-9]*)(/unified)?/\[rig\]", "[cgroup2]/[rig]"),
            (r"mounted at /[^ ;]*;", "mounted at [cgroup2];"),
            (r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(\.\d+Z)?", "[time]"),
            (r"pid \d+", "pid [pid]"),
            (r#""pid": \d+"#, r#""pid": "[pid]""#),
            (
                r#""(cgroup_id|heartbeat_age_ms|uptime_seconds|retry_in_ms|connect_ns|abi)": \d+"#,
                r#""$1": "[number]""#,
            ),
            (
                r#""(queries|failed|rx_bytes|tx_bytes|retransmitted|srtt_us|emitted)": \d+"#,
                r#""$1": "[number]""#,
            ),
            (r#""(took_ms|latency_ms)": [\d.]+"#, r#""$1": "[number]""#),
            (r#"(?s)"latency": \[[^\]]*\]"#, r#""latency": "[histogram]""#),
            (r"ABI \d+, \d+ programs", "ABI [abi], [n] programs"),
            (r"this binary has \d+", "this binary has [abi]"),
            (r"heartbeat [^,\n]+ ago", "heartbeat [age] ago"),
            (r"(just started|up \d[^\n]*)", "up [age]"),
            (r"retry in \d+ (ms|s)", "retry in [age]"),
            (r"\[age\] {2,}", "[age]  "),
            (r"(BACKEND|WHO) +(STATE|WHAT) +", "$1  $2  "),
            (r"pid \[pid\] {2,}", "pid [pid]  "),
            (r"\d+ sent to an ejected backend", "[n] sent to an ejected backend"),
            (r#""all_ejected": \d+"#, r#""all_ejected": "[number]""#),
            (r"answer \d of 3", "answer [n] of 3"),
            (r"(in|after) \d+ ms", "$1 [n] ms"),
            (r"198\.51\.100\.1:\d+", "198.51.100.1:[port]"),
            (r"(through |company\.net:443:)203\.0\.113\.[78]:443", "$1[backend]:443"),
            (r"redirector-verify-\d+", "redirector-verify-[n]"),
            (r"ejected after \d+ failures", "ejected after [n] failures"),
            (r"unhealthy \(\d+ failures\)", "unhealthy ([n] failures)"),
            (r"only, after \d+ failures", "only, after [n] failures"),
            (r"[67]\.\d+\.\d+[-\w.]*; 5\.", "[kernel]; 5."),
            (
                r"\d+ load; the verifier processed \d+ instructions",
                "[n] load; the verifier processed [n] instructions",
            ),
            (r"removed \d+ (links|pinned maps)", "removed [n] $1"),
            (r#""(links|maps|failures)": \d+"#, r#""$1": "[number]""#),
            (r"Linux \d[^\n]*", "Linux [kernel]"),
            (
                r"\d+(\.\d+)? (B|KiB) received, \d+(\.\d+)? (B|KiB) sent",
                "[bytes] received, [bytes] sent",
            ),
            (r#"(?s)"programs": \[[^\]]*\]"#, r#""programs": "[programs]""#),
            (r#"(?s)("names": \d+,\s+"counters": )\{[^}]*\}"#, r#"$1"[counters]""#),
            (r"(names?) answered \d+ times", "$1 answered [n] times"),
            // A probe may have a port for a moment.
            (r#"\n *"source_ports": \[[^\]]*\],"#, ""),
            (r#""(packet|shim)": \d+"#, r#""$1": "[number]""#),
            (r" +\d+(\.\d+)? (µs|ms|s) +\d+(\.\d+)? (µs|ms|s)  serving", "  [took]  serving"),
        ] {
            settings.add_filter(expression, substitute);
        }
        for (expression, substitute) in different {
            settings.add_filter(expression, *substitute);
        }
        settings.bind(|| insta::assert_snapshot!(name, &self.text));
    }
}

/// The same commands for a program: `-o json` on each that has it.
fn as_json(lines: &[&str]) -> Vec<String> {
    lines
        .iter()
        .filter(|line| !line.starts_with("config "))
        .map(|line| format!("{line} -o json"))
        .collect()
}

fn run_json(session: &mut Session<'_>, lines: &[&str]) {
    as_json(lines).iter().for_each(|line| {
        session.run(line);
    });
}

/// Waits until the heartbeat is older than two seconds, which counts as stale.
fn wait_until_stale(job: &Job) {
    until("the heartbeat to be stale", LIMIT, || {
        Ok(job.json(&["status"])["datapath"]["heartbeat_age_ms"].as_u64() > Some(2000))
    })
    .unwrap();
}

fn write(job: &Job, name: &str, text: &str) -> String {
    let file = job.rig.node.sandbox().home().join(name);
    job.rig.node.sandbox().write(&file, text).unwrap();
    file.to_str().unwrap().to_owned()
}

#[test]
fn agent_up() {
    let job = Job::with_config(CONFIG);
    let _registry = job.registry();
    let authority = write(&job, "authority.pem", job.rig.customer.ca_pem());
    let (mut session, mut json) = (Session::new(&job), Session::new(&job));
    session.run_all(READING);
    // Before the first connect, which goes to either of the backends.
    run_json(&mut json, READING);
    session.run("verify artifactory.internal.company.net");
    session
        .run(&format!("verify artifactory.internal.company.net --ca {authority}"))
        .run("check")
        .run("unload")
        .assert("up");
    json.run(&format!("verify artifactory.internal.company.net --ca {authority} -o json"))
        .run("check -o json")
        .assert("up-json");
}

/// `events` and `top`, after one connection has been made and closed.
#[test]
fn agent_at_work() {
    let job = Job::with_config(&CONFIG.replace(", \"203.0.113.8\"", ""));
    let _registry = job.registry();
    let page = "curl -sk --max-time 10 -o /dev/null https://artifactory.internal.company.net/";
    job.executor.run(page, LIMIT).unwrap().success().unwrap();
    until("the event of the connection", LIMIT, || {
        Ok(job.cli(&["events"]).stdout.contains("closed"))
    })
    .unwrap();
    let mut session = Session::new(&job);
    session.run_all(&[
        "events",
        "events --failed",
        "events --route unknown.internal.company.net",
        "events --follow --count 1 -n 1",
        "top --once",
        "top --once --route unknown.internal.company.net",
        "events -o json",
        "top --once -o json",
    ]);
    session.assert_with(
        &[
            (r"\d\d:\d\d:\d\d\.\d+", "[clock]"),
            (r" *\d+(\.\d+)? (ns|µs|ms|s)\b", " [took]"),
            (r" \[took\] \[took\]  serving", "  [took]  serving"),
            (r", \d+ segments? retransmitted", ""),
            // The process may be gone when its event is read.
            (r"(curl|process )\[\d+\]", "curl[pid]"),
            (r#""command":null"#, r#""command":"curl""#),
            (r#""interval_seconds":[\d.]+"#, r#""interval_seconds":"[number]""#),
            (r#""(at|from|to|since)":"[^"]*""#, r#""$1":"[time]""#),
            (
                r#""(pid|cgroup_id|rx_bytes|tx_bytes|retransmitted|(uptime_)?seconds)":[\d.]+"#,
                r#""$1":"[number]""#,
            ),
            (r#""([a-z0-9_]*(_us|_ns|_ms))":[\d.]+"#, r#""$1":"[number]""#),
        ],
        "at-work",
    );
}

#[test]
fn changes() {
    let job = Job::with_config(CONFIG);
    let yaml = write(&job, "platform.yaml", PLATFORM_YAML);
    let bad = write(
        &job,
        "bad.yaml",
        "routes:\n  - source: 10.0.0.1\n    destination: lb:443\n  - destination: lb\n",
    );
    let mut session = Session::new(&job);
    session.run_all(&[
        "route add git.internal.company.net 203.0.113.8 --port 22 --port 443",
        "route add git.internal.company.net 203.0.113.7",
        "route add artifactory.internal.company.net 203.0.113.7",
        "route add nowhere.internal.company.net nowhere.public.company.net",
        "route add 10.0.0.1 203.0.113.7",
        "route add a..b lb:443 --port 0",
        "route set git.internal.company.net --destination 203.0.113.7 --clear ports",
        "route set git.internal.company.net --destination 203.0.113.7",
        "route set artifactory.internal.company.net --idle-timeout 350s",
        "route set unknown.internal.company.net --idle-timeout 350s",
        "route list",
        "route remove nowhere.internal.company.net",
        "route remove artifactory.internal.company.net",
        "route remove artifactory.internal.company.net",
        "route remove gitt.internal.company.net",
    ]);
    for rest in ["--dry-run", "", "", "--replace --dry-run", "--replace"] {
        session.run(format!("route import {yaml} {rest}").trim_end());
    }
    session.run(&format!("route import {bad}")).run("route import /nonexistent.yaml");
    session.run_all(&[
        "route list",
        "route history",
        "route rollback --dry-run",
        "route rollback",
        "route rollback",
        "route history",
        "route history 3",
        "route history 6",
        "route history 99",
        "route history x",
    ]);
    session.assert("changes");
    let mut json = Session::new(&job);
    json.run_all(&[
        "route add x.internal 203.0.113.8 -o json",
        "route set x.internal --port 443 -o json",
        "route remove x.internal -o json",
    ]);
    json.run(&format!("route import {yaml} --dry-run -o json")).run_all(&[
        "route rollback -o json",
        "route history 5 -o json",
        "route history -o json",
    ]);
    json.assert("changes-json");
}

/// The commands of the session with a degraded agent. `verify` comes after those that show the
/// ejection for the executor's cgroup: where it agrees, the backend is ejected for all.
const DEGRADED: [&str; 9] = [
    "status",
    "route show refusing.internal.company.net",
    "explain refusing.internal.company.net",
    "explain artifactory.internal.company.net",
    "explain nowhere.internal.company.net",
    "verify nowhere.internal.company.net",
    "verify refusing.internal.company.net",
    "config check",
    "config show",
];

/// An agent with an invalid configuration file, a route without backends, and one whose backend has
/// just refused connects.
fn degraded() -> Job {
    let mut job = Job::with_config(&format!("{CONFIG}{TROUBLE}"));
    job.agent.write_config("[dns]\nttll = 3\n[[routes]]\nsource = \"a.b\"\n").unwrap();
    job.agent.sighup().unwrap();
    // Only the third NXDOMAIN counts.
    let await_status = |words: &str| {
        until(words, LIMIT, || Ok(job.cli(&["status"]).stdout.contains(words))).unwrap()
    };
    await_status("the configuration file is invalid");
    await_status("has no address");
    for _ in 0..12 {
        let page = "curl -sk --max-time 2 -o /dev/null https://refusing.internal.company.net/";
        let _ = job.executor.run(page, LIMIT).unwrap();
    }
    job
}

#[test]
fn agent_degraded() {
    let job = degraded();
    let mut session = Session::new(&job);
    session.run_all(&DEGRADED).run("route add c.internal 203.0.113.8").assert("degraded");
}

#[test]
fn agent_degraded_for_programs() {
    let job = degraded();
    let mut session = Session::new(&job);
    run_json(&mut session, &DEGRADED);
    session.assert("degraded-json");
}

#[test]
fn agent_down() {
    let mut job = Job::with_config(CONFIG);
    let _registry = job.registry();
    job.agent.sigkill().unwrap();
    wait_until_stale(&job);
    let mut session = Session::new(&job);
    session.run_all(READING).run("verify artifactory.internal.company.net");
    session.run_all(WATCHING);
    session
        .run_all(&[
            "route add a.b 203.0.113.7",
            "route remove a.b",
            "route rollback",
            "check",
            "unload",
        ])
        .assert("down");
    job.agent.restart().unwrap();
    job.agent.sigkill().unwrap();
    wait_until_stale(&job);
    let mut json = Session::new(&job);
    run_json(&mut json, READING);
    json.run("verify artifactory.internal.company.net -o json")
        .run("unload -o json")
        .assert("down-json");
}

#[test]
fn no_agent_and_none_of_its_pins() {
    let mut job = Job::with_config(CONFIG);
    job.agent.sigkill().unwrap();
    job.cli(&["unload"]).success().unwrap();
    let mut session = Session::new(&job);
    session.run_all(READING).run_all(WATCHING).run_all(&[
        "verify artifactory.internal.company.net",
        "route add a.b 203.0.113.7",
        "route remove a.b",
        "route rollback",
        "check",
        "unload",
    ]);
    session.assert("absent");
    let mut json = Session::new(&job);
    run_json(&mut json, READING);
    json.run("check -o json").run("unload -o json").assert("absent-json");
}

/// Pins that another version has made, and an agent that can't start because of them.
#[test]
fn pins_of_another_version() {
    let mut job = Job::with_config(CONFIG);
    job.agent.sigkill().unwrap();
    job.rig
        .node
        .sandbox()
        .run("cd /sys/fs/bpf/redirector && mv v* v99", LIMIT)
        .unwrap()
        .success()
        .unwrap();
    let mut session = Session::new(&job);
    session.run_all(&[
        "status",
        "route list",
        "explain artifactory.internal.company.net",
        "verify artifactory.internal.company.net",
        "run",
        "status -o json",
        "events",
        "top --once",
        "unload",
        "unload",
    ]);
    session.assert("other-version");
}

/// An agent that is alive and does not answer.
#[test]
fn agent_that_hangs() {
    let job = Job::with_config(CONFIG);
    let _registry = job.registry();
    job.rig
        .node
        .sandbox()
        .run(&format!("kill -STOP {}", job.agent.pid()), LIMIT)
        .unwrap()
        .success()
        .unwrap();
    wait_until_stale(&job);
    let mut session = Session::new(&job);
    session
        .run_all(&["status", "explain artifactory.internal.company.net", "status -o json"])
        .run_all(WATCHING);
    session.run_all(&["run", "unload"]).assert("hangs");
    job.rig
        .node
        .sandbox()
        .run(&format!("kill -CONT {}", job.agent.pid()), LIMIT)
        .unwrap()
        .success()
        .unwrap();
}

#[test]
fn no_privileges() {
    let mut job = Job::with_config(CONFIG);
    let lines = &[
        "status",
        "route list",
        "route add a.b 203.0.113.7",
        "explain artifactory.internal.company.net",
        "verify artifactory.internal.company.net",
        "config check",
        "check",
        "check -o json",
        "status -o json",
        "events",
        "top --once",
        "run",
        "unload",
    ];
    let mut session = Session::new(&job);
    lines.iter().for_each(|line| {
        session.run_as_nobody(line);
    });
    session.assert("no-privileges");
    job.agent.sigkill().unwrap();
    let mut session = Session::new(&job);
    lines[..4].iter().chain(&["unload"]).for_each(|line| {
        session.run_as_nobody(line);
    });
    session.assert("no-privileges-agent-down");
}
