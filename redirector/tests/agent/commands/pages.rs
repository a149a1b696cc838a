//! Every command of every page is run: `node#` and `executor$` on a rig, `host#` on a node without
//! an agent, `stopped#` after the agent has ended, the verbs of xtask by xtask/tests/pages.rs, and
//! those of docs/onboarding.md by onboarding.rs. Other tests run the commands in [`TESTED`]; the
//! pages state why nothing runs those in [`NOT_RUN`].

use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
};

use testbed::{Rig, service::Service};

use crate::rig::{Job, LIMIT, binary};

/// The beginnings of a command.
const PROMPTS: [&str; 7] =
    ["$ ", "node# ", "executor$ ", "host# ", "stopped# ", "cluster$ ", "package# "];
/// The page whose output is compared, too.
const ONBOARDING: &str = "docs/onboarding.md";

/// Commands that another test runs: its file, and its function.
const TESTED: &[(&str, &str, &str)] = &[
    (
        "cluster$ helm install redirector deploy/helm/redirector -n kube-system -f values.yaml",
        "testing/cluster/tests/kubernetes/main.rs",
        "installs_beside_a_job",
    ),
    (
        "cluster$ kubectl apply -f deploy/daemonset.yaml",
        "redirector/tests/daemonset/main.rs",
        "the_manifests_pod_redirects_also_after_it_is_killed",
    ),
    (
        "cluster$ helm -n kube-system upgrade --install redirector deploy/helm/redirector --set \
            controller.enabled=true",
        "testing/cluster/tests/kubernetes/controller.rs",
        "the_controller_works_in_its_pods",
    ),
    (
        "cluster$ kubectl apply -k deploy/kustomize/cluster",
        "testing/cluster/tests/kubernetes/kustomize.rs",
        "kustomize_installs_what_kubectl_forwards",
    ),
    (
        "cluster$ kubectl -n kube-system rollout status deploy/redirector-controller",
        "testing/cluster/tests/kubernetes/kustomize.rs",
        "kustomize_installs_what_kubectl_forwards",
    ),
    (
        "cluster$ redirector route add --cluster artifactory.internal.company.net \
            artifactory.public.company.net",
        "testing/cluster/tests/kubernetes/routes.rs",
        "the_command_line_does_the_same",
    ),
    (
        "cluster$ redirector route remove --cluster artifactory.internal.company.net",
        "testing/cluster/tests/kubernetes/routes.rs",
        "the_command_line_does_the_same",
    ),
    (
        "cluster$ kubectl get redirectroutes",
        "testing/cluster/tests/kubernetes/controller.rs",
        "a_route_is_live_in_a_pod",
    ),
    (
        "cluster$ kubectl get redirectroute artifactory -o yaml | grep -A12 '^status'",
        "testing/cluster/tests/kubernetes/kustomize.rs",
        "kustomize_installs_what_kubectl_forwards",
    ),
    (
        "cluster$ helm -n kube-system upgrade redirector CHART --reuse-values --set \
            unload.enabled=true",
        "testing/cluster/tests/kubernetes/leftovers.rs",
        "leaves_nothing",
    ),
    (
        "cluster$ kubectl -n kube-system rollout status ds/redirector",
        "testing/cluster/tests/kubernetes/leftovers.rs",
        "leaves_nothing",
    ),
    (
        "cluster$ helm -n kube-system uninstall redirector",
        "testing/cluster/tests/kubernetes/leftovers.rs",
        "leaves_nothing",
    ),
    (
        "cluster$ kubectl apply -k deploy/kustomize/unload",
        "testing/cluster/tests/kubernetes/kustomize.rs",
        "unloads",
    ),
    (
        "cluster$ kubectl delete -k deploy/kustomize/unload",
        "testing/cluster/tests/kubernetes/kustomize.rs",
        "unloads",
    ),
    (
        "cluster$ kubectl -n kube-system port-forward redirector-abcde 9464",
        "testing/cluster/tests/kubernetes/kustomize.rs",
        "shows_the_page",
    ),
    // With dpkg, since the Debian of that test has no mirror.
    (
        "package# apt install ./target/debian/redirector.deb",
        "redirector/tests/package/main.rs",
        "the_package_installs_upgrades_and_purges",
    ),
    (
        "package# editor /etc/redirector/redirector.toml",
        "redirector/tests/package/main.rs",
        "serves",
    ),
    ("package# systemctl reload redirector", "redirector/tests/package/main.rs", "serves"),
    ("package# systemctl status redirector", "redirector/tests/package/main.rs", "serves"),
    // The package's unit is the same.
    (
        "host# systemctl enable --now redirector",
        "redirector/tests/package/main.rs",
        "the_package_installs_upgrades_and_purges",
    ),
    // With another number of seconds.
    (
        "$ REDIRECTOR_TEST_AGENTLESS_SECONDS=602 \\\n    \
            cargo test -p redirector --test guests -- --nocapture outlive",
        "redirector/tests/guests/killed.rs",
        "names_and_connects_outlive_a_killed_agent",
    ),
    (
        "$ REDIRECTOR_TEST_FLEET_SECONDS=600 cargo xtask kube fleet",
        "testing/cluster/tests/kubernetes/fleet.rs",
        "a_change_for_a_thousand_agents_is_cheap",
    ),
];

