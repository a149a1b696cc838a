//! Pods as the platform makes them.

use std::path::Path;

use serde_json::{Value, json};
use testbed::{topology::INTERNAL_NAME, workspace};

/// Connects to the internal name once, and reads the load balancer's answer.
pub(crate) fn fetch() -> String {
    fetch_from(INTERNAL_NAME)
}

/// As [`fetch`], with another name.
pub(crate) fn fetch_from(name: &str) -> String {
    format!(
        "exec 3<>/dev/tcp/{name}/8080 && printf 'GET / HTTP/1.0\\r\\n\\r\\n' >&3 && \
         answer=$(cat <&3) && echo \"$answer\" && [[ $answer == *lb[12]* ]]"
    )
}

/// A container with the machine's programs, which runs a line of bash.
pub(crate) fn container(name: &str, line: &str) -> Value {
    let target = workspace::target_dir();
    json!({
        "name": name,
        "image": cluster::TOOLS_IMAGE,
        "imagePullPolicy": "Never",
        "command": ["/usr/bin/bash", "-c", line],
        "volumeMounts": [
            {"name": "usr", "mountPath": "/usr", "readOnly": true},
            {"name": "target", "mountPath": target, "readOnly": true}
        ]
    })
}

/// A volume: a folder of the machine.
pub(crate) fn host(name: &str, path: &Path) -> Value {
    json!({"name": name, "hostPath": {"path": path}})
}

/// The spec of a pod with these containers, of which all but the last are init containers.
pub(crate) fn spec(mut containers: Vec<Value>) -> Value {
    let last = containers.pop();
    json!({
        "restartPolicy": "Never",
        "automountServiceAccountToken": false,
        "terminationGracePeriodSeconds": 0,
        "initContainers": containers,
        "containers": [last],
        "volumes": [host("usr", Path::new("/usr")), host("target", &workspace::target_dir())]
    })
}

/// A job of the platform: init containers, no labels of its own, and no second chance.
pub(crate) fn job(name: &str, spec: &Value) -> Value {
    json!({
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": name},
        "spec": {"backoffLimit": 0, "template": {"spec": spec}}
    })
}

/// A pod that waits for commands.
pub(crate) fn idle(name: &str) -> Value {
    pod(name, "default", &spec(vec![container("main", "sleep 10000")]))
}

/// A pod outside of jobs.
pub(crate) fn pod(name: &str, namespace: &str, spec: &Value) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": namespace},
        "spec": spec
    })
}
