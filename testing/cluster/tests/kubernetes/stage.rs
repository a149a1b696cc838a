//! The cluster with the customer that the routes lead to.

use std::time::Duration;

use cluster::{Helm, Kubectl, Kubernetes, NODE};
use serde_json::{Value, json};
use testbed::{
    Rig,
    customer::{DnsServer, LoadBalancer, Registry},
    process::{Finished, until},
    topology::{DNS_ADDRESS, INTERNAL_NAME, PUBLIC_NAME},
};

/// Longest time of a step on a busy machine.
pub(crate) const LIMIT: Duration = Duration::from_secs(120);

pub(crate) struct Stage {
    pub(crate) cluster: Kubernetes,
    _dns: DnsServer,
    _balancers: [LoadBalancer; 2],
    _registry: Registry,
    // Last, as the namespaces must outlive their users.
    rig: Rig,
}

impl Stage {
    pub(crate) fn start() -> Self {
        let rig = Rig::new().unwrap();
        let dns = rig.customer.dns_server().unwrap();
        let balancers = [1, 2].map(|number| rig.customer.load_balancer(number).unwrap());
        let registry = rig.customer.registry().unwrap();
        let cluster = Kubernetes::start(&rig).unwrap();
        let trust = format!(
            "cat {} >>/etc/ssl/certs/ca-certificates.crt",
            rig.customer.ca_path().display()
        );
        cluster.on_node(&trust).unwrap().success().unwrap();
        Self { cluster, _dns: dns, _balancers: balancers, _registry: registry, rig }
    }

    pub(crate) fn rig(&self) -> &Rig {
        &self.rig
    }

    pub(crate) fn helm(&self) -> Helm<'_> {
        Helm::new(self.cluster.control())
    }

    pub(crate) fn kubectl(&self) -> &Kubectl {
        self.cluster.kubectl()
    }

    /// A command in the agent's pod, as documented.
    pub(crate) fn exec(&self, words: &[&str]) -> Finished {
        self.exec_in("redirector", words)
    }

    /// The same in a pod of another DaemonSet.
    pub(crate) fn exec_in(&self, daemon_set: &str, words: &[&str]) -> Finished {
        let pod = format!("ds/{daemon_set}");
        let exec = ["-n", "kube-system", "exec", &pod, "--", "redirector"];
        self.kubectl().run(&[&exec, words].concat()).unwrap()
    }

    /// The pods of the agent that are not being removed.
    pub(crate) fn agents(&self) -> Vec<Value> {
        self.pods("redirector")
    }

    /// The pods of this name that are not being removed.
    pub(crate) fn pods(&self, name: &str) -> Vec<Value> {
        let label = format!("app.kubernetes.io/name={name}");
        let words = ["pods", "-n", "kube-system", "-l", &label];
        let pods = self.kubectl().get(&words).unwrap();
        let pods = pods["items"].as_array().unwrap().iter();
        pods.filter(|pod| pod["metadata"]["deletionTimestamp"].is_null()).cloned().collect()
    }

    /// Whether there are such pods, and all of them are ready.
    pub(crate) fn are_ready(&self, name: &str) -> bool {
        let is_ready = |pod: &Value| {
            let mut conditions = pod["status"]["conditions"].as_array().into_iter().flatten();
            conditions.any(|at| at["type"] == "Ready" && at["status"] == "True")
        };
        let pods = self.pods(name);
        !pods.is_empty() && pods.iter().all(is_ready)
    }

    /// Taints the node as its group does when it registers.
    pub(crate) fn taint(&self) {
        let taint = format!("{NODE} redirector.dev/not-ready=:NoSchedule");
        let words: Vec<_> = ["taint", "node"].into_iter().chain(taint.split(' ')).collect();
        self.kubectl().ok(&words).unwrap();
    }

    /// Waits for the job's end; panics with its pods unless it has succeeded.
    pub(crate) fn assert_succeeds(&self, job: &str) {
        let status = || self.kubectl().get(&["job", job]).unwrap()["status"].clone();
        let has_ended = || Ok(!status()["conditions"].is_null());
        let ended = until("the job has ended", LIMIT, has_ended);
        let succeeded = ended.is_ok() && status()["succeeded"] == 1;
        assert!(succeeded, "{job}\n{}", self.report("default", &format!("job-name={job}")));
    }

    /// Pods with this label, and what the agent thinks.
    pub(crate) fn report(&self, namespace: &str, label: &str) -> String {
        let describe = ["-n", namespace, "describe", "pods", "-l", label];
        let describe = self.kubectl().run(&describe).unwrap().text();
        let logs =
            self.cluster.on_node("tail -n 20 /var/log/pods/default*/*/*.log").unwrap().text();
        format!("{describe}\n{logs}\n{}\n{}", self.agent_logs(), self.exec(&["status"]).text())
    }

    /// What the agents of all pods have logged.
    pub(crate) fn agent_logs(&self) -> String {
        let files = "/var/log/pods/kube-system_redirector*/agent/*.log";
        self.cluster.on_node(&format!("tail -n 30 {files}")).unwrap().text()
    }
}

/// The documented values of an installation that selects by the API, with one route.
pub(crate) fn values() -> Value {
    json!({
        "api": {"startupTaint": true},
        "caBundle": {"hostPath": "/etc/ssl/certs/ca-certificates.crt"},
        "routes": [route()]
    })
}

/// The route of the chart's values. Its resolver is named, as a test may change the agent's.
pub(crate) fn route() -> Value {
    json!({
        "source": INTERNAL_NAME,
        "destination": PUBLIC_NAME,
        "resolver": format!("{DNS_ADDRESS}:53")
    })
}