/// Commands that no test runs, each with its page's reason.
const NOT_RUN: &[(&str, &str)] = &[
    ("$ ssh -L 9464:127.0.0.1:9464 NODE", "No test runs the `ssh`: it needs a second machine."),
    (
        "$ buildah manifest push --all registry.example/redirector:0.1.0 \\\n    \
            docker://registry.example/redirector:0.1.0",
        "No test pushes an image.",
    ),
];

/// A command of a page.
#[derive(Debug)]
struct Command {
    page: PathBuf,
    prompt: &'static str,
    /// With its continuations.
    line: String,
}

impl Command {
    /// As the page has it.
    fn text(&self) -> String {
        format!("{}{}", self.prompt, self.line)
    }

    fn is_elsewhere(&self) -> bool {
        let text = self.text();
        let is_tested = TESTED.iter().any(|(line, ..)| *line == text);
        is_tested || NOT_RUN.iter().any(|(line, _)| *line == text)
    }
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace")
}

/// The pages below `folder`, by their paths from the root.
fn pages(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(root().join(folder)).unwrap() {
        let name = PathBuf::from(entry.unwrap().file_name());
        let (path, hidden) = (folder.join(&name), name.to_string_lossy().starts_with('.'));
        if root().join(&path).is_dir() {
            let is_ours = !hidden && name != Path::new("target");
            found.extend(is_ours.then(|| pages(&path)).into_iter().flatten());
        } else if path.extension().is_some_and(|extension| extension == "md") {
            found.push(path);
        }
    }
    found.sort();
    found
}

/// The code blocks of a page: their language and their lines, without indentation.
fn blocks(page: &Path) -> Vec<(String, Vec<String>)> {
    let text = fs::read_to_string(root().join(page)).unwrap();
    let mut blocks: Vec<(String, Vec<String>)> = Vec::new();
    let mut indentation = None;
    for line in text.lines() {
        match (line.trim_start().strip_prefix("```"), indentation) {
            (Some(language), None) => {
                indentation = Some(line.len() - line.trim_start().len());
                blocks.push((language.to_owned(), Vec::new()));
            }
            (Some(_), Some(_)) => indentation = None,
            (None, Some(spaces)) => {
                let line = line.get(spaces..).unwrap_or_default().to_owned();
                blocks.last_mut().expect("a block").1.push(line);
            }
            (None, None) => {}
        }
    }
    blocks
}

/// All commands; every block must begin with one.
fn commands() -> Vec<Command> {
    let mut commands: Vec<Command> = Vec::new();
    for page in pages(Path::new("")) {
        for (language, lines) in blocks(&page) {
            assert!(
                !["sh", "bash", "shell"].contains(&language.as_str()),
                "{}: a block of commands is `console`, with prompts",
                page.display()
            );
            let (mut first, mut continues) = (true, false);
            for line in lines.iter().filter(|_| language == "console") {
                let prompt = PROMPTS.into_iter().find(|prompt| line.starts_with(prompt));
                assert!(!first || prompt.is_some(), "{}: no prompt: {line}", page.display());
                match prompt {
                    _ if continues => {
                        let command = commands.last_mut().expect("the line before");
                        command.line.push('\n');
                        command.line.push_str(line);
                    }
                    Some(prompt) => {
                        let line = line[prompt.len()..].to_owned();
                        commands.push(Command { page: page.clone(), prompt, line });
                    }
                    None => {}
                }
                continues = (continues || prompt.is_some()) && line.ends_with('\\');
                first = false;
            }
        }
    }
    commands
}

