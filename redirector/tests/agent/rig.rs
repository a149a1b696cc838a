//! A customer, a node with the agent, and an executor.

use std::{path::Path, process::Command, time::Duration};

use testbed::{
    Executor, ExecutorOptions, Rig,
    agent::{Agent, AgentOptions},
    customer::DnsServer,
    customer::LoadBalancer,
    customer::Registry,
    process::{Finished, until},
    topology::INTERNAL_NAME,
};

/// Timeout of a client.
pub(crate) const LIMIT: Duration = Duration::from_secs(60);

/// The binary under test.
pub(crate) fn binary() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_redirector"))
}

/// A running job: the agent has the documented configuration unless stated otherwise.
pub(crate) struct Job {
    pub(crate) agent: Agent,
    pub(crate) executor: Executor,
    pub(crate) balancers: [LoadBalancer; 2],
    pub(crate) dns: DnsServer,
    // Last, as the namespaces must outlive their users.
    pub(crate) rig: Rig,
}

impl Job {
    pub(crate) fn new() -> Self {
        Self::with_config(&testbed::agent::documented_config().unwrap())
    }

    /// The documented configuration without the programs of guests: what is outside of the attached
    /// cgroups is not redirected.
    pub(crate) fn only_cgroups() -> Self {
        let config = testbed::agent::documented_config().unwrap();
        Self::with_config(&config.replace("interfaces = [\"auto\"]", "interfaces = \"off\""))
    }

    pub(crate) fn with_config(config: &str) -> Self {
        Self::prepared(config, |_| {})
    }

    /// With the log of what the agent writes to the kernel.
    pub(crate) fn with_debug_log(config: &str) -> Self {
        Self::launched(|_| AgentOptions {
            arguments: vec!["--log-level=debug".to_owned()],
            ..AgentOptions::with_config(binary(), config)
        })
    }

    /// With an agent that is started in another way.
    pub(crate) fn launched(options: impl FnOnce(&Rig) -> AgentOptions) -> Self {
        let rig = Rig::new().unwrap();
        let executor = rig.executor(ExecutorOptions::pod("job")).unwrap();
        let options = options(&rig);
        Self::on(rig, executor, options)
    }

    /// With a step on the rig before the agent starts.
    pub(crate) fn prepared(config: &str, prepare: impl FnOnce(&Rig)) -> Self {
        let rig = Rig::new().unwrap();
        let executor = rig.executor(ExecutorOptions::pod("job")).unwrap();
        prepare(&rig);
        Self::on(rig, executor, AgentOptions::with_config(binary(), config))
    }

    /// An agent with the environment that `prepare` returns, and an executor in this pod.
    pub(crate) fn in_pods(
        config: &str,
        pod: ExecutorOptions,
        prepare: impl FnOnce(&Rig) -> Vec<(String, String)>,
    ) -> Self {
        let rig = Rig::new().unwrap();
        let executor = rig.executor(pod).unwrap();
        let environment = prepare(&rig);
        let options = AgentOptions::with_config(binary(), config);
        Self::on(rig, executor, AgentOptions { environment, ..options })
    }

    fn on(rig: Rig, executor: Executor, options: AgentOptions) -> Self {
        let dns = rig.customer.dns_server().unwrap();
        let balancers = [1, 2].map(|number| rig.customer.load_balancer(number).unwrap());
        let agent = Agent::start(&rig.node, options).unwrap();
        Self { agent, executor, balancers, dns, rig }
    }

    /// The registry behind the load balancers. Keep it for as long as clients need it.
    pub(crate) fn registry(&self) -> Registry {
        self.rig.customer.registry().unwrap()
    }

    /// A line of shell on the node.
    pub(crate) fn on_node(&self, line: &str) -> String {
        self.rig.node.sandbox().run(line, LIMIT).unwrap().success().unwrap().stdout
    }

    /// Runs a shell command in the executor, which must succeed. Returns its output.
    pub(crate) fn shell(&self, line: &str) -> String {
        let finished = self.executor.run(line, LIMIT).unwrap();
        finished
            .success()
            .unwrap_or_else(|error| {
                panic!("{line}: {error:#}\nthe agent's log:\n{}", self.agent.log_tail())
            })
            .stdout
    }

    /// Runs `redirector` on the node.
    pub(crate) fn cli(&self, arguments: &[&str]) -> Finished {
        self.rig.node.cli(binary(), arguments).unwrap()
    }

    /// Runs `redirector` with `-o json`.
    pub(crate) fn json(&self, arguments: &[&str]) -> serde_json::Value {
        self.rig.node.cli_json(binary(), arguments).unwrap()
    }

    /// Waits until the agent serves: it may take over from another one.
    pub(crate) fn wait_serving(&self) {
        until("the agent to serve", LIMIT, || {
            let finished = self.cli(&["status", "-o", "json"]);
            let status = serde_json::from_str::<serde_json::Value>(&finished.stdout);
            Ok(status.is_ok_and(|status| status["agent"]["pid"] == self.agent.pid()))
        })
        .unwrap_or_else(|error| panic!("{error:#}\n{}", self.agent.log_tail()));
    }

    /// Lets the agent open no descriptor from number `limit` on; those that are open stay.
    pub(crate) fn limit_descriptors(&self, limit: usize) {
        let pid = self.agent.pid().to_string();
        let limit = format!("--nofile={limit}:");
        let limited = Command::new("prlimit").args(["--pid", &pid, &limit]).status();
        assert!(limited.unwrap().success());
    }

    /// The VIP of the internal name, as the executor resolves it.
    pub(crate) fn vip(&self) -> String {
        self.shell(&format!("getent ahostsv4 {INTERNAL_NAME} | head -n 1 | cut -d' ' -f1"))
            .trim()
            .to_owned()
    }
}
