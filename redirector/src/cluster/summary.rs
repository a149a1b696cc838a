//! What all nodes report, as the status of each route: numbers, and the first failing nodes.

use std::collections::BTreeMap;

use super::{
    resources::{FailingNode, MAX_FAILING, RedirectNodeSpec, RouteCondition, RouteStatus},
    verdict::Verdict,
};

/// The reports of all nodes, prepared for the questions of many routes.
pub(super) struct Summary<'n> {
    /// The revisions of all nodes, in order.
    revisions: Vec<i64>,
    /// By route, who reports that it fails, in the order of the nodes' names.
    failing: BTreeMap<&'n str, Vec<(&'n str, i64, &'n str)>>,
    /// Nodes on which more routes fail than they list: a route that they do not list may fail.
    vague: Vec<(&'n str, i64, &'n RedirectNodeSpec)>,
}

impl<'n> Summary<'n> {
    pub(super) fn new(nodes: impl IntoIterator<Item = (&'n str, &'n RedirectNodeSpec)>) -> Self {
        let mut summary =
            Self { revisions: Vec::new(), failing: BTreeMap::new(), vague: Vec::new() };
        for (name, node) in nodes {
            summary.revisions.push(node.revision);
            for failing in &node.failing_routes {
                let reports = summary.failing.entry(failing.route.as_str()).or_default();
                reports.push((name, node.revision, failing.reason.as_str()));
            }
            if node.failing as usize > node.failing_routes.len() {
                summary.vague.push((name, node.revision, node));
            }
        }
        summary.revisions.sort_unstable();
        summary
    }

    /// How many nodes report.
    pub(super) fn nodes(&self) -> usize {
        self.revisions.len()
    }

    /// The numbers of the route `name`, which came with `revision`; without conditions.
    fn count(&self, name: &str, revision: i64) -> RouteStatus {
        let reached = self.revisions.len() - self.revisions.partition_point(|at| *at < revision);
        let reports = self.failing.get(name).map(Vec::as_slice).unwrap_or_default();
        let vague = self
            .vague
            .iter()
            .filter(|(_, _, node)| node.failing_routes.iter().all(|failing| failing.route != name));
        let vague = vague.map(|(node, at, _)| (*node, *at, "many routes fail on this node"));
        let mut failing: Vec<_> =
            reports.iter().copied().chain(vague).filter(|(_, at, _)| *at >= revision).collect();
        failing.sort_unstable_by_key(|(node, ..)| *node);
        let first = failing.iter().take(MAX_FAILING).map(|(node, _, reason)| FailingNode {
            node: (*node).to_owned(),
            reason: (*reason).to_owned(),
        });
        let number = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
        RouteStatus {
            nodes: number(self.revisions.len()),
            applied: number(reached - failing.len()),
            failing: number(failing.len()),
            failing_nodes: first.collect(),
            ..RouteStatus::default()
        }
    }
}

/// A route as the controller knows it.
pub(super) struct Known<'k> {
    pub(super) name: &'k str,
    pub(super) generation: i64,
    pub(super) verdict: &'k Verdict,
    /// The revision that brought it; none until it is written.
    pub(super) revision: Option<i64>,
    /// Its status so far.
    pub(super) before: Option<&'k RouteStatus>,
}

/// The status of a route. A condition keeps its time while its status stays.
pub(super) fn status(summary: &Summary<'_>, known: &Known<'_>, now: &str) -> RouteStatus {
    let (is_accepted, reason, message) = match known.verdict {
        Verdict::Accepted(_) => (true, "Valid", "the agents get this route".to_owned()),
        Verdict::Invalid(why) => (false, "Invalid", why.clone()),
        Verdict::Conflict { with } => {
            (false, "Conflict", format!("`{with}` is older and has the same source"))
        }
    };
    let mut status = match known.revision {
        Some(revision) if is_accepted => summary.count(known.name, revision),
        _ => RouteStatus {
            nodes: u32::try_from(summary.nodes()).unwrap_or(u32::MAX),
            ..RouteStatus::default()
        },
    };
    status.observed_generation = known.generation;
    let RouteStatus { nodes, applied, failing, .. } = status;
    let (is_applied, why) = match (is_accepted, failing) {
        (false, _) => (false, "NotAccepted"),
        (true, 1..) => (false, "Failing"),
        (true, 0) if applied == nodes && nodes > 0 => (true, "Applied"),
        (true, 0) => (false, "Pending"),
    };
    let shown = format!("on {applied} of {nodes} nodes; it fails on {failing}");
    let conditions =
        [("Accepted", is_accepted, reason, message), ("Applied", is_applied, why, shown)];
    status.conditions = conditions
        .into_iter()
        .map(|(kind, is_true, reason, message)| {
            condition((kind, is_true, reason, message), known.before, now)
        })
        .collect();
    status
}

/// Whether two statuses differ at most in numbers, not in what a condition says.
pub(super) fn differ_in_numbers(one: &RouteStatus, other: &RouteStatus) -> bool {
    fn rest(status: &RouteStatus) -> impl Iterator<Item = (&str, &str, &str)> {
        let conditions = status.conditions.iter();
        conditions.map(|at| (at.kind.as_str(), at.status.as_str(), at.reason.as_str()))
    }
    one.observed_generation == other.observed_generation
        && one.refusal() == other.refusal()
        && rest(one).eq(rest(other))
}