/// The commands with this prompt that the tests below run.
fn run_here(prompt: &str) -> Vec<Command> {
    let mut commands = commands();
    commands.retain(|command| {
        let is_here = command.prompt == prompt && command.page != Path::new(ONBOARDING);
        is_here && !command.is_elsewhere()
    });
    commands
}

#[test]
fn every_command_has_a_test_or_a_reason() {
    let commands = commands();
    assert!(commands.len() > 50, "{commands:?}");
    for command in &commands {
        let is_run = ["node# ", "executor$ ", "host# ", "stopped# "].contains(&command.prompt)
            || command.text().starts_with("$ cargo xtask ")
            || command.is_elsewhere();
        assert!(is_run, "{}: no test runs `{}`", command.page.display(), command.text());
    }
    let pages_of = |line: &str| {
        let with_it = commands.iter().filter(|command| command.text() == line);
        let pages: Vec<_> = with_it.map(|command| root().join(&command.page)).collect();
        assert!(!pages.is_empty(), "no page has `{line}` any more");
        pages
    };
    for (line, file, function) in TESTED {
        pages_of(line);
        let source = fs::read_to_string(root().join(file)).unwrap();
        assert!(source.contains(&format!("fn {function}(")), "{file} has no {function}");
    }
    for (line, reason) in NOT_RUN {
        for page in pages_of(line) {
            let text = fs::read_to_string(&page).unwrap().replace('\n', " ");
            assert!(text.contains(reason), "{} does not say: {reason}", page.display());
        }
    }
    // Each of them shows its output.
    let shown = commands.iter().filter(|command| command.page == Path::new(ONBOARDING)).count();
    let compared = include_str!("onboarding.rs").matches("    assert_page_shows(&job").count();
    assert_eq!(shown, compared, "docs/onboarding.md has commands that are not compared");
}

#[test]
fn every_command_of_node_and_executor_works() {
    let mut job = Job::new();
    let _registry = job.registry();
    let tools = job.rig.files().join("bin");
    fs::create_dir_all(&tools).unwrap();
    symlink(binary(), tools.join("redirector")).unwrap();
    job.rig.node.sandbox_mut().add_to_path(&tools);
    let mut process = job.executor.command("sleep");
    process.arg("600");
    let log = job.executor.sandbox().home().join("sleep.log");
    let process = Service::start("sleep", &log, process).unwrap();
    let run = |command: &Command| {
        let sandbox = match command.prompt {
            "executor$ " => job.executor.sandbox(),
            _ => job.rig.node.sandbox(),
        };
        let line = command.line.replace("--pid PID", &format!("--pid {}", process.pid()));
        let done = sandbox.run(&line, LIMIT).unwrap();
        assert!(done.status.success(), "{command:?}\n{}", done.text());
    };
    let (node, executor) = (run_here("node# "), run_here("executor$ "));
    assert!(node.len() >= 18 && executor.len() >= 4, "{node:?}\n{executor:?}");
    node.iter().chain(&executor).for_each(run);
    job.agent.sigterm().unwrap();
    run_here("stopped# ").iter().for_each(run);
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
    let commands = run_here("host# ");
    assert!(commands.len() >= 3, "{commands:?}");
    commands.iter().for_each(|command| drop(run(&command.line)));
    let unit = rig.node.sandbox().read("/etc/systemd/system/redirector.service").unwrap();
    let start = unit.lines().find_map(|line| line.strip_prefix("ExecStart=")).expect("ExecStart");
    let program = start.split(' ').next().unwrap();
    assert_eq!(run(&format!("{program} --version")).split(' ').next(), Some("redirector"));
    run("redirector config check");
}
