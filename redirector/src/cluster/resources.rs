//! The custom resources: what people write, what the controller makes of it, and what agents
//! report. Their definitions are generated from these types.

use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The most routes and reasons that a report of a node lists.
pub const MAX_REPORTED: usize = 64;
/// The most failing nodes that a route's status lists.
pub(super) const MAX_FAILING: usize = 10;

/// An internal name whose connections go to a public load balancer, on every node.
#[derive(CustomResource, KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "redirector.dev",
    version = "v1alpha1",
    annotation("helm.sh/resource-policy", "keep"),
    kind = "RedirectRoute",
    plural = "redirectroutes",
    shortname = "rdr",
    doc = "An internal name whose connections go to a public load balancer, on every node",
    status = "RouteStatus",
    derive = "PartialEq",
    printcolumn(name = "Source", type_ = "string", json_path = ".spec.source"),
    printcolumn(name = "Destination", type_ = "string", json_path = ".spec.destination"),
    printcolumn(
        name = "Accepted",
        type_ = "string",
        json_path = ".status.conditions[?(@.type=='Accepted')].status"
    ),
    printcolumn(name = "Applied", type_ = "integer", json_path = ".status.applied"),
    printcolumn(name = "Nodes", type_ = "integer", json_path = ".status.nodes"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(
        name = "Reason",
        type_ = "string",
        priority = 1,
        json_path = ".status.conditions[?(@.type=='Accepted')].message"
    )
)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("has(self.destination) != has(self.addresses)")
        .message("write either `destination`, a DNS name, or `addresses`"),
    validation = Rule::new("self.source == oldSelf.source")
        .message("the source of a route does not change: make another route")
)]
pub struct RedirectRouteSpec {
    /// The internal name: exact, `*.zone` (one label more) or `**.zone`.
    #[schemars(length(min = 1, max = 255), regex(pattern = r"^(\*\*?\.)?[A-Za-z0-9_.-]+$"))]
    pub source: String,
    /// The load balancer's DNS name, or one address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 255))]
    pub destination: Option<String>,
    /// The load balancer's addresses, in place of `destination`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 64), inner(length(min = 2, max = 45)))]
    pub addresses: Option<Vec<String>>,
    /// `CLIENT` or `CLIENT:DESTINATION` each; absent: all ports, unchanged.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 64), inner(regex(pattern = r"^[0-9]+(:[0-9]+)?$")))]
    pub ports: Option<Vec<String>>,
    /// The DNS server that resolves the destination, as each node reaches it; absent: that of
    /// the node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 2, max = 64))]
    pub resolver: Option<String>,
    /// Addresses to connect from, where a node has them; absent: the kernel's choice.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 16), inner(length(min = 2, max = 45)))]
    pub source_ips: Option<Vec<String>>,
    /// What a connect gets when no backend is known: `refuse` (the default) or `pass`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = r"^(refuse|pass)$"))]
    pub on_no_backend: Option<String>,
    /// The load balancer's idle timeout, such as `350s`; absent: no keepalive is set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 2, max = 16))]
    pub idle_timeout: Option<String>,
}

/// What the controller and the nodes report of a route.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RouteStatus {
    /// The generation that this describes.
    #[serde(default)]
    pub observed_generation: i64,
    /// How many nodes report.
    #[serde(default)]
    pub nodes: u32,
    /// On how many of them the route is in force.
    #[serde(default)]
    pub applied: u32,
    /// On how many it fails.
    #[serde(default)]
    pub failing: u32,
    /// The first ten of those.
    #[serde(default)]
    #[schemars(length(max = 10))]
    pub failing_nodes: Vec<FailingNode>,
    /// `Accepted`: it is valid, and the only route of its source. `Applied`: it is in force on
    /// every node.
    #[serde(default)]
    pub conditions: Vec<RouteCondition>,
}

impl RouteStatus {
    /// Whether the controller has accepted the route.
    pub fn is_accepted(&self) -> bool {
        self.accepted().is_some_and(|condition| condition.status == "True")
    }

    /// Why it has not; none if it has.
    pub fn refusal(&self) -> Option<&str> {
        let condition = self.accepted().filter(|condition| condition.status == "False")?;
        Some(&condition.message)
    }

    fn accepted(&self) -> Option<&RouteCondition> {
        self.conditions.iter().find(|condition| condition.kind == "Accepted")
    }
}

/// A node on which a route fails.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct FailingNode {
    /// Its name.
    pub node: String,
    /// Why.
    pub reason: String,
}

/// A condition, as other resources have it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RouteCondition {
    /// Its type.
    #[serde(rename = "type")]
    pub kind: String,
    /// `True` or `False`.
    pub status: String,
    /// One word.
    pub reason: String,
    /// A sentence.
    pub message: String,
    /// When `status` changed.
    pub last_transition_time: String,
}

/// A part of the accepted routes, for the agents.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "redirector.dev",
    version = "v1alpha1",
    annotation("helm.sh/resource-policy", "keep"),
    kind = "RedirectRouteSlice",
    plural = "redirectrouteslices",
    namespaced,
    doc = "A part of the accepted RedirectRoutes, which the controller writes and agents read",
    derive = "PartialEq",
    printcolumn(name = "Revision", type_ = "integer", json_path = ".spec.revision"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
pub struct RedirectRouteSliceSpec {
    /// Grows with each slice that is written: who has seen it has seen all before it.
    pub revision: i64,
    /// Within how many seconds nodes report a change: the more nodes, the longer.
    pub report_within_seconds: u32,
    /// The routes.
    #[serde(default)]
    pub routes: Vec<SliceRoute>,
}

/// A route in a slice.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SliceRoute {
    /// The name of its RedirectRoute.
    pub name: String,
    /// The generation of that.
    pub generation: i64,
    /// The revision that brought it.
    pub revision: i64,
    /// The route as the agent's configuration has it. An agent that does not understand it
    /// reports that, and takes the others.
    #[schemars(schema_with = "any_object")]
    pub route: serde_json::Value,
}

fn any_object(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    schemars::json_schema!({"type": "object", "x-kubernetes-preserve-unknown-fields": true})
}

/// What a node's agent has made of the slices.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "redirector.dev",
    version = "v1alpha1",
    annotation("helm.sh/resource-policy", "keep"),
    kind = "RedirectNode",
    plural = "redirectnodes",
    namespaced,
    doc = "What the agent of a node has made of the RedirectRouteSlices",
    derive = "PartialEq",
    printcolumn(name = "Revision", type_ = "integer", json_path = ".spec.revision"),
    printcolumn(name = "Failing", type_ = "integer", json_path = ".spec.failing"),
    printcolumn(name = "Version", type_ = "string", json_path = ".spec.agentVersion")
)]
#[serde(rename_all = "camelCase")]
pub struct RedirectNodeSpec {
    /// The agent's version.
    pub agent_version: String,
    /// The last revision that is in force.
    pub revision: i64,
    /// How many routes of it are not.
    pub failing: u32,
    /// The first of those.
    #[serde(default)]
    #[schemars(length(max = 64))]
    pub failing_routes: Vec<FailingRoute>,
}

/// A route that a node does not serve.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct FailingRoute {
    /// The name of its RedirectRoute.
    pub route: String,
    /// Why.
    pub reason: String,
}
