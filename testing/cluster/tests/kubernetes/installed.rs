//! What the chart installs with a controller, without pods: programs of the node take their place.

use std::{fs, path::Path};

use anyhow::Result;
use cluster::ControlPlane;
use serde::Deserialize as _;
use serde_json::{Value, json};
use testbed::{Rig, service::Service, workspace};

/// Its custom resources, and the other objects, as far as this version of Kubernetes knows them and
/// no node is needed.
pub(crate) fn objects() -> (Vec<Value>, Vec<Value>) {
    let mut objects = objects_of_base("cluster");
    objects.retain(|object| {
        let kind = object["kind"].as_str().unwrap_or_default();
        !["DaemonSet", "Deployment", "PodDisruptionBudget"].contains(&kind)
    });
    for object in &mut objects {
        remove_rules(object);
    }
    objects.into_iter().partition(|object| object["kind"] == "CustomResourceDefinition")
}

/// What one of Kustomize's bases applies.
pub(crate) fn objects_of_base(base: &str) -> Vec<Value> {
    let path = workspace::root().join(format!("deploy/kustomize/{base}/redirector.yaml"));
    let text = fs::read_to_string(path).unwrap();
    let documents = serde_yaml_ng::Deserializer::from_str(&text);
    let objects = documents.map(|document| Value::deserialize(document).unwrap());
    objects.filter(|object| !object["kind"].is_null()).collect()
}

pub(crate) fn apply_all(control: &ControlPlane, objects: &[Value]) {
    for object in objects {
        control.kubectl().apply(&object.to_string()).unwrap();
    }
}

/// Both replicas, with the account of the chart.
pub(crate) fn start_controllers(
    rig: &Rig,
    control: &ControlPlane,
    binary: &Path,
) -> Result<Vec<(&'static str, Service)>> {
    let kubeconfig = rig.files().join("controller.kubeconfig");
    fs::write(&kubeconfig, kubeconfig_of(control, "redirector-controller"))?;
    let start = |name| {
        let mut command = rig.node.command(binary);
        command.args(["controller", "--namespace", "kube-system", "--identity", name]);
        command.env("KUBECONFIG", &kubeconfig);
        let log = rig.files().join(format!("controller-{name}.log"));
        Ok((name, Service::start("controller", &log, command)?))
    };
    ["one", "other"].into_iter().map(start).collect()
}

/// A kubeconfig of one of the chart's accounts.
pub(crate) fn kubeconfig_of(control: &ControlPlane, account: &str) -> String {
    let text = fs::read_to_string(control.kubeconfig()).unwrap();
    text.replace("administrator", &account_token(control, account))
}

/// CEL came with Kubernetes 1.25; this version's kubectl refuses what it does not know.
pub(crate) fn remove_rules(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.remove("x-kubernetes-validations");
            fields.values_mut().for_each(remove_rules);
        }
        Value::Array(items) => items.iter_mut().for_each(remove_rules),
        _ => {}
    }
}

/// The token that the kubelet would mount.
pub(crate) fn account_token(control: &ControlPlane, account: &str) -> String {
    let request = json!({
        "apiVersion": "authentication.k8s.io/v1",
        "kind": "TokenRequest",
        "spec": {"audiences": ["https://kubernetes.default.svc"]},
    });
    let path = format!("/api/v1/namespaces/kube-system/serviceaccounts/{account}/token");
    let text = control.kubectl().create_raw(&path, &request.to_string()).unwrap();
    let answer: Value = serde_json::from_str(&text).unwrap();
    answer["status"]["token"].as_str().unwrap().to_owned()
}
