//! Routes of the whole cluster: `RedirectRoute` objects in Kubernetes, which one controller
//! compiles for the agents of all nodes.
//!
//! | module | contains |
//! |---|---|
//! | `resources` | the custom resources |
//! | `verdict` | which routes are accepted |
//! | `slices` | accepted routes as few objects, of which one change rewrites one |
//! | `summary` | what all nodes report, as the status of each route |
//! | `statuses` | those, written where they differ |
//! | `lease` | which controller works |
//! | `controller` | all of that, in a loop |
//! | `node_routes` | what a node makes of the slices, and its copy of them |
//! | `report` | what a node reports |
//! | `client` | what the command line does |
//!
//! A route goes from `RedirectRoute` through the controller into a `RedirectRouteSlice`, and from
//! there to every agent. What came of it returns as one `RedirectNode` per node.

mod client;
mod controller;
mod lease;
mod node_routes;
mod report;
#[expect(
    unreachable_pub,
    clippy::duplicated_attributes,
    reason = "KubeSchema copies its struct into a scope of its own; columns have types in common"
)]
mod resources;
mod slices;
mod statuses;
mod summary;
mod verdict;

use std::sync::Arc;

use kube::{Api, Client, CustomResourceExt as _, ResourceExt as _};
use tokio::sync::watch;

use crate::kubernetes::{Follow, Followed};

pub use client::ClusterClient;
pub use controller::run as run_controller;
pub use node_routes::{NodeRoutes, SliceCopy};
pub use report::{AgentPod, Reported, report};
pub use resources::{
    FailingNode, FailingRoute, MAX_REPORTED, RedirectNode, RedirectNodeSpec, RedirectRoute,
    RedirectRouteSlice, RedirectRouteSliceSpec, RedirectRouteSpec, RouteCondition, RouteStatus,
    SliceRoute,
};
pub use verdict::object_name;

/// The name of the slice that exists as long as a controller has run.
pub const FIRST_SLICE: &str = "routes-0";

/// Where the slices go that an agent follows.
pub type SliceSender = watch::Sender<Option<Arc<Followed<RedirectRouteSliceSpec>>>>;

/// Follows the slices in `namespace`, until nobody receives them any more.
pub async fn follow_slices(client: Client, namespace: String, sender: SliceSender) {
    Follow {
        what: "route slices",
        api: Api::<RedirectRouteSlice>::namespaced(client, &namespace),
        fields: None,
        keep: |slice: RedirectRouteSlice| (slice.name_any(), slice.spec),
    }
    .run(sender)
    .await;
}

/// The definitions of the custom resources, as YAML.
pub fn definitions() -> String {
    let definitions = [RedirectRoute::crd(), RedirectRouteSlice::crd(), RedirectNode::crd()];
    let documents = definitions.map(|definition| {
        let text = serde_yaml_ng::to_string(&definition).expect("a definition is YAML");
        format!("---\n{text}")
    });
    documents.concat()
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    use super::*;

    #[test]
    fn the_definitions_of_the_chart_are_generated() {
        let path =
            Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/helm/redirector/files/crds.yaml");
        if std::env::var_os("REDIRECTOR_BLESS").is_some() {
            return fs::write(path, definitions()).expect("written");
        }
        let written = fs::read_to_string(&path).unwrap_or_default();
        assert!(
            written == definitions(),
            "{} is not what the code says: REDIRECTOR_BLESS=1 cargo test -p redirector definitions",
            path.display()
        );
    }
}