fn condition(
    (kind, is_true, reason, message): (&str, bool, &str, String),
    before: Option<&RouteStatus>,
    now: &str,
) -> RouteCondition {
    let status = if is_true { "True" } else { "False" };
    let before = before
        .and_then(|before| before.conditions.iter().find(|condition| condition.kind == kind))
        .filter(|condition| condition.status == status);
    RouteCondition {
        kind: kind.to_owned(),
        status: status.to_owned(),
        reason: reason.to_owned(),
        message,
        last_transition_time: before
            .map_or_else(|| now.to_owned(), |before| before.last_transition_time.clone()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::resources::FailingRoute;

    fn node(revision: i64, failing: &[(&str, &str)], more: u32) -> RedirectNodeSpec {
        let failing_routes: Vec<_> = failing
            .iter()
            .map(|(route, reason)| FailingRoute {
                route: (*route).to_owned(),
                reason: (*reason).to_owned(),
            })
            .collect();
        RedirectNodeSpec {
            agent_version: "1".into(),
            revision,
            failing: u32::try_from(failing_routes.len()).unwrap() + more,
            failing_routes,
        }
    }

    fn status_of(nodes: &[(String, RedirectNodeSpec)], verdict: &Verdict) -> RouteStatus {
        let summary = Summary::new(nodes.iter().map(|(name, node)| (name.as_str(), node)));
        let known = Known { name: "git", generation: 3, verdict, revision: Some(7), before: None };
        status(&summary, &known, "now")
    }

    fn named(nodes: Vec<RedirectNodeSpec>) -> Vec<(String, RedirectNodeSpec)> {
        nodes.into_iter().enumerate().map(|(n, node)| (format!("node-{n:02}"), node)).collect()
    }

    #[test]
    fn a_status_has_numbers_and_the_first_failing_nodes() {
        let mut nodes = vec![
            node(7, &[], 0),
            node(9, &[("other", "hidden")], 0),
            // An earlier revision says nothing about this one.
            node(6, &[("git", "hidden")], 0),
            node(8, &[("other", "hidden")], 3),
        ];
        nodes.extend((0..20).map(|_| node(7, &[("git", "no address")], 0)));
        let accepted = Verdict::Accepted(Box::default());
        let status = status_of(&named(nodes), &accepted);
        assert_eq!((status.nodes, status.applied, status.failing), (24, 2, 21));
        assert_eq!(status.failing_nodes.len(), 10);
        assert_eq!(status.failing_nodes[0].node, "node-03");
        assert_eq!(status.failing_nodes[0].reason, "many routes fail on this node");
        assert_eq!(status.failing_nodes[1].reason, "no address");
        assert_eq!(status.observed_generation, 3);
        assert_eq!((status.conditions[1].reason.as_str()), "Failing");
    }

    #[test]
    fn a_route_is_applied_when_every_node_has_it() {
        let accepted = Verdict::Accepted(Box::default());
        let reason = |nodes: Vec<RedirectNodeSpec>| {
            let status = status_of(&named(nodes), &accepted);
            (status.applied, status.conditions[1].reason.clone())
        };
        assert_eq!(reason(vec![node(7, &[], 0), node(6, &[], 0)]), (1, "Pending".into()));
        assert_eq!(reason(vec![node(7, &[], 0), node(8, &[], 0)]), (2, "Applied".into()));
        assert_eq!(reason(vec![]), (0, "Pending".into()));
        let refused = Verdict::Conflict { with: "older".into() };
        let status = status_of(&named(vec![node(7, &[], 0)]), &refused);
        assert_eq!((status.nodes, status.applied), (1, 0));
        assert_eq!(status.conditions[0].message, "`older` is older and has the same source");
    }

    #[test]
    fn a_node_that_comes_or_goes_changes_numbers_only() {
        let accepted = Verdict::Accepted(Box::default());
        let of = |nodes: Vec<RedirectNodeSpec>| status_of(&named(nodes), &accepted);
        let one = of(vec![node(7, &[], 0)]);
        let two = of(vec![node(7, &[], 0), node(8, &[], 0)]);
        assert!(one != two && differ_in_numbers(&one, &two));
        for other in [of(vec![node(7, &[("git", "no address")], 0)]), of(vec![node(6, &[], 0)])] {
            assert!(!differ_in_numbers(&one, &other), "{other:?}");
        }
        let next = RouteStatus { observed_generation: 4, ..one.clone() };
        assert!(!differ_in_numbers(&one, &next));
    }

    #[test]
    fn a_condition_keeps_its_time_while_its_status_stays() {
        let accepted = Verdict::Accepted(Box::default());
        let before = status_of(&named(vec![node(6, &[], 0)]), &accepted);
        let nodes = named(vec![node(7, &[], 0)]);
        let summary = Summary::new(nodes.iter().map(|(name, node)| (name.as_str(), node)));
        let known = Known {
            name: "git",
            generation: 3,
            verdict: &accepted,
            revision: Some(7),
            before: Some(&before),
        };
        let after = status(&summary, &known, "later");
        let times: Vec<_> =
            after.conditions.iter().map(|c| c.last_transition_time.as_str()).collect();
        assert_eq!(times, ["now", "later"]);
    }
}
