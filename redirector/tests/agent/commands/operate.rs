//! Operation: metrics, rollbacks, swapped ConfigMaps, many clients at once, and malformed requests.

use std::{
    collections::BTreeMap,
    io::{Read, Write},
    os::unix::net::UnixStream,
    path::PathBuf,
    time::Duration,
};

use redirector::{
    control::{Client, api::ChangeKind},
    route::{RawRoute, SourceName},
};
use testbed::{
    agent::{Agent, AgentOptions},
    process::until,
    topology::INTERNAL_NAME,
    topology::UNRELATED_NAME,
};

use crate::rig::{Job, LIMIT};

const CONFIG: &str = "\
[[routes]]
source = \"artifactory.internal.company.net\"
destination = \"artifactory.public.company.net\"
";

/// The path of the agent's control socket outside the rig.
pub(crate) fn socket(job: &Job) -> PathBuf {
    format!("/proc/{}/root/run/redirector/control.sock", job.agent.pid()).into()
}

fn scrape(job: &Job) -> String {
    job.rig
        .node
        .sandbox()
        .run("curl -sS --max-time 5 http://127.0.0.1:9464/metrics", LIMIT)
        .unwrap()
        .success()
        .unwrap()
        .stdout
}

/// Queried names are private, so the log contains them only at level `trace` of its own target.
#[test]
fn queried_names_are_logged_only_at_trace_level() {
    let mut job = Job::new();
    // So that the queries reach the shim.
    let config = testbed::agent::documented_config()
        .unwrap()
        .replace("intercept = \"auto\"", "intercept = \"off\"");
    for (level, logged) in [("debug", false), ("info,redirector::dns::queries=trace", true)] {
        job.agent.sigterm().unwrap();
        let arguments = ["--log-level", level].map(str::to_owned).to_vec();
        let options =
            AgentOptions { arguments, ..AgentOptions::with_config(crate::rig::binary(), &config) };
        job.agent = Agent::start(&job.rig.node, options).unwrap();
        job.vip();
        job.executor
            .run(&format!("getent ahostsv4 {UNRELATED_NAME}"), LIMIT)
            .unwrap()
            .success()
            .unwrap();
        let log = job.agent.log();
        assert_eq!(log.contains(UNRELATED_NAME), logged, "{log}");
        let of_ours =
            log.lines().any(|line| line.contains("query client=") && line.contains(INTERNAL_NAME));
        assert_eq!(of_ours, logged, "{log}");
    }
}

#[test]
fn metrics_of_connects_survive_a_restart() {
    let mut job = Job::with_config(CONFIG);
    for _ in 0..5 {
        job.shell(&format!("curl -sS --max-time 10 http://{INTERNAL_NAME}:8080/"));
    }
    let expect = |page: &str, lines: &[String]| {
        for line in lines {
            assert!(page.lines().any(|found| found == line), "{line} is not in\n{page}");
        }
    };
    let counted = [
        format!("redirector_route_connects_started_total{{source=\"{INTERNAL_NAME}\"}} 5.0"),
        format!(
            "redirector_route_connects_ended_total\
                {{source=\"{INTERNAL_NAME}\",result=\"established\"}} 5.0"
        ),
        format!("redirector_route_backends{{source=\"{INTERNAL_NAME}\",state=\"eligible\"}} 2.0"),
        "redirector_degraded 0.0".into(),
        "redirector_attached_cgroups 1.0".into(),
        "redirector_scrape_errors_total 0.0".into(),
    ];
    let page = scrape(&job);
    expect(&page, &counted);
    assert!(
        page.contains("redirector_dns_outcomes_total{outcome=\"answered\"} ")
            && page.ends_with("# EOF\n")
    );
    job.agent.restart().unwrap();
    expect(&scrape(&job), &counted);
}

