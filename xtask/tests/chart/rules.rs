//! The chart's CEL rules, evaluated here: the Kubernetes of the tests (`cargo xtask kube`) is older
//! than them, and ignores them.

use std::{collections::BTreeMap, sync::Arc};

use cel::{Context, Env};
use serde_json::{Value, json};

use crate::helm::render;

/// What a rule is evaluated for, by the names of its variables.
type Case = Value;

/// Whether the rule admits it. An error refuses, as in the API server.
fn admits(rule: &str, case: &Case) -> bool {
    let env = Arc::new(Env::stdlib());
    let program = env.compile(rule).unwrap_or_else(|error| panic!("{rule}: {error}"));
    let mut context = Context::with_env(env);
    for (name, value) in case.as_object().unwrap() {
        context.add_variable(name.as_str(), value).unwrap();
    }
    program.execute(&context) == Ok(true.into())
}

fn check(rule: &str, (good, bad): (&[Case], &[Case])) {
    for case in good {
        assert!(admits(rule, case), "{rule} refuses {case}");
    }
    for case in bad {
        assert!(!admits(rule, case), "{rule} admits {case}");
    }
}

/// The rules anywhere in a schema.
fn rules<'a>(value: &'a Value, found: &mut Vec<&'a str>) {
    match value {
        Value::Object(fields) => {
            let own = fields.get("x-kubernetes-validations").and_then(Value::as_array);
            found.extend(own.into_iter().flatten().map(|rule| rule["rule"].as_str().unwrap()));
            fields.values().for_each(|value| rules(value, found));
        }
        Value::Array(items) => items.iter().for_each(|value| rules(value, found)),
        _ => {}
    }
}

/// Each rule of the custom resources needs its cases here.
#[test]
fn each_rule_of_a_route_admits_and_refuses() {
    let (name, addresses) = (json!("lb.example"), json!(["203.0.113.7"]));
    let route = |spec: Value| json!({"self": spec});
    let change =
        |new: &str, old: &str| json!({"self": {"source": new}, "oldSelf": {"source": old}});
    let cases = BTreeMap::from([
        (
            "has(self.destination) != has(self.addresses)",
            (
                vec![
                    route(json!({"source": "a.internal", "destination": name})),
                    route(json!({"source": "a.internal", "addresses": addresses})),
                ],
                vec![
                    route(json!({"source": "a.internal"})),
                    route(json!({
                        "source": "a.internal", "destination": name, "addresses": addresses
                    })),
                ],
            ),
        ),
        (
            "self.source == oldSelf.source",
            (
                vec![change("a.internal", "a.internal"), change("*.a.internal", "*.a.internal")],
                vec![change("b.internal", "a.internal"), change("*.a.internal", "a.internal")],
            ),
        ),
    ]);
    let rendered = render(Some("cluster"));
    let mut found = Vec::new();
    for definition in rendered.objects_of_kind("CustomResourceDefinition") {
        rules(definition, &mut found);
    }
    found.sort_unstable();
    assert_eq!(found, cases.keys().copied().collect::<Vec<_>>(), "rules without cases");
    for (rule, (good, bad)) in &cases {
        check(rule, (good, bad));
    }
}

/// A token that names no node is one of Kubernetes before 1.30, which RBAC alone limits.
#[test]
fn an_agent_reports_for_the_node_of_its_token() {
    let rendered = render(Some("everything"));
    let policy = &rendered.objects_of_kind("ValidatingAdmissionPolicy")[0]["spec"];
    let account = rendered.of_kind("DaemonSet")["spec"]["template"]["spec"]["serviceAccountName"]
        .as_str()
        .unwrap();
    let agent = format!("system:serviceaccount:kube-system:{account}");
    let node = |node: &str| json!({"authentication.kubernetes.io/node-name": [node]});
    let other = json!({"authentication.kubernetes.io/pod-name": ["redirector-abcde"]});
    let object = json!({"metadata": {"name": "node1"}});
    let request = |user: Value| json!({"request": {"userInfo": user}, "object": object});
    let by = policy["matchConditions"][0]["expression"].as_str().unwrap();
    let user = |name: &str| request(json!({"username": name}));
    check(by, (&[user(&agent)], &[user("admin"), user(&format!("{agent}-controller"))]));
    let rule = policy["validations"][0]["expression"].as_str().unwrap();
    let with = |extra: Value| request(json!({"username": agent, "extra": extra}));
    let good = [with(node("node1")), with(other), user(&agent)];
    check(rule, (&good, &[with(node("node2")), with(node(""))]));
}
