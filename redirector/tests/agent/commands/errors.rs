//! Errors at startup: a clear message, the documented exit code, and nothing left behind.

use std::time::Duration;

use testbed::{
    ExecutorOptions, Rig,
    agent::{
        Agent, AgentOptions, CAP_BPF, CAP_NET_ADMIN, CAP_NET_BIND_SERVICE, CAPABILITIES,
        CONFIG_PATH, keep_capabilities,
    },
    process::{self, Finished},
};

use crate::rig::{Job, LIMIT, binary};

const CONFIG: &str =
    "[[routes]]\nsource = \"a.internal.company.net\"\ndestination = \"203.0.113.7\"\n";

/// [`CAPABILITIES`] as messages name them.
const NAMED_CAPABILITIES: [(u32, &str); 3] = [
    (CAP_NET_BIND_SERVICE, "CAP_NET_BIND_SERVICE"),
    (CAP_NET_ADMIN, "CAP_NET_ADMIN"),
    (CAP_BPF, "CAP_BPF"),
];

/// A node without an agent.
struct Node {
    rig: Rig,
}

impl Node {
    fn new(config: &str) -> Self {
        let rig = Rig::new().unwrap();
        rig.node.sandbox().write(CONFIG_PATH, config).unwrap();
        Self { rig }
    }

    /// `redirector run`, which is expected to fail.
    fn run(&self, capabilities: &[u32]) -> Finished {
        let mut command = self.rig.node.sandbox().command(binary());
        command.arg("run");
        keep_capabilities(&mut command, capabilities);
        process::finish(command, Duration::from_secs(20)).unwrap()
    }

    /// The same after a shell command in the node's namespaces.
    fn run_after(&self, line: &str) -> Finished {
        self.rig
            .node
            .sandbox()
            .run(&format!("{line} && exec {} run", binary().display()), Duration::from_secs(20))
            .unwrap()
    }

    /// `redirector run` with all capabilities except this one ends with an error that names it.
    #[track_caller]
    fn assert_names_missing(&self, missing: u32, name: &str) {
        let kept: Vec<_> = CAPABILITIES.into_iter().filter(|kept| *kept != missing).collect();
        assert_ends(&self.run(&kept), 3, &[name]);
    }

    #[track_caller]
    fn assert_untouched(&self) {
        let left = self
            .rig
            .node
            .sandbox()
            .run(
                "ls -A /sys/fs/bpf/redirector /run/redirector \
            2>/dev/null | grep -v -e : -e '^$' -e '^agent.lock$'; \
            ip route show table all type unreachable; \
            ip -o addr show lo | grep redirector",
                LIMIT,
            )
            .unwrap();
        assert_eq!(left.stdout, "", "something was left behind");
    }
}

#[track_caller]
fn assert_ends(finished: &Finished, code: i32, words: &[&str]) {
    assert_eq!(finished.status.code(), Some(code), "{}", finished.text());
    for word in words {
        assert!(finished.stderr.contains(word), "`{word}` is not said:\n{}", finished.text());
    }
}

#[test]
fn a_wrong_configuration_names_file_line_key_and_remedy() {
    let node =
        Node::new("[dns]\nlisten = [\"169.254.20.53\"]\nttll = 3\n[[routes]]\nsource = \"a.b\"\n");
    assert_ends(
        &node.run(&CAPABILITIES),
        2,
        &["redirector.toml:2", "redirector.toml:3", "did you mean `ttl`", "routes[0].destination"],
    );
    node.assert_untouched();
}

#[test]
fn a_missing_configuration_is_named_with_the_remedy() {
    let rig = Rig::new().unwrap();
    let finished = rig.node.cli(binary(), &["run"]).unwrap();
    assert_ends(&finished, 2, &[CONFIG_PATH, "--config"]);
}

#[test]
fn each_missing_capability_is_named() {
    let node = Node::new(CONFIG);
    for (missing, name) in NAMED_CAPABILITIES {
        node.assert_names_missing(missing, name);
        node.assert_untouched();
    }
}

/// Other calls fail first where an earlier agent left its pins.
#[test]
fn each_missing_capability_is_named_beside_pins() {
    let node = Node::new(CONFIG);
    let options = AgentOptions::with_config(binary(), CONFIG);
    Agent::start(&node.rig.node, options).unwrap().sigkill().unwrap();
    for (missing, name) in NAMED_CAPABILITIES {
        node.assert_names_missing(missing, name);
    }
}