#[test]
fn a_rollback_undoes_the_last_change_and_is_in_the_history() {
    let mut job = Job::with_config(CONFIG);
    let run = |job: &Job, arguments: &[&str]| {
        let finished = job.cli(arguments);
        assert!(finished.status.success(), "{arguments:?}: {}", finished.text());
        finished.stdout
    };
    let greeted = |job: &Job| {
        job.shell(&format!("curl -sS --max-time 10 http://{INTERNAL_NAME}:8080/")).trim().to_owned()
    };
    run(&job, &["route", "set", INTERNAL_NAME, "--destination", "203.0.113.7"]);
    run(&job, &["route", "set", INTERNAL_NAME, "--destination", "203.0.113.8"]);
    assert_eq!(greeted(&job), "lb2");
    let dry = run(&job, &["route", "rollback", "--dry-run"]);
    assert!(
        dry.contains("would undo change 2")
            && dry.contains("203.0.113.7")
            && dry.contains("nothing was changed"),
        "{dry}"
    );
    assert_eq!(greeted(&job), "lb2");
    // It survives a restart.
    job.agent.restart().unwrap();
    let output = run(&job, &["route", "rollback"]);
    assert!(
        output.contains("undid change 2 (changed at") && output.contains("by uid 0"),
        "{output}"
    );
    assert!((0..6).all(|_| greeted(&job) == "lb1"));
    let history = job.json(&["route", "history"]);
    assert_eq!(history["changes"].as_array().unwrap().len(), 3, "{history}");
    assert_eq!(
        (&history["changes"][0]["undoes"], &history["changes"][1]["undone"]),
        (&2.into(), &true.into()),
        "{history}"
    );
    run(&job, &["route", "rollback"]);
    assert_eq!(job.json(&["route", "show", INTERNAL_NAME])["route"]["origin"], "file");
    let nothing = job.cli(&["route", "rollback"]);
    assert_eq!(nothing.status.code(), Some(1), "{}", nothing.text());
    assert!(nothing.stderr.contains("no change to undo"), "{}", nothing.text());
}

#[test]
fn a_swapped_configmap_is_read_within_seconds() {
    let job = Job::with_config(CONFIG);
    // As the kubelet does: the file is a link into ..data, which is a link that is replaced.
    let swap = |version: &str, text: &str| {
        let line = format!(
            "cd /etc/redirector && mkdir ..{version} && \
             printf '%s' '{text}' >..{version}/redirector.toml && ln -s ..{version} ..data_tmp && \
             mv -T ..data_tmp ..data && ln -sfn ..data/redirector.toml redirector.toml"
        );
        job.rig.node.sandbox().run(&line, LIMIT).unwrap().success().unwrap();
    };
    let routes = || job.json(&["route", "list"])["routes"].as_array().unwrap().len();
    for (version, count) in [("one", 2), ("two", 3), ("three", 1)] {
        let more: String = (1..count)
            .map(|n| {
                format!(
                    "[[routes]]\nsource = \
                \"host{n}.internal.company.net\"\ndestination = \"203.0.113.7\"\n"
                )
            })
            .collect();
        swap(version, &format!("{CONFIG}{more}"));
        until("the swapped file to be in force", Duration::from_secs(6), || Ok(routes() == count))
            .unwrap_or_else(|error| {
                panic!("{version}: {error:#}\n{}", job.agent.log_tail());
            });
    }
}

