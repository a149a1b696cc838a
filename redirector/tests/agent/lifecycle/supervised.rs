//! Notifications to the service manager, and the log in JSON.

use std::{os::unix::fs::MetadataExt, time::Duration};

use testbed::{
    Rig,
    agent::{Agent, AgentOptions, CONFIG_PATH},
    process::until,
};

use crate::{
    rig::{LIMIT, binary},
    stage::CONFIG,
};

/// How long the service manager waits for a heartbeat before it restarts the agent.
const WATCHDOG: Duration = Duration::from_secs(2);

fn supervised(rig: &Rig) -> Agent {
    let mut options = AgentOptions::with_config(binary(), CONFIG);
    options.environment.push(("WATCHDOG_USEC".into(), WATCHDOG.as_micros().to_string()));
    options.arguments = vec!["--log-format".into(), "json".into()];
    Agent::start(&rig.node, options).unwrap()
}

fn heartbeats(agent: &mut Agent) -> usize {
    agent.notifications().unwrap().iter().filter(|state| *state == "WATCHDOG=1").count()
}

fn wait_for_a_heartbeat(agent: &mut Agent) {
    let before = heartbeats(agent);
    until("a heartbeat", LIMIT, || Ok(heartbeats(agent) > before)).unwrap();
}

#[test]
fn the_service_manager_is_notified_of_each_phase() {
    let rig = Rig::new().unwrap();
    let mut agent = supervised(&rig);
    assert_eq!(
        agent.notifications().unwrap().iter().filter(|state| *state == "READY=1").count(),
        1
    );
    wait_for_a_heartbeat(&mut agent);
    wait_for_a_heartbeat(&mut agent);
    agent.sighup().unwrap();
    let is_reloading = |state: &String| state == "RELOADING=1";
    until("a reload", LIMIT, || {
        let notifications = agent.notifications()?;
        let reloading = notifications.iter().position(is_reloading);
        Ok(reloading.is_some_and(|at| notifications[at..].iter().any(|state| state == "READY=1")))
    })
    .unwrap();
    let notifications = agent.notifications().unwrap();
    let at = notifications.iter().position(is_reloading).unwrap();
    assert!(notifications[at + 1].starts_with("MONOTONIC_USEC="), "{notifications:?}");
    assert!(agent.sigterm().unwrap().success(), "{}", agent.log_tail());
    assert_eq!(agent.notifications().unwrap().last().unwrap(), "STOPPING=1");
}

/// The last status text, as `systemctl status` shows it.
fn status_text(agent: &mut Agent) -> Option<String> {
    let notifications = agent.notifications().unwrap();
    notifications.iter().rev().find_map(|state| state.strip_prefix("STATUS=").map(str::to_owned))
}

#[test]
fn the_status_text_shows_what_works_and_what_does_not() {
    let rig = Rig::new().unwrap();
    let _dns = rig.customer.dns_server().unwrap();
    let config = "[attach]\ncgroups = [\"nowhere*\"]\ninterfaces = \"off\"\n";
    let options = AgentOptions::with_config(binary(), config);
    let mut agent = Agent::start(&rig.node, options).unwrap();
    let first = status_text(&mut agent).unwrap();
    assert!(first.starts_with("redirecting 0 routes for 0 cgroups and 0 interfaces"), "{first}");
    assert!(first.contains("; degraded: no cgroup matches attach.cgroups"), "{first}");
    rig.node.cli(binary(), &["route", "add", "a.b", "203.0.113.7"]).unwrap().success().unwrap();
    let is_current = |text: String| text.starts_with("redirecting 1 route for ");
    until("the new text", LIMIT, || Ok(status_text(&mut agent).is_some_and(is_current))).unwrap();
}

#[test]
fn a_reload_fails_on_a_wrong_file_and_is_live_on_return() {
    let rig = Rig::new().unwrap();
    let _job = rig.executor(testbed::ExecutorOptions::pod("job")).unwrap();
    let config = |scope: &str| format!("[attach]\ncgroups = [\"{scope}\"]\ninterfaces = \"off\"\n");
    let options = AgentOptions::with_config(binary(), &config("nowhere*"));
    let mut agent = Agent::start(&rig.node, options).unwrap();
    let attachments = || {
        let status = rig.node.cli_json(binary(), &["status"]).unwrap();
        status["datapath"]["attachments"].as_array().unwrap().len()
    };
    assert_eq!(attachments(), 0);
    agent.write_config("[attach]\ncgroup = 1\n").unwrap();
    let refused = rig.node.cli(binary(), &["reload"]).unwrap();
    assert_eq!(refused.status.code(), Some(2), "{}", refused.text());
    assert!(refused.stderr.contains("redirector.toml:2"), "{}", refused.text());
    agent.write_config(&config("kubepods*")).unwrap();
    let done = rig.node.cli(binary(), &["reload"]).unwrap().success().unwrap();
    assert_eq!(done.stdout, "reloaded: 0 routes changed\n");
    assert!(attachments() > 0, "attached before the command returned\n{}", agent.log_tail());
}

