//! The taint that keeps jobs away from a new node until its agent serves.

use k8s_openapi::api::core::v1::Node;
use kube::{
    Api, Client,
    api::{Patch, PatchParams},
    core::{ApiResource, DynamicObject},
};
use serde_json::{Value, json};
use tracing::info;

use super::client::{ApiError, answer};

/// The key of the taint, which a node group sets on its nodes (`--register-with-taints`).
pub const TAINT: &str = "redirector.dev/not-ready";

/// Removes the taint from `node`; false if it is not there.
///
/// # Errors
///
/// If the API server does not answer, refuses, or others keep changing the node.
pub async fn remove_taint(client: &Client, node: &str) -> Result<bool, ApiError> {
    /// The kubelet and controllers write to nodes, too.
    const ATTEMPTS: usize = 5;
    let api = Api::all_with(client.clone(), &ApiResource::erase::<Node>(&()));
    let mut attempt = 0;
    loop {
        let read = answer("to read this node", api.get(node)).await?;
        let Some(patch) = without_taint(&read) else { return Ok(false) };
        attempt += 1;
        let (params, patch) = (PatchParams::default(), Patch::Merge(patch));
        match answer("to change this node's taints", api.patch(node, &params, &patch)).await {
            Ok(_) => {
                info!(node, taint = TAINT, "the start-up taint is removed");
                return Ok(true);
            }
            Err(error) if error.is_conflict() && attempt < ATTEMPTS => {}
            Err(error) => return Err(error),
        }
    }
}

/// The change that leaves every other taint as it is, if nobody else changes the node meanwhile;
/// none if there is nothing to remove.
fn without_taint(node: &DynamicObject) -> Option<Value> {
    let taints = node.data["spec"]["taints"].as_array()?;
    let others: Vec<_> = taints.iter().filter(|taint| taint["key"] != TAINT).collect();
    (others.len() < taints.len()).then(|| {
        json!({
            "metadata": {"resourceVersion": node.metadata.resource_version},
            "spec": {"taints": others}
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_our_taint_is_removed_from_the_version_that_was_read() {
        let node = |taints: Value| {
            let node = json!({"metadata": {"resourceVersion": "7"}, "spec": {"taints": taints}});
            serde_json::from_value::<DynamicObject>(node).expect("a node")
        };
        let other = json!({"key": "sandbox.gke.io/runtime", "effect": "NoSchedule"});
        let ours = json!({"key": TAINT, "effect": "NoSchedule"});
        assert_eq!(
            without_taint(&node(json!([ours, other]))),
            Some(json!({"metadata": {"resourceVersion": "7"}, "spec": {"taints": [other]}}))
        );
        assert_eq!(without_taint(&node(json!([other]))), None);
        assert_eq!(without_taint(&node(Value::Null)), None);
    }
}
