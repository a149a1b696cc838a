//! What the agent reads of the pods of its node.

use std::{collections::BTreeMap, net::IpAddr};

use kube::{
    Api, Client,
    core::{ApiResource, Object},
};
use serde::Deserialize;

use super::follow::{Follow, Followed, Known};

/// The annotation of a static pod, whose cgroup has this in place of its UID.
const STATIC_POD: &str = "kubernetes.io/config.hash";

/// A pod.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pod {
    /// The UID in the name of its cgroup.
    pub uid: String,
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Its own addresses; none in the host's network.
    pub addresses: Vec<IpAddr>,
}

/// A pod as the API server writes it, as far as the agent reads it.
type RawPod = Object<Spec, Status>;

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Spec {
    #[serde(default)]
    host_network: bool,
}

#[derive(Clone, Debug, Default, Deserialize)]
struct Status {
    #[serde(default, rename = "podIP")]
    pod_ip: Option<String>,
    #[serde(default, rename = "podIPs")]
    pod_ips: Vec<PodIp>,
}

#[derive(Clone, Debug, Deserialize)]
struct PodIp {
    ip: String,
}

/// The pods of a node, by the UIDs in the names of their cgroups.
pub type Pods = Followed<Pod>;

/// Follows the pods of `node`, until nobody receives them any more.
pub async fn follow(client: Client, node: String, sender: Known<Pod>) {
    let resource = ApiResource::erase::<k8s_openapi::api::core::v1::Pod>(&());
    let keep = |raw: RawPod| {
        let pod = Pod::from(raw);
        (pod.uid.clone(), pod)
    };
    Follow {
        what: "pods of this node",
        api: Api::all_with(client, &resource),
        fields: Some(format!("spec.nodeName={node}")),
        keep,
    }
    .run(sender)
    .await;
}

impl From<RawPod> for Pod {
    fn from(raw: RawPod) -> Self {
        let Object { metadata, spec, status, .. } = raw;
        let status = status.unwrap_or_default();
        let all = status.pod_ip.into_iter().chain(status.pod_ips.into_iter().map(|ip| ip.ip));
        let mut addresses: Vec<IpAddr> = all.filter_map(|ip| ip.parse().ok()).collect();
        addresses.sort_unstable();
        addresses.dedup();
        if spec.host_network {
            addresses.clear();
        }
        let fixed = metadata.annotations.and_then(|mut all| all.remove(STATIC_POD));
        Self {
            uid: fixed.or(metadata.uid).unwrap_or_default(),
            namespace: metadata.namespace.unwrap_or_default(),
            name: metadata.name.unwrap_or_default(),
            labels: metadata.labels.unwrap_or_default(),
            addresses,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod(value: serde_json::Value) -> Pod {
        serde_json::from_value::<RawPod>(value).expect("a pod").into()
    }

    #[test]
    fn a_pod_has_its_cgroups_uid_and_its_own_addresses() {
        let job = pod(json!({
            "metadata": {"uid": "u", "name": "n", "namespace": "s", "labels": {"a": "b"}},
            "spec": {"nodeName": "node1"},
            "status": {"podIP": "10.0.0.2", "podIPs": [{"ip": "10.0.0.2"}, {"ip": "fd00::2"}]}
        }));
        assert_eq!((job.uid.as_str(), job.labels["a"].as_str()), ("u", "b"));
        assert_eq!(job.addresses, ["10.0.0.2", "fd00::2"].map(|ip| ip.parse::<IpAddr>().unwrap()));
        let fixed = pod(json!({
            "metadata": {"uid": "u", "annotations": {"kubernetes.io/config.hash": "h"}},
            "spec": {"hostNetwork": true},
            "status": {"podIP": "192.0.2.1"}
        }));
        assert_eq!((fixed.uid.as_str(), fixed.addresses.len()), ("h", 0));
    }
}
