//! Which routes are accepted: valid ones, and of those with the same source the oldest.

use std::collections::BTreeMap;

use super::resources::{RedirectRoute, RedirectRouteSpec};
use crate::route::{RawDestination, RawRoute, Route, SourceName};

/// Whether a route is accepted, and why not.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Verdict {
    /// It is.
    Accepted(Box<RawRoute>),
    /// It is not valid.
    Invalid(String),
    /// An older route has its source.
    Conflict {
        /// The name of that.
        with: String,
    },
}

impl From<&RedirectRouteSpec> for RawRoute {
    fn from(spec: &RedirectRouteSpec) -> Self {
        let destination = match (&spec.destination, &spec.addresses) {
            (Some(name), None) => RawDestination::One(name.clone()),
            (None, Some(addresses)) => RawDestination::Many(addresses.clone()),
            // Neither a name nor an address: refused with the text of an empty destination.
            (None, None) => RawDestination::default(),
            (Some(name), Some(addresses)) => {
                RawDestination::Many([std::slice::from_ref(name), addresses.as_slice()].concat())
            }
        };
        Self {
            source: spec.source.clone(),
            destination,
            ports: spec.ports.clone(),
            resolver: spec.resolver.clone(),
            source_ips: spec.source_ips.clone(),
            on_no_backend: spec.on_no_backend.clone(),
            idle_timeout: spec.idle_timeout.clone(),
        }
    }
}

impl From<&RawRoute> for RedirectRouteSpec {
    fn from(route: &RawRoute) -> Self {
        let (destination, addresses) = match &route.destination {
            RawDestination::One(text) => (Some(text.clone()), None),
            RawDestination::Many(texts) => (None, Some(texts.clone())),
        };
        Self {
            source: route.source.clone(),
            destination,
            addresses,
            ports: route.ports.clone(),
            resolver: route.resolver.clone(),
            source_ips: route.source_ips.clone(),
            on_no_backend: route.on_no_backend.clone(),
            idle_timeout: route.idle_timeout.clone(),
        }
    }
}

/// The verdicts on `routes`, by their names.
pub(super) fn judge<'r>(
    routes: impl IntoIterator<Item = &'r RedirectRoute>,
) -> BTreeMap<String, Verdict> {
    let mut routes: Vec<_> = routes.into_iter().collect();
    routes.sort_by_key(|route| {
        let created = route.metadata.creation_timestamp.as_ref().map(|time| time.0);
        (created, route.metadata.name.clone())
    });
    let mut owners: BTreeMap<SourceName, String> = BTreeMap::new();
    let mut verdicts = BTreeMap::new();
    for route in routes {
        let name = route.metadata.name.clone().unwrap_or_default();
        let verdict = judge_one(&route.spec, &owners);
        if let Ok(checked) = &verdict {
            owners.insert(checked.source.clone(), name.clone());
        }
        let verdict = verdict.map_or_else(
            |refused| refused,
            |route| Verdict::Accepted(Box::new(RawRoute::from(&route))),
        );
        verdicts.insert(name, verdict);
    }
    verdicts
}

fn judge_one(
    spec: &RedirectRouteSpec,
    owners: &BTreeMap<SourceName, String>,
) -> Result<Route, Verdict> {
    // An API server before 1.25 ignores the rule that says this.
    if spec.destination.is_some() == spec.addresses.is_some() {
        let message = "write either `destination`, a DNS name, or `addresses`";
        return Err(Verdict::Invalid(message.into()));
    }
    let route = Route::try_from(RawRoute::from(spec))
        .map_err(|problems| Verdict::Invalid(problems.one_line()))?;
    match owners.get(&route.source) {
        Some(with) => Err(Verdict::Conflict { with: with.clone() }),
        None => Ok(route),
    }
}