#[test]
fn lines_for_the_journal_have_a_priority_and_no_time() {
    let rig = Rig::new().unwrap();
    let log = rig.files().join("agent.log");
    std::fs::write(&log, "").unwrap();
    let file = std::fs::metadata(&log).unwrap();
    let stream = format!("{}:{}", file.dev(), file.ino());
    let mut options = AgentOptions::with_config(binary(), CONFIG);
    options.environment.push(("JOURNAL_STREAM".into(), stream));
    let mut agent = Agent::start(&rig.node, options).unwrap();
    agent.write_config("[pool\n").unwrap();
    assert!(!rig.node.cli(binary(), &["reload"]).unwrap().status.success());
    agent.sigterm().unwrap();
    let log = agent.log();
    for line in log.lines() {
        let known =
            ["<3>ERROR ", "<4>WARN ", "<6>INFO "].iter().any(|start| line.starts_with(start));
        // A further line of a message has the priority of the first.
        assert!(known || line.starts_with("<4>"), "{line}");
    }
    let warning = "<4>WARN the configuration was not reloaded";
    assert!(log.lines().any(|line| line.starts_with(warning)), "{log}");
}

#[test]
fn a_hanging_agent_sends_no_heartbeat_and_is_not_healthy() {
    let rig = Rig::new().unwrap();
    let mut agent = supervised(&rig);
    wait_for_a_heartbeat(&mut agent);
    // Reading a pipe blocks until it is written to, and with it the event loop; the agent's other
    // threads and its listeners work.
    let node = rig.node.sandbox();
    node.run(&format!("rm {CONFIG_PATH} && mkfifo {CONFIG_PATH}"), LIMIT)
        .unwrap()
        .success()
        .unwrap();
    agent.sighup().unwrap();
    let health =
        "curl -s --max-time 2 -o /dev/null -w '%{http_code}' http://127.0.0.1:9464/healthz";
    // 503, or no response when the thread that hangs is the one that would have responded.
    until("the agent to hang", LIMIT, || {
        Ok(["503", "000"].contains(&node.run(health, LIMIT)?.stdout.as_str()))
    })
    .unwrap();
    let before = heartbeats(&mut agent);
    std::thread::sleep(2 * WATCHDOG);
    assert_eq!(heartbeats(&mut agent), before, "otherwise it would never be restarted");
    assert_eq!(agent.ended().unwrap(), None);
    std::fs::write(node.home().join("config"), CONFIG).unwrap();
    node.run(&format!("cat {} > {CONFIG_PATH}", node.home().join("config").display()), LIMIT)
        .unwrap()
        .success()
        .unwrap();
    wait_for_a_heartbeat(&mut agent);
}

#[test]
fn each_line_of_the_json_log_has_time_level_and_target() {
    let rig = Rig::new().unwrap();
    let mut agent = supervised(&rig);
    for arguments in [&["route", "add", "a.b", "203.0.113.7"][..], &["route", "remove", "a.b"]] {
        rig.node.cli(binary(), arguments).unwrap().success().unwrap();
    }
    agent.write_config("[pool\n").unwrap();
    agent.sighup().unwrap();
    until("the refusal of the configuration", LIMIT, || {
        Ok(agent.log().contains("was not reloaded"))
    })
    .unwrap();
    agent.sigterm().unwrap();
    let log = agent.log();
    let lines: Vec<serde_json::Value> = log
        .lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}")))
        .collect();
    for line in &lines {
        let text = |key: &str| line[key].as_str().unwrap_or_else(|| panic!("no {key}: {line}"));
        text("timestamp").parse::<jiff::Timestamp>().unwrap();
        assert!(["ERROR", "WARN", "INFO"].contains(&text("level")), "{line}");
        assert!(text("target").starts_with("redirector") && !text("message").is_empty(), "{line}");
    }
    let changes: Vec<_> =
        lines.iter().filter(|line| line["message"] == "a route was changed").collect();
    let fields = |line: &serde_json::Value| {
        (line["source"].as_str().unwrap().to_owned(), line["change"].as_str().unwrap().to_owned())
    };
    assert_eq!(
        changes.iter().map(|line| fields(line)).collect::<Vec<_>>(),
        [("a.b".into(), "Added".into()), ("a.b".into(), "Removed".into())]
    );
    assert!(
        changes.iter().all(|line| line["caller"].as_str().unwrap().starts_with("uid 0 gid 0")),
        "{changes:?}"
    );
    let warnings: Vec<_> = lines.iter().filter(|line| line["level"] == "WARN").collect();
    let names_the_file =
        |line: &&serde_json::Value| line["message"].as_str().unwrap().contains("redirector.toml");
    assert!(warnings.iter().any(names_the_file), "{warnings:?}");
}