#[test]
fn a_host_without_cgroup2_or_bpffs_is_an_error() {
    let node = Node::new(CONFIG);
    let without = node.run_after("umount /sys/fs/cgroup && mount -t tmpfs none /sys/fs/cgroup");
    assert_ends(&without, 3, &["cgroup2"]);
    node.assert_untouched();
    let node = Node::new(CONFIG);
    assert_ends(&node.run_after("umount /sys/fs/bpf"), 3, &["bpf file system", "mount -t bpf"]);
    node.assert_untouched();
}

#[test]
fn check_and_run_reject_a_kernel_that_is_too_old() {
    let node = Node::new(CONFIG);
    // Makes uname report a 2.6 kernel to this process and its children.
    let old = |verb: &str| {
        node.rig
            .node
            .sandbox()
            .run(&format!("setarch --uname-2.6 {} {verb}", binary().display()), LIMIT)
            .unwrap()
    };
    let check = old("check");
    assert_eq!(check.status.code(), Some(3), "{}", check.text());
    assert!(check.stdout.contains("5.10"), "{}", check.text());
    assert_ends(&old("run"), 3, &["5.10"]);
    node.assert_untouched();
}

#[test]
fn an_occupied_port_is_named_with_its_owner() {
    let node = Node::new(CONFIG);
    let mut holder = node.rig.node.sandbox().command("/usr/bin/python3");
    holder.args([
        "-c",
        "import socket, sys, time\ns = socket.socket(type=socket.SOCK_DGRAM); \
        s.bind(('0.0.0.0', 53)); print('up', flush=True); time.sleep(60)",
    ]);
    holder.stdout(std::process::Stdio::piped());
    let mut holder = holder.spawn().unwrap();
    let mut line = String::new();
    std::io::BufRead::read_line(
        &mut std::io::BufReader::new(holder.stdout.take().unwrap()),
        &mut line,
    )
    .unwrap();
    assert_ends(&node.run(&CAPABILITIES), 1, &["169.254.20.53:53", "uses the port", "dns.listen"]);
    holder.kill().unwrap();
    holder.wait().unwrap();
    node.assert_untouched();
}

#[test]
fn a_second_agent_refuses_and_names_the_first() {
    let job = Job::with_config(CONFIG);
    let second = job.cli(&["run"]);
    assert_ends(&second, 1, &[&job.agent.pid().to_string()]);
    let status = job.cli(&["status"]);
    assert_eq!(status.status.code(), Some(0), "{}", status.text());
}

#[test]
fn commands_without_an_agent_or_pins_fail_clearly() {
    let node = Node::new(CONFIG);
    for arguments in [&["status"][..], &["route", "list"], &["unload"]] {
        let finished = node.rig.node.cli(binary(), arguments).unwrap();
        assert_eq!(finished.status.code(), Some(4), "{arguments:?}: {}", finished.text());
    }
    let usage = node.rig.node.cli(binary(), &["route", "ad"]).unwrap();
    assert_eq!(usage.status.code(), Some(2), "{}", usage.text());
}

#[test]
fn a_pool_that_the_host_routes_elsewhere_is_refused() {
    let node = Node::new(CONFIG);
    let finished = node.run_after("ip route add 198.18.0.0/16 via 203.0.113.1");
    assert_ends(&finished, 2, &["198.18.0.0/16", "pool"]);
    let left = node.rig.node.sandbox().run("ls -A /sys/fs/bpf/redirector", LIMIT).unwrap();
    assert!(!left.stdout.contains("v1"), "{}", left.text());
}

#[test]
fn check_lists_its_checks_and_succeeds_on_a_good_node() {
    let node = Node::new(CONFIG);
    let _executor = node.rig.executor(ExecutorOptions::pod("job")).unwrap();
    let check = node.rig.node.cli(binary(), &["check"]).unwrap();
    assert_eq!(check.status.code(), Some(0), "{}", check.text());
    for word in ["kernel", "CAP_BPF", "cgroup2", "bpffs", "programs", "pool"] {
        assert!(check.stdout.contains(word), "{word}: {}", check.text());
    }
    let json = node.rig.node.cli_json(binary(), &["check"]).unwrap();
    assert!(json["checks"].as_array().is_some_and(|checks| checks.len() >= 8), "{json}");
    node.assert_untouched();
}
