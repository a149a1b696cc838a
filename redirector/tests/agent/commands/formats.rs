//! Output that other programs read, checked with them: metrics by an OpenMetrics parser, alert
//! rules by Prometheus, completions by the shells, manual pages by man.

use std::{fs, path::Path, time::Duration};

use testbed::{packages, process, topology::INTERNAL_NAME};

use crate::rig::{Job, LIMIT, binary};

const CONFIG: &str = "\
[[routes]]
source = \"artifactory.internal.company.net\"
destination = \"artifactory.public.company.net\"
";

/// Runs a program of the test bed's packages, which must succeed. Returns its output.
fn output_of(program: &str, arguments: &[&str]) -> String {
    let mut command = packages::tool(program).unwrap();
    command.args(arguments);
    let finished = process::finish(command, Duration::from_secs(60)).unwrap();
    assert!(finished.status.success(), "{program} {arguments:?}: {}", finished.text());
    finished.text()
}

/// Reads OpenMetrics, and prints each sample.
const PARSER: &str = "\
import sys
from prometheus_client.openmetrics.parser import text_string_to_metric_families
for family in text_string_to_metric_families(sys.stdin.read()):
    assert family.documentation, family
    for sample in family.samples:
        print(family.type, sample.name, sample.value)
";

#[test]
fn metrics_pass_an_openmetrics_parser() {
    let job = Job::with_config(CONFIG);
    job.shell(&format!(
        "curl -sS --max-time 10 http://{INTERNAL_NAME}:8080/ && getent hosts \
        registry.example.net || true"
    ));
    let page = job
        .rig
        .node
        .sandbox()
        .run("curl -sS --max-time 5 http://127.0.0.1:9464/metrics", LIMIT)
        .unwrap()
        .success()
        .unwrap()
        .stdout;
    let mut python = std::process::Command::new(packages::python_tool("python3").unwrap());
    python.args(["-c", PARSER]);
    let parsed = process::finish_with_input(python, page.as_bytes(), LIMIT).unwrap();
    assert!(parsed.status.success(), "{}\n{page}", parsed.text());
    for sample in [
        "counter redirector_route_connects_started_total 1.0",
        "gauge redirector_routes 1.0",
        "histogram redirector_dns_seconds_count",
        "counter process_cpu_seconds_total",
    ] {
        assert!(parsed.stdout.contains(sample), "{sample} is not in\n{}", parsed.stdout);
    }
}

#[test]
fn alert_rules_load_into_prometheus() {
    let rules = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/alerts.yaml");
    let output = output_of("promtool", &["check", "rules", &rules.display().to_string()]);
    assert!(output.contains("SUCCESS") && output.contains("rules found"), "{output}");
}

#[test]
fn completions_load_into_their_shells_and_pages_into_man() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name).display().to_string();
    for shell in ["bash", "zsh", "fish"] {
        let mut command = std::process::Command::new(binary());
        command.args(["completions", shell]);
        let script = process::finish(command, LIMIT).unwrap().success().unwrap().stdout;
        fs::write(at(shell), script).unwrap();
    }
    let bash = format!(". {} && complete -p redirector", at("bash"));
    assert!(output_of("bash", &["--norc", "-c", &bash]).contains("_redirector"));
    output_of("zsh", &["-n", &at("zsh")]);
    let zsh = format!(
        "autoload -U compinit && compinit -u -d {} && . {} && whence -w _redirector",
        at("dump"),
        at("zsh")
    );
    assert!(output_of("zsh", &["-f", "-c", &zsh]).contains("function"));
    output_of("fish", &["-n", &at("fish")]);
    let fish = format!("source {}; complete -C 'redirector route ro'", at("fish"));
    assert!(output_of("fish", &["--no-config", "-c", &fish]).contains("rollback"));

    let mut man = std::process::Command::new(binary());
    man.args(["man", &at("man1")]);
    process::finish(man, LIMIT).unwrap().success().unwrap();
    let pages: Vec<_> = fs::read_dir(at("man1"))
        .unwrap()
        .map(|page| page.unwrap().path().display().to_string())
        .collect();
    assert!(pages.len() >= 20, "{pages:?}");
    for page in &pages {
        let warnings = output_of("man", &["--warnings", "-E", "UTF-8", "-l", "-Tutf8", "-Z", page]);
        assert!(
            !warnings.contains("warning:") && !warnings.contains("error:"),
            "{page}: {warnings}"
        );
    }
}