/// Each client has sources of its own, so that their final state is known; they contend for
/// everything else.
#[test]
fn ten_thousand_concurrent_changes_match_a_model() {
    const CLIENTS: usize = 10;
    const EACH: usize = 1000;
    let mut job = Job::with_config(CONFIG);
    let socket = socket(&job);
    let models: Vec<BTreeMap<String, String>> = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..CLIENTS)
            .map(|number| {
                scope.spawn({
                    let socket = socket.clone();
                    move || work(number, EACH, socket)
                })
            })
            .collect();
        workers.into_iter().map(|worker| worker.join().unwrap()).collect()
    });
    let expected: BTreeMap<String, String> = models.into_iter().flatten().collect();
    let stored = |job: &Job| -> BTreeMap<String, String> {
        let exported = job.json(&["route", "export"]);
        let routes = exported["routes"].as_array().unwrap().iter();
        let pairs = routes.map(|route| {
            (
                route["source"].as_str().unwrap().to_owned(),
                route["destination"][0].as_str().unwrap_or_default().to_owned(),
            )
        });
        pairs.filter(|(source, _)| source != INTERNAL_NAME).collect()
    };
    assert_eq!(stored(&job), expected);
    let status = job.json(&["status"]);
    let vips: std::collections::BTreeSet<_> = status["routes"]
        .as_array()
        .unwrap()
        .iter()
        .map(|route| route["vip"]["ipv4"].to_string())
        .collect();
    assert_eq!(vips.len(), expected.len() + 1, "each route has an address of its own");
    job.agent.restart().unwrap();
    assert_eq!(stored(&job), expected, "after a SIGKILL");
    assert_eq!(job.json(&["route", "history"])["changes"].as_array().unwrap().len(), 100);
}

/// Makes random changes of its own sources, and compares each answer with the model.
fn work(number: usize, changes: usize, socket: PathBuf) -> BTreeMap<String, String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let client = Client::new(socket);
    let mut model = BTreeMap::new();
    runtime.block_on(async {
        for _ in 0..changes {
            let source = format!("host{}.client{number}.internal", rand::random::<u32>() % 12);
            let destination = format!("203.0.113.{}", rand::random::<u32>() % 4 + 1);
            let name: SourceName = source.parse().unwrap();
            let definition = serde_json::json!({"source": source, "destination": destination});
            let known = model.contains_key(&source);
            match rand::random::<u32>() % 3 {
                0 => {
                    let added =
                        client.add(&serde_json::from_value::<RawRoute>(definition).unwrap()).await;
                    assert_eq!(added.is_ok(), !known, "{added:?}");
                    model.entry(source).or_insert(destination);
                }
                1 => {
                    let patch =
                        serde_json::from_value(serde_json::json!({"destination": destination}))
                            .unwrap();
                    let set = client.set(&name, &patch).await;
                    assert_eq!(set.is_ok(), known, "{set:?}");
                    if known {
                        let same = model.insert(source, destination.clone()) == Some(destination);
                        assert_eq!(
                            set.unwrap().change,
                            if same { ChangeKind::Unchanged } else { ChangeKind::Changed }
                        );
                    }
                }
                _ => {
                    let removed = client.remove(&name).await;
                    assert_eq!(removed.is_ok(), model.remove(&source).is_some(), "{removed:?}");
                }
            }
        }
    });
    model
}

#[test]
fn malformed_requests_are_refused_and_change_nothing() {
    let job = Job::with_config(CONFIG);
    let before = job.json(&["route", "export"]);
    let socket = socket(&job);
    let mut statuses = BTreeMap::<u16, usize>::new();
    for number in 0..500 {
        let request = malformed(number);
        let answer = exchange(&socket, &request);
        let shown = String::from_utf8_lossy(&request[..request.len().min(200)]).into_owned();
        let Some(status) =
            answer.strip_prefix("HTTP/1.1 ").and_then(|rest| rest.get(..3)?.parse::<u16>().ok())
        else {
            panic!("{shown}: no answer but `{answer}`");
        };
        assert!((400..500).contains(&status), "{shown}: {answer}");
        // The HTTP library refuses what is not HTTP, without a body.
        if let Some((_, body)) = answer.split_once("\r\n\r\n").filter(|(_, body)| !body.is_empty())
        {
            let error: serde_json::Value = serde_json::from_str(body.trim())
                .unwrap_or_else(|error| panic!("{shown}: {error}: {answer}"));
            let message = error["error"]["message"].as_str().unwrap();
            assert!(error["error"]["code"].is_string(), "{shown}: {answer}");
            // The remedy is a field of its own, or next to the invalid key.
            let has_remedy = error["error"]["remedy"].is_string()
                || REMEDIES.iter().any(|word| message.contains(word));
            assert!(message.len() > 10 && has_remedy, "no remedy: {shown}: {answer}");
        }
        *statuses.entry(status).or_default() += 1;
    }
    assert!(statuses.len() >= 3, "{statuses:?}");
    assert_eq!(job.json(&["route", "export"]), before);
    assert!(job.json(&["route", "history"])["changes"].as_array().unwrap().is_empty());
    assert!(!job.agent.log().contains("panicked"), "{}", job.agent.log());
    assert_eq!(job.cli(&["status"]).status.code(), Some(0));
}