/// The name of the RedirectRoute of a source: names of objects have no `*`, `_` or capitals.
pub fn object_name(source: &SourceName) -> String {
    let text = source.to_string().to_ascii_lowercase().replace('_', "-");
    let (text, prefix) = match text.strip_prefix("**.") {
        Some(zone) => (zone.to_owned(), "all-below."),
        None => match text.strip_prefix("*.") {
            Some(zone) => (zone.to_owned(), "any."),
            None => (text, ""),
        },
    };
    format!("{prefix}{text}")
}

#[cfg(test)]
mod tests {
    use kube::ResourceExt as _;
    use serde_json::json;

    use super::*;

    fn route(name: &str, created: &str, spec: serde_json::Value) -> RedirectRoute {
        serde_json::from_value(json!({
            "apiVersion": "redirector.dev/v1alpha1",
            "kind": "RedirectRoute",
            "metadata": {"name": name, "creationTimestamp": created},
            "spec": spec,
        }))
        .expect("a route")
    }

    #[test]
    fn the_oldest_route_of_a_source_wins() {
        let spec = json!({"source": "A.internal", "destination": "lb.example"});
        let routes = [
            route("younger", "2026-02-01T00:00:00Z", spec.clone()),
            route("older", "2026-01-01T00:00:00Z", spec.clone()),
            route(
                "b-same-age",
                "2026-01-01T00:00:00Z",
                json!({
                    "source": "a.internal", "destination": "other.example"
                }),
            ),
            route(
                "*",
                "2025-01-01T00:00:00Z",
                json!({
                    "source": "*.internal", "addresses": ["203.0.113.7"]
                }),
            ),
        ];
        let verdicts = judge(&routes);
        assert!(matches!(&verdicts["b-same-age"], Verdict::Accepted(_)));
        let conflict = Verdict::Conflict { with: "b-same-age".into() };
        assert_eq!((&verdicts["older"], &verdicts["younger"]), (&conflict, &conflict));
        assert!(matches!(&verdicts["*"], Verdict::Accepted(_)));
        assert_eq!(routes[0].name_any(), "younger");
    }

    #[test]
    fn an_invalid_route_keeps_no_source() {
        let routes = [
            route("a", "2026-01-01T00:00:00Z", json!({"source": "x.internal"})),
            route(
                "b",
                "2026-01-02T00:00:00Z",
                json!({
                    "source": "x.internal", "destination": "lb.example", "ports": ["0"]
                }),
            ),
            route(
                "c",
                "2026-01-03T00:00:00Z",
                json!({
                    "source": "x.internal", "destination": "lb.example"
                }),
            ),
        ];
        let verdicts = judge(&routes);
        let invalid = |name: &str| match &verdicts[name] {
            Verdict::Invalid(why) => why.clone(),
            other => panic!("{other:?}"),
        };
        assert_eq!(invalid("a"), "write either `destination`, a DNS name, or `addresses`");
        assert!(invalid("b").contains("ports"), "{}", invalid("b"));
        assert!(matches!(&verdicts["c"], Verdict::Accepted(_)));
    }

    #[test]
    fn a_route_survives_the_way_into_an_object_and_back() {
        for destination in [
            RawDestination::One("lb.example".into()),
            RawDestination::Many(vec!["203.0.113.7".into(), "203.0.113.8".into()]),
        ] {
            let raw = RawRoute {
                source: "**.internal".into(),
                destination,
                ports: Some(vec!["443".into(), "80:8080".into()]),
                resolver: Some("10.0.0.2:53".into()),
                source_ips: Some(vec!["198.51.100.1".into()]),
                on_no_backend: Some("pass".into()),
                idle_timeout: Some("350s".into()),
            };
            assert_eq!(RawRoute::from(&RedirectRouteSpec::from(&raw)), raw);
        }
    }

    #[test]
    fn names_of_objects_differ_for_wildcards() {
        let name = |source: &str| object_name(&source.parse().expect("a source"));
        assert_eq!(name("Git.internal"), "git.internal");
        assert_eq!(name("*.internal"), "any.internal");
        assert_eq!(name("**.internal"), "all-below.internal");
    }
}
