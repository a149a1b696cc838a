//! Changes of routes: live for the next connect when the command returns, and persistent.

use testbed::topology::{INTERNAL_NAME, LOAD_BALANCERS};

use crate::rig::{Job, LIMIT};

/// Every port, so that the greeting servers behind port 8080 show which one answered.
const CONFIG: &str = "\
[[routes]]
source = \"artifactory.internal.company.net\"
destination = \"artifactory.public.company.net\"
";

fn greeted_by(job: &Job, name: &str) -> String {
    job.shell(&format!("curl -sS --max-time 10 http://{name}:8080/")).trim().to_owned()
}

fn run(job: &Job, arguments: &[&str]) -> String {
    let finished = job.cli(arguments);
    assert!(finished.status.success(), "{}", finished.text());
    finished.stdout
}

#[test]
fn route_set_is_live_for_the_first_connect_after_it_returns() {
    let job = Job::with_config(CONFIG);
    for (address, banner) in LOAD_BALANCERS.iter().zip(["lb1", "lb2"]).cycle().take(10) {
        run(&job, &["route", "set", INTERNAL_NAME, "--destination", &address.to_string()]);
        assert_eq!(greeted_by(&job, INTERNAL_NAME), banner);
    }
}

#[test]
fn an_added_route_is_live_at_once_until_it_is_removed() {
    let mut job = Job::with_config(CONFIG);
    run(
        &job,
        &[
            "route",
            "add",
            "git.internal.company.net",
            "203.0.113.8",
            "--port",
            "80:8080",
            "--port",
            "8080",
        ],
    );
    assert_eq!(greeted_by(&job, "git.internal.company.net"), "lb2");
    assert_eq!(job.shell("curl -sS --max-time 10 http://git.internal.company.net/").trim(), "lb2");
    let vip = job.shell("getent hosts git.internal.company.net");
    job.agent.restart().unwrap();
    assert_eq!(job.shell("getent hosts git.internal.company.net"), vip);
    assert_eq!(greeted_by(&job, "git.internal.company.net"), "lb2");
    run(&job, &["route", "remove", "git.internal.company.net"]);
    let gone = job.executor.run("getent hosts git.internal.company.net", LIMIT).unwrap();
    assert!(!gone.status.success(), "{}", gone.text());
    let address = vip.split_whitespace().next().unwrap();
    let refused =
        job.executor.run(&format!("curl -sS --max-time 10 http://{address}:8080/"), LIMIT).unwrap();
    assert!(
        refused.stderr.contains("refused") || refused.status.code() == Some(7),
        "{}",
        refused.text()
    );
}

#[test]
fn removing_an_override_restores_the_file_route() {
    let job = Job::with_config(CONFIG);
    run(&job, &["route", "set", INTERNAL_NAME, "--destination", "203.0.113.8"]);
    assert_eq!(
        job.json(&["route", "show", INTERNAL_NAME]).to_string().matches("203.0.113.7").count(),
        0
    );
    run(&job, &["route", "remove", INTERNAL_NAME]);
    assert!(job.json(&["route", "show", INTERNAL_NAME]).to_string().contains("203.0.113.7"));
    let refused = job.cli(&["route", "remove", INTERNAL_NAME]);
    assert_eq!(refused.status.code(), Some(1), "{}", refused.text());
    assert!(refused.stderr.contains("redirector.toml"), "{}", refused.text());
}

#[test]
fn the_yaml_of_the_platform_is_imported_unchanged() {
    let job = Job::with_config(CONFIG);
    let yaml = "spec:\n  infrastructure:\n    executorPrivateDNS:\n      proxyTag: insiders\n      \
        routes:\n        - source: npm.internal.company.net\n          destination: \
        artifactory.public.company.net\n          resolverIP: 203.0.113.53\n";
    let file = job.rig.node.sandbox().home().join("config.yaml");
    job.rig.node.sandbox().write(&file, yaml).unwrap();
    let path = file.to_str().unwrap();
    let dry = run(&job, &["route", "import", path, "--dry-run"]);
    assert!(dry.contains("npm.internal.company.net"), "{dry}");
    assert_eq!(job.json(&["route", "list"])["routes"].as_array().unwrap().len(), 1);
    run(&job, &["route", "import", path]);
    assert!(["lb1", "lb2"].contains(&greeted_by(&job, "npm.internal.company.net").as_str()));
}