/// Words that introduce a remedy.
const REMEDIES: &[&str] =
    &["write", "remove", "add", "leave it out", "is missing", "expected", "such as"];

fn exchange(socket: &PathBuf, request: &[u8]) -> String {
    let mut stream = UnixStream::connect(socket).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(15))).unwrap();
    // The server may close the connection before everything is written.
    let _ = stream.write_all(request);
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    String::from_utf8_lossy(&answer).into_owned()
}

/// The `number`th malformed request: a valid one with one error.
fn malformed(number: usize) -> Vec<u8> {
    let wrong_values = [
        "null",
        "17",
        "-1",
        "true",
        "{}",
        "[]",
        "[[]]",
        "\"\"",
        "\"a b\"",
        "\"http://x\"",
        "\"-x-\"",
        "\"*\"",
        "\"x..y\"",
        "1e400",
    ];
    let value = wrong_values[number / 10 % wrong_values.len()];
    let name = format!("x{number}.internal");
    let post = |path: &str, body: &str| {
        format!(
            "POST {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: \
            {}\r\n\r\n{body}",
            body.len()
        )
        .into_bytes()
    };
    match number % 10 {
        0 => {
            post("/v1/routes", &format!("{{\"source\": {value}, \"destination\": \"lb.public\"}}"))
        }
        1 => post(
            "/v1/routes",
            &format!(
                "{{\"source\": \"{name}\", \"destination\": {}}}",
                value.replace("\"*\"", "\"*.x\"")
            ),
        ),
        2 => post(
            "/v1/routes",
            &format!(
                "{{\"source\": \"{name}\", \"destination\": \"lb\", \"ports\": \
                    [{value}, \"70000\"]}}"
            ),
        ),
        3 => post(
            "/v1/routes",
            &format!(
                "{{\"source\": \"{name}\", \"destination\": \"lb\", \"field{number}\": {value}}}"
            ),
        ),
        4 => {
            let whole = format!("{{\"source\": \"{name}\", \"destination\": \"lb\"}}");
            post("/v1/routes", &whole[..number / 10 % (whole.len() - 1)])
        }
        5 => post(
            "/v1/import",
            &format!(
                "{{\"routes\": [{{\"source\": \"{name}\", \"destination\": \"lb\"}}, {value}]}}"
            ),
        ),
        6 => format!(
            "{} /v1/{} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
            ["PUT", "PATCH", "DELETE", "BREW"][number / 10 % 4],
            ["status", "export", "routes"][number / 40 % 3]
        )
        .into_bytes(),
        7 => format!(
            "GET /v1/routes/{} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
            ["%00", "a%20b", "..", "%2e%2e%2f", "x".repeat(300).as_str()][number / 10 % 5]
        )
        .into_bytes(),
        8 => {
            post("/v1/rollback", &format!("{{\"dry_run\": {}}}", value.replace("true", "\"true\"")))
        }
        _ => {
            let mut garbage = vec![b"\x16\x03\x01\x02"[number / 10 % 4]];
            garbage.extend((0..64).map(|n| (n * 37 + number * 11) as u8));
            garbage.extend_from_slice(b"\r\n\r\n");
            garbage
        }
    }
}
