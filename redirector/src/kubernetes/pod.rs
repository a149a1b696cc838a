//! What the agent reads of a pod.

use std::{collections::BTreeMap, net::IpAddr};

use serde::Deserialize;

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

/// A pod as the API server writes it.
#[derive(Debug, Deserialize)]
pub(super) struct RawPod {
    pub(super) metadata: Metadata,
    #[serde(default)]
    spec: Spec,
    #[serde(default)]
    status: Status,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Metadata {
    #[serde(default)]
    pub(super) uid: String,
    #[serde(default)]
    name: String,
    #[serde(default)]
    namespace: String,
    #[serde(default)]
    labels: BTreeMap<String, String>,
    #[serde(default)]
    annotations: BTreeMap<String, String>,
    #[serde(default)]
    pub(super) resource_version: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Spec {
    #[serde(default)]
    host_network: bool,
}

#[derive(Debug, Default, Deserialize)]
struct Status {
    #[serde(default, rename = "podIP")]
    pod_ip: Option<String>,
    #[serde(default, rename = "podIPs")]
    pod_ips: Vec<PodIp>,
}

#[derive(Debug, Deserialize)]
struct PodIp {
    ip: String,
}

impl From<RawPod> for Pod {
    fn from(raw: RawPod) -> Self {
        let RawPod { metadata, spec, status } = raw;
        let all = status.pod_ip.into_iter().chain(status.pod_ips.into_iter().map(|ip| ip.ip));
        let mut addresses: Vec<IpAddr> = all.filter_map(|ip| ip.parse().ok()).collect();
        addresses.sort_unstable();
        addresses.dedup();
        if spec.host_network {
            addresses.clear();
        }
        let uid = metadata.annotations.get(STATIC_POD).cloned().unwrap_or(metadata.uid);
        Self {
            uid,
            namespace: metadata.namespace,
            name: metadata.name,
            labels: metadata.labels,
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