#[test]
fn the_destinations_new_addresses_are_used_without_a_command() {
    let mut job = Job::with_config(CONFIG);
    job.dns.set_addresses(&LOAD_BALANCERS[1..]).unwrap();
    // The zone's TTL is 2 s.
    let backends =
        |job: &Job| job.json(&["route", "show", INTERNAL_NAME])["route"]["backends"].to_string();
    testbed::process::until(
        "the old address to disappear",
        std::time::Duration::from_secs(15),
        || Ok(!backends(&job).contains("203.0.113.7")),
    )
    .unwrap_or_else(|error| panic!("{error:#}\n{}\n{}", backends(&job), job.agent.log_tail()));
    assert!((0..6).all(|_| greeted_by(&job, INTERNAL_NAME) == "lb2"));
    // When the resolver stops answering, the last good address stays.
    job.dns.stop().unwrap();
    std::thread::sleep(std::time::Duration::from_secs(5));
    assert_eq!(greeted_by(&job, INTERNAL_NAME), "lb2");
}

#[test]
fn a_reload_changes_routes_unless_the_file_is_invalid() {
    let mut job = Job::with_config(CONFIG);
    let more = format!(
        "{CONFIG}\n[[routes]]\nsource = \"git.internal.company.net\"\ndestination = \
            \"203.0.113.8\"\n"
    );
    job.agent.write_config(&more).unwrap();
    job.agent.sighup().unwrap();
    let serves = |job: &Job, name: &str| {
        job.executor
            .run(&format!("curl -sS --max-time 2 http://{name}:8080/"), LIMIT)
            .unwrap()
            .stdout
            == "lb2\n"
    };
    testbed::process::until("the new route to be live", std::time::Duration::from_secs(10), || {
        Ok(serves(&job, "git.internal.company.net"))
    })
    .unwrap_or_else(|error| panic!("{error:#}\n{}", job.agent.log_tail()));
    job.agent.write_config("[[routes]]\nsorce = \"x\"\n").unwrap();
    job.agent.sighup().unwrap();
    testbed::process::until(
        "status to report the broken file",
        std::time::Duration::from_secs(10),
        || Ok(job.cli(&["status"]).status.code() == Some(1)),
    )
    .unwrap_or_else(|error| panic!("{error:#}\n{}", job.agent.log_tail()));
    assert!(serves(&job, "git.internal.company.net"));
}

/// The destination's resolver never answers, so the route is pending for the two seconds that the
/// agent waits.
#[test]
fn a_pending_route_is_servfail_and_not_ready() {
    let job = Job::with_config(CONFIG);
    let readyz = || {
        job.rig.node.sandbox().run("curl -s http://127.0.0.1:9464/readyz", LIMIT).unwrap().stdout
    };
    let answer = || {
        job.executor.run("dig +tries=1 +time=5 late.internal.company.net A", LIMIT).unwrap().stdout
    };
    assert!(!readyz().contains("not live"), "{}", readyz());
    let add = [
        "route",
        "add",
        "late.internal.company.net",
        "late.public.company.net",
        "--resolver",
        "203.0.113.99:53",
    ];
    std::thread::scope(|scope| {
        let adding = scope.spawn(|| run(&job, &add));
        let (mut unready, mut failed) = (false, false);
        while !adding.is_finished() {
            unready |= readyz().contains("late.internal.company.net is not live yet");
            failed |= answer().contains("status: SERVFAIL");
        }
        adding.join().unwrap();
        assert!(unready && failed, "unready {unready}, SERVFAIL {failed}");
    });
    assert!(answer().contains("198.18."), "{}", answer());
    assert!(!readyz().contains("not live"), "{}", readyz());
}
