//! What the agent tells whoever runs it: the service manager, and whoever reads its log.

use std::time::Duration;

use testbed::{
    Rig,
    agent::{Agent, AgentOptions, CONFIG_PATH},
    process::until,
};

use crate::{
    rig::{LIMIT, binary},
    stage::CONFIG,
};

/// How long the service manager waits for a sign of life before it takes the agent for dead.
const WATCHDOG: Duration = Duration::from_secs(2);

fn supervised(rig: &Rig) -> Agent {
    let mut options = AgentOptions::with_config(binary(), CONFIG);
    options.environment.push(("WATCHDOG_USEC".into(), WATCHDOG.as_micros().to_string()));
    options.arguments = vec!["--log-format".into(), "json".into()];
    Agent::start(&rig.node, options).unwrap()
}

fn signs_of_life(agent: &mut Agent) -> usize {
    agent.notifications().unwrap().iter().filter(|state| *state == "WATCHDOG=1").count()
}

fn wait_for_a_sign_of_life(agent: &mut Agent) {
    let before = signs_of_life(agent);
    until("a sign of life", LIMIT, || Ok(signs_of_life(agent) > before)).unwrap();
}

#[test]
fn the_service_manager_hears_of_the_start_of_life_of_a_reload_and_of_the_end() {
    let rig = Rig::new().unwrap();
    let mut agent = supervised(&rig);
    assert_eq!(
        agent.notifications().unwrap().iter().filter(|state| *state == "READY=1").count(),
        1
    );
    wait_for_a_sign_of_life(&mut agent);
    wait_for_a_sign_of_life(&mut agent);
    agent.sighup().unwrap();
    let is_reloading = |state: &String| state == "RELOADING=1";
    until("a reload", LIMIT, || {
        let told = agent.notifications()?;
        let reloading = told.iter().position(is_reloading);
        Ok(reloading.is_some_and(|at| told[at..].iter().any(|state| state == "READY=1")))
    })
    .unwrap();
    let told = agent.notifications().unwrap();
    let at = told.iter().position(is_reloading).unwrap();
    assert!(told[at + 1].starts_with("MONOTONIC_USEC="), "{told:?}");
    assert!(agent.sigterm().unwrap().success(), "{}", agent.log_tail());
    assert_eq!(agent.notifications().unwrap().last().unwrap(), "STOPPING=1");
}

#[test]
fn an_agent_that_hangs_gives_no_sign_of_life_and_says_so_to_whoever_asks() {
    let rig = Rig::new().unwrap();
    let mut agent = supervised(&rig);
    wait_for_a_sign_of_life(&mut agent);
    // Reading it waits until somebody writes to it, and so does all that the agent owns; its
    // threads and listeners are well.
    let node = rig.node.sandbox();
    node.run(&format!("rm {CONFIG_PATH} && mkfifo {CONFIG_PATH}"), LIMIT)
        .unwrap()
        .success()
        .unwrap();
    agent.sighup().unwrap();
    let health =
        "curl -s --max-time 2 -o /dev/null -w '%{http_code}' http://127.0.0.1:9464/healthz";
    // 503; or nothing at all, when what hangs is the thread that would have answered.
    until("it to hang", LIMIT, || {
        Ok(["503", "000"].contains(&node.run(health, LIMIT)?.stdout.as_str()))
    })
    .unwrap();
    let before = signs_of_life(&mut agent);
    std::thread::sleep(2 * WATCHDOG);
    assert_eq!(signs_of_life(&mut agent), before, "it would never be restarted");
    assert_eq!(agent.ended().unwrap(), None);
    std::fs::write(node.home().join("config"), CONFIG).unwrap();
    node.run(&format!("cat {} > {CONFIG_PATH}", node.home().join("config").display()), LIMIT)
        .unwrap()
        .success()
        .unwrap();
    wait_for_a_sign_of_life(&mut agent);
}

#[test]
fn each_line_of_a_json_log_is_an_object_that_says_when_how_bad_where_and_what() {
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
    let told = |line: &serde_json::Value| {
        (line["source"].as_str().unwrap().to_owned(), line["change"].as_str().unwrap().to_owned())
    };
    assert_eq!(
        changes.iter().map(|line| told(line)).collect::<Vec<_>>(),
        [("a.b".into(), "Added".into()), ("a.b".into(), "Removed".into())]
    );
    assert!(
        changes.iter().all(|line| line["caller"].as_str().unwrap().starts_with("uid 0 gid 0")),
        "{changes:?}"
    );
    let refused = lines.iter().find(|line| line["level"] == "WARN").unwrap();
    assert!(refused["message"].as_str().unwrap().contains("redirector.toml"), "{refused}");
}
