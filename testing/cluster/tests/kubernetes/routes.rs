//! Routes of the whole cluster: controllers and an agent as programs of the node, with the
//! accounts of the chart, against the real API server.

use std::{
    fs,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use cluster::{ControlPlane, Kubectl};
use serde_json::{Value, json};
use testbed::{
    Rig,
    agent::{Agent, AgentOptions},
    binaries,
    process::{self, until},
    service::Service,
    topology::NODE_ADDRESS,
};

use crate::{
    installed::{account_token, apply_all, objects, start_controllers},
    stage::LIMIT,
};

/// The contract.
const LIVE: Duration = Duration::from_secs(5);
const CONFIG: &str = "[attach]\ncgroups = [\"kubernetes\"]\n[[routes]]\nsource = \
    \"own.internal\"\ndestination = \"203.0.113.9\"\n";

struct Field {
    agent: Agent,
    controllers: Vec<(&'static str, Service)>,
    control: ControlPlane,
    binary: PathBuf,
    // Last, as the namespaces must outlive their users.
    rig: Rig,
}

impl Field {
    fn start() -> Self {
        let binary = binaries::find("redirector", "redirector", "redirector/src").unwrap();
        let rig = Rig::new().unwrap();
        let control = ControlPlane::start(&rig).unwrap();
        let (definitions, others) = objects();
        apply_all(&control, &others);
        // Routes of a file, such as a ConfigMap's, need no custom resource.
        let agent = start_agent(&rig, &control, &binary);
        apply_all(&control, &definitions);
        let controllers = start_controllers(&rig, &control, &binary).unwrap();
        Self { agent, controllers, control, binary, rig }
    }

    fn kubectl(&self) -> &Kubectl {
        self.control.kubectl()
    }

    fn apply(&self, name: &str, spec: &Value) {
        let route = json!({
            "apiVersion": "redirector.dev/v1alpha1",
            "kind": "RedirectRoute",
            "metadata": {"name": name},
            "spec": spec,
        });
        self.kubectl().apply(&route.to_string()).unwrap();
    }

    fn status(&self, name: &str) -> Value {
        self.kubectl().get(&["redirectroute", name]).unwrap()["status"].clone()
    }

    fn await_status(&self, name: &str, what: &str, holds: impl Fn(&Value) -> bool) {
        until(what, LIMIT, || Ok(holds(&self.status(name))))
            .unwrap_or_else(|error| panic!("{error:#}: {}\n{}", self.status(name), self.logs()));
    }

    /// The command line on the node.
    fn cli(&self, words: &[&str]) -> process::Finished {
        let mut command = self.rig.node.command(&self.binary);
        command.args(words).env("KUBECONFIG", self.control.kubeconfig());
        process::finish(command, LIMIT).unwrap()
    }

    fn is_live(&self, source: &str) -> bool {
        let routes = self.cli(&["route", "list", "-o", "json"]).stdout;
        let routes: Value = serde_json::from_str(&routes).unwrap_or_default();
        let mut routes = routes["routes"].as_array().into_iter().flatten();
        routes.any(|route| route["source"] == source && route["live"] == true)
    }

    fn holder(&self) -> String {
        let lease = ["-n", "kube-system", "lease", "redirector-controller"];
        let lease = self.kubectl().get(&lease).unwrap_or_default();
        lease["spec"]["holderIdentity"].as_str().unwrap_or_default().to_owned()
    }

    fn logs(&self) -> String {
        let log = |name| fs::read_to_string(self.rig.files().join(name)).unwrap_or_default();
        let controllers = log("controller-one.log") + &log("controller-other.log");
        format!("{controllers}\n{}", self.agent.log_tail())
    }
}

#[test]
fn routes_of_the_cluster_are_live_and_reported() {
    let mut field = Field::start();
    accounts_have_the_least_rights(&field);
    is_live_within_the_contract(&field);
    has_the_verdicts_and_reasons(&field);
    the_command_line_does_the_same(&field);
    an_outage_stops_the_controllers_only(&mut field);
    another_controller_takes_over(&mut field);
    without_the_resources_routes_stay(&field);
}

fn accounts_have_the_least_rights(field: &Field) {
    let may = |account: &str, words: &str| {
        let account = format!("--as=system:serviceaccount:kube-system:{account}");
        let words: Vec<_> = ["auth", "can-i", "-n", "kube-system", &account]
            .into_iter()
            .chain(words.split(' '))
            .collect();
        field.kubectl().run(&words).unwrap().stdout.trim() == "yes"
    };
    for (account, allowed, refused) in [
        (
            "redirector",
            &["watch redirectrouteslices", "patch redirectnodes"][..],
            &[
                "update redirectrouteslices",
                "delete redirectnodes",
                "list redirectnodes",
                "list redirectroutes",
                "patch nodes",
                "get secrets",
                "update pods",
            ][..],
        ),
        (
            "redirector-controller",
            &[
                "watch redirectroutes",
                "patch redirectroutes --subresource=status",
                "update redirectrouteslices",
                "watch redirectnodes",
                "update leases/redirector-controller",
            ],
            &[
                "patch redirectroutes",
                "create redirectroutes",
                "patch redirectnodes",
                "update leases/another",
                "get secrets",
                "list pods",
            ],
        ),
    ] {
        for words in allowed {
            assert!(may(account, words), "{account} cannot {words}");
        }
        for words in refused {
            assert!(!may(account, words), "{account} can {words}");
        }
    }
}

fn is_live_within_the_contract(field: &Field) {
    until("a controller works", LIMIT, || Ok(!field.holder().is_empty())).unwrap();
    let node = ["-n", "kube-system", "redirectnode", "node1"];
    until("the node reports", LIMIT, || Ok(field.kubectl().get(&node).is_ok()))
        .unwrap_or_else(|error| panic!("{error:#}\n{}", field.logs()));
    let mut longest = Duration::ZERO;
    for number in 0..5 {
        let source = format!("git{number}.internal");
        let started = Instant::now();
        field.apply(
            &format!("git{number}"),
            &json!({"source": source, "addresses": ["203.0.113.7"]}),
        );
        // How long kubectl takes to start is not ours.
        let applied = Instant::now();
        let live = until("the route is live", LIMIT, || Ok(field.is_live(&source)));
        live.unwrap_or_else(|error| panic!("{error:#}\n{}", field.logs()));
        let (all, ours) = (started.elapsed(), applied.elapsed());
        eprintln!("kubectl apply to live: {all:.1?}, of which after kubectl {ours:.1?}");
        longest = longest.max(ours);
    }
    assert!(longest < LIVE, "{longest:?}\n{}", field.logs());
    let is_applied = |status: &Value| status["applied"] == 1 && status["nodes"] == 1;
    field.await_status("git4", "the report", is_applied);
    let report = field.kubectl().get(&node).unwrap();
    assert!(report.to_string().len() < 4096, "{report}");
}

fn has_the_verdicts_and_reasons(field: &Field) {
    let reason = |of: &'static str, wanted: &'static str| {
        move |status: &Value| {
            let mut conditions = status["conditions"].as_array().into_iter().flatten();
            conditions.any(|at| at["type"] == of && at["reason"] == wanted)
        }
    };
    field.apply("zz", &json!({"source": "GIT4.internal", "destination": "lb.example"}));
    field.await_status("zz", "the conflict", reason("Accepted", "Conflict"));
    let wrong = json!({"source": "w.internal", "addresses": ["203.0.113.7"], "ports": ["0"]});
    field.apply("wrong", &wrong);
    field.await_status("wrong", "the refusal", reason("Accepted", "Invalid"));
    field.apply("own", &json!({"source": "own.internal", "addresses": ["203.0.113.7"]}));
    field.await_status("own", "the failure", reason("Applied", "Failing"));
    let failing = field.status("own")["failingNodes"][0].clone();
    assert_eq!(failing["node"], "node1", "{failing}");
    assert!(failing["reason"].as_str().unwrap().contains("from the file"), "{failing}");
    let nobody = json!({
        "apiVersion": "redirector.dev/v1alpha1",
        "kind": "RedirectRoute",
        "metadata": {"name": "nobody"},
        "spec": {"source": "not a name", "destination": "lb.example"},
    });
    let refused = format!("{:#}", field.kubectl().apply(&nobody.to_string()).unwrap_err());
    assert!(refused.contains("spec.source"), "{refused}");
}

fn the_command_line_does_the_same(field: &Field) {
    let add = ["route", "add", "--cluster", "a.internal", "203.0.113.8"];
    let added = field.cli(&add);
    let wanted = "added a.internal to the cluster as a.internal: live on 1 of 1 nodes\n";
    assert_eq!(added.stdout, wanted, "{}\n{}", added.text(), field.logs());
    assert!(field.is_live("a.internal"));
    let local = field.cli(&["route", "add", "l.internal", "203.0.113.8"]);
    assert!(local.stderr.contains("on this node only"), "{}", local.text());
    let again = field.cli(&add);
    assert!(again.stderr.contains("already exists"), "{}", again.text());
    let remove = ["route", "remove", "--cluster", "a.internal"];
    assert!(field.cli(&remove).status.success());
    until("the route is gone", LIMIT, || Ok(!field.is_live("a.internal"))).unwrap();
    assert!(field.cli(&remove).stderr.contains("no RedirectRoute has the source"));
}

/// The controller that cannot renew the Lease stops before another one may take it. Agents keep
/// redirecting, and start with what they have.
fn an_outage_stops_the_controllers_only(field: &mut Field) {
    field.control.set_silent(true).unwrap();
    until("the controller stops", LIMIT, || Ok(field.logs().contains("it cannot renew the Lease")))
        .unwrap_or_else(|error| panic!("{error:#}\n{}", field.logs()));
    field.agent.restart().unwrap();
    eprintln!("start without the API server: {:.1?}", field.agent.ready_after());
    for source in ["git4.internal", "l.internal", "own.internal"] {
        until("the route is live", LIMIT, || Ok(field.is_live(source)))
            .unwrap_or_else(|error| panic!("{source}: {error:#}\n{}", field.logs()));
    }
    field.control.set_silent(false).unwrap();
    field.apply("after", &json!({"source": "after.internal", "addresses": ["203.0.113.7"]}));
    until("the route is live", LIMIT, || Ok(field.is_live("after.internal")))
        .unwrap_or_else(|error| panic!("{error:#}\n{}", field.logs()));
}

/// One that dies, and then one that ends.
fn another_controller_takes_over(field: &mut Field) {
    let holder = field.holder();
    let at = field.controllers.iter().position(|(name, _)| *name == holder).unwrap();
    let (_, mut dead) = field.controllers.remove(at);
    dead.kill().unwrap();
    let other = field.controllers[0].0;
    let died = Instant::now();
    until("the other controller works", LIMIT, || Ok(field.holder() == other)).unwrap();
    eprintln!("another controller works after {:.1?}", died.elapsed());
    field.apply("later", &json!({"source": "later.internal", "addresses": ["203.0.113.7"]}));
    until("the route is live", LIMIT, || Ok(field.is_live("later.internal"))).unwrap();
    let (_, mut last) = field.controllers.remove(0);
    last.terminate(LIMIT).unwrap();
    assert_eq!(field.holder(), "", "the Lease is released");
}

/// Deleting the chart's objects, and then the resources, leaves none of ours in the API. A node
/// keeps what it has: nobody has removed a route.
fn without_the_resources_routes_stay(field: &Field) {
    let (definitions, others) = objects();
    for object in others.iter().chain(&definitions) {
        let (kind, name) = (object["kind"].as_str().unwrap(), &object["metadata"]["name"]);
        let words = ["-n", "kube-system", "delete", kind, name.as_str().unwrap()];
        field.kubectl().ok(&words).unwrap();
    }
    let left = ["get", "crd,sa,cm,role,rolebinding,clusterrole,clusterrolebinding,lease", "-A"];
    let left = field.kubectl().ok(&[&left[..], &["-o", "name"]].concat()).unwrap();
    assert!(!left.contains("redirect"), "{left}");
    for source in ["git4.internal", "l.internal", "own.internal"] {
        assert!(field.is_live(source), "{source}\n{}", field.logs());
    }
}

/// The agent, as in its pod.
fn start_agent(rig: &Rig, control: &ControlPlane, binary: &Path) -> Agent {
    const ACCOUNT: &str = "/run/secrets/kubernetes.io/serviceaccount";
    let token = account_token(control, "redirector");
    let authority = fs::read(control.authority()).unwrap();
    let put = rig.node.sandbox().namespaces().run(|| {
        fs::create_dir_all(ACCOUNT).unwrap();
        for (name, bytes) in
            [("token", token.as_bytes()), ("ca.crt", &authority), ("namespace", b"kube-system")]
        {
            fs::write(Path::new(ACCOUNT).join(name), bytes).unwrap();
        }
    });
    put.unwrap();
    let environment = [
        ("KUBERNETES_SERVICE_HOST", NODE_ADDRESS),
        ("KUBERNETES_SERVICE_PORT", "6443"),
        ("NODE_NAME", "node1"),
        ("REDIRECTOR_CLUSTER_ROUTES", "follow"),
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned()));
    let options = AgentOptions::with_config(binary, CONFIG);
    Agent::start(&rig.node, AgentOptions { environment: environment.into(), ..options }).unwrap()
}
