//! Search lists of jobs: what a libc makes of a name, and what `explain`, `verify`, `status` and
//! `check` show of it.

use testbed::{ExecutorOptions, ResolvConf, process::Finished, topology::INTERNAL_NAME};

use crate::{
    rig::{Job, LIMIT, binary},
    stage::{Sleeper, ask, assert_cause},
};

const ZONE: &str = "internal.company.net";

/// A wildcard above a suffix of the job's search list, and a route of its own below it.
const CONFIG: &str = "\
wildcards = \"one_label\"
[[routes]]
source = \"**.internal.company.net\"
destination = \"203.0.113.8\"
[[routes]]
source = \"artifactory.internal.company.net\"
destination = \"artifactory.public.company.net\"
";

fn searching(job: &Job) -> testbed::Executor {
    let resolv = ResolvConf {
        search: vec!["example.test".into(), ZONE.into()],
        ndots: Some(5),
        ..ResolvConf::default()
    };
    job.rig.executor(ExecutorOptions { resolv, ..ExecutorOptions::pod("searching") }).unwrap()
}

#[test]
fn explain_and_verify_walk_the_jobs_search_list() {
    let job = Job::with_config(CONFIG);
    let executor = searching(&job);
    let sleeper = Sleeper::start(&executor, &[]);
    let pid = sleeper.pid();
    let resolved = |name: &str| {
        let line = format!("getent ahostsv4 {name} | head -n 1 | cut -d' ' -f1");
        executor.run(&line, LIMIT).unwrap().stdout.trim().to_owned()
    };
    let vip = |source: &str| job.json(&["route", "show", source])["route"]["vip"]["ipv4"].clone();
    let (of_wildcard, own) = (vip("**.internal.company.net"), vip(INTERNAL_NAME));

    // The name with the second suffix is the wildcard's, and is asked for before the name itself.
    assert_eq!(resolved(INTERNAL_NAME), of_wildcard);
    let caught = format!("{INTERNAL_NAME}.{ZONE}");
    let words = [caught.as_str(), "**.internal.company.net", "ndots"];
    assert_cause(&job, &["explain", INTERNAL_NAME, "--pid", &pid], "search_list", &words);
    let verify = ["verify", INTERNAL_NAME, "--pid", &pid, "--until", "connect"];
    assert_cause(&job, &verify, "search_list", &words);
    let (json, _) = ask(&job, &["explain", INTERNAL_NAME, "--pid", &pid]);
    let candidates = serde_json::json!([
        {"name": format!("{INTERNAL_NAME}.example.test"), "route": null},
        {"name": caught, "route": "**.internal.company.net"},
        {"name": INTERNAL_NAME, "route": INTERNAL_NAME},
    ]);
    assert_eq!((&json["candidates"], &json["redirected"]), (&candidates, &false.into()));

    // A final dot, a short name, and a name that has nothing to do with the zone.
    let absolute = format!("{INTERNAL_NAME}.");
    assert_eq!(
        (resolved(&absolute), resolved("artifactory")),
        (own.to_string().replace('"', ""), own.to_string().replace('"', ""))
    );
    for name in [absolute.as_str(), "artifactory"] {
        let (json, finished) = ask(&job, &["explain", name, "--pid", &pid]);
        assert_eq!((&json["vip"], &json["findings"]), (&own, &serde_json::json!([])), "{name}");
        assert!(finished.status.success());
        let arguments = ["verify", name, "--pid", &pid, "--until", "connect"];
        let (json, finished) = ask(&job, &arguments);
        assert_eq!((&json["answered_as"], &json["ok"]), (&INTERNAL_NAME.into(), &true.into()));
        assert!(finished.status.success(), "{}", finished.text());
    }
    assert_eq!(resolved("www.example.org"), of_wildcard);
    for command in ["explain", "verify"] {
        let rest: &[&str] = if command == "verify" { &["--until", "connect"] } else { &[] };
        let arguments = [&[command, "www.example.org", "--pid", &pid], rest].concat();
        let words = ["www.example.org.internal.company.net", "www.example.org itself has no route"];
        assert_cause(&job, &arguments, "search_list", &words);
    }
    // The variables of a process change its list, as glibc reads them.
    let sleeper = Sleeper::start(&executor, &[("RES_OPTIONS", "ndots:1")]);
    let (json, _) = ask(&job, &["explain", INTERNAL_NAME, "--pid", &sleeper.pid()]);
    assert_eq!((&json["vip"], &json["findings"]), (&own, &serde_json::json!([])));
}

#[test]
fn the_hosts_search_list_is_reported() {
    let resolv = "nameserver 203.0.113.53\nsearch eu.internal.company.net\noptions ndots:5\n";
    let job = Job::prepared(CONFIG, |rig| {
        rig.node.sandbox().write("/etc/resolv.conf", resolv).unwrap();
    });
    let problems = job.json(&["status"])["problems"].clone();
    let problem = problems.as_array().unwrap().iter().find(|one| one["code"] == "search_suffix");
    let problem = problem.unwrap_or_else(|| panic!("{problems}"));
    assert_eq!(problem["source"], "**.internal.company.net");
    assert!(problem["degrades"] != true, "the route is healthy: {problem}");
    let metrics = job.on_node("curl -sS --max-time 5 http://127.0.0.1:9464/metrics");
    assert!(metrics.contains("redirector_problems{code=\"search_suffix\"} 1.0\n"), "{metrics}");
    let check: Finished = job.rig.node.cli(binary(), &["check", "-o", "json"]).unwrap();
    let check: serde_json::Value = serde_json::from_str(&check.stdout).unwrap();
    let rows = check["checks"].as_array().unwrap();
    let row = rows.iter().find(|row| row["name"] == "search_list").unwrap();
    assert_eq!(row["outcome"], "warning", "{row}");
    let added = job.cli(&["route", "add", "*.eu.internal.company.net", "203.0.113.7"]);
    assert!(added.status.success(), "{}", added.text());
    assert!(added.stderr.contains("search list has eu.internal.company.net"), "{}", added.text());
}
