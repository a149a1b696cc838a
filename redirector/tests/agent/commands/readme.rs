//! Runs every command of the README, in order: `node#` and `executor$` on a rig, `host#` on a node
//! without an agent, `stopped#` after the agent has ended. Commands that cannot run here are listed
//! in [`ELSEWHERE`]. The verbs of xtask are tested in xtask/tests/readme.rs.

use std::{fs, os::unix::fs::symlink, path::Path};

use testbed::Rig;

use crate::rig::{Job, LIMIT, binary};

/// Commands that these tests do not run, each with the test that does or the reason.
const ELSEWHERE: &[(&str, &str)] = &[
    (
        "cluster$ helm install redirector deploy/helm/redirector -n kube-system -f values.yaml",
        "xtask/tests/chart renders the chart with Helm's engine; no cluster runs here",
    ),
    (
        "cluster$ kubectl apply -f deploy/daemonset.yaml",
        "redirector/tests/daemonset plays this manifest's pod under podman",
    ),
    (
        "package# apt install ./target/debian/redirector.deb",
        "redirector/tests/package installs it with dpkg, since its Debian has no mirror",
    ),
    ("package# editor /etc/redirector/redirector.toml", "redirector/tests/package writes the file"),
    ("package# systemctl reload redirector", "redirector/tests/package, under systemd"),
    (
        "host# systemctl enable --now redirector",
        "redirector/tests/package has the same unit enabled and started by systemd",
    ),
];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace")
}

/// The lines of the README's `console` blocks that start with `prompt`, without the prompt.
fn commands(prompt: &str) -> Vec<String> {
    let readme = fs::read_to_string(root().join("README.md")).unwrap();
    let blocks = readme.split("```console\n").skip(1).map(|rest| rest.split("```").next().unwrap());
    let lines = blocks
        .flat_map(str::lines)
        .filter(|line| !ELSEWHERE.iter().any(|(known, _)| known == line));
    lines.filter_map(|line| line.strip_prefix(prompt).map(str::to_owned)).collect()
}

#[test]
fn every_command_has_a_known_prompt() {
    let readme = fs::read_to_string(root().join("README.md")).unwrap();
    let blocks = readme.split("```console\n").skip(1).map(|rest| rest.split("```").next().unwrap());
    for line in blocks.flat_map(str::lines) {
        let known = ["$ ", "node# ", "executor$ ", "host# ", "stopped# ", "cluster$ ", "package# "]
            .iter()
            .any(|prompt| line.starts_with(prompt));
        assert!(known, "no test runs `{line}`");
    }
    for (line, _) in ELSEWHERE {
        assert!(readme.contains(line), "`{line}` is not in the README any more");
    }
}

#[test]
fn every_command_of_node_and_executor_works() {
    let mut job = Job::new();
    let _registry = job.registry();
    let tools = job.rig.files().join("bin");
    fs::create_dir_all(&tools).unwrap();
    symlink(binary(), tools.join("redirector")).unwrap();
    job.rig.node.sandbox_mut().add_to_path(&tools);
    let (mut node, mut executor) = (0, 0);
    for line in commands("node# ") {
        let done = job.rig.node.sandbox().run(&line, LIMIT).unwrap();
        assert!(done.status.success(), "node# {line}\n{}", done.text());
        node += 1;
    }
    for line in commands("executor$ ") {
        job.shell(&line);
        executor += 1;
    }
    job.agent.sigterm().unwrap();
    for line in commands("stopped# ") {
        let done = job.rig.node.sandbox().run(&line, LIMIT).unwrap();
        assert!(done.status.success(), "stopped# {line}\n{}", done.text());
    }
    assert!(node >= 9 && executor >= 2, "{node} and {executor} commands");
}

#[test]
fn files_are_installed_where_the_unit_expects_them() {
    let rig = Rig::new().unwrap();
    // A repository as after `cargo xtask build`, and a node with its own /usr/local/bin.
    let clone = rig.files().join("clone");
    fs::create_dir_all(clone.join("target/release")).unwrap();
    symlink(root().join("deploy"), clone.join("deploy")).unwrap();
    symlink(binary(), clone.join("target/release/redirector")).unwrap();
    let run = |line: &str| {
        let done =
            rig.node.sandbox().run(&format!("cd {} && {line}", clone.display()), LIMIT).unwrap();
        assert!(done.status.success(), "host# {line}\n{}", done.text());
        done.stdout
    };
    run("mount -t tmpfs none /usr/local/bin");
    let lines = commands("host# ");
    assert!(lines.len() >= 3, "{lines:?}");
    lines.iter().for_each(|line| drop(run(line)));
    let unit = rig.node.sandbox().read("/etc/systemd/system/redirector.service").unwrap();
    let start = unit.lines().find_map(|line| line.strip_prefix("ExecStart=")).expect("ExecStart");
    let program = start.split(' ').next().unwrap();
    assert_eq!(run(&format!("{program} --version")).split(' ').next(), Some("redirector"));
    run("redirector config check");
}
