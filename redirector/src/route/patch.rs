//! A partial change of a route: what `redirector route set` sends.

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::{
    definition::Route,
    problems::RouteProblems,
    raw::{RawDestination, RawRoute},
};

/// What changes of a route. In JSON an absent key keeps what is there and `null` clears it. Unknown
/// keys are refused.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RoutePatch {
    /// A DNS name, an address, or a list of addresses. It can't be cleared.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub destination: Option<RawDestination>,
    /// Cleared: all ports, unchanged.
    #[serde(skip_serializing_if = "Field::is_keep")]
    pub ports: Field<Vec<String>>,
    /// Cleared: the configured upstreams.
    #[serde(skip_serializing_if = "Field::is_keep")]
    pub resolver: Field<String>,
    /// Cleared: the kernel's choice.
    #[serde(skip_serializing_if = "Field::is_keep")]
    pub source_ips: Field<Vec<String>>,
    /// Cleared: `refuse`.
    #[serde(skip_serializing_if = "Field::is_keep")]
    pub on_no_backend: Field<String>,
    /// Cleared: no keepalive is set.
    #[serde(skip_serializing_if = "Field::is_keep")]
    pub idle_timeout: Field<String>,
}

/// The change of one key.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Field<T> {
    /// It stays as it is.
    #[default]
    Keep,
    /// It gets its default.
    Clear,
    /// It gets this value.
    Set(T),
}

impl<T> Field<T> {
    /// Whether the key stays as it is.
    pub fn is_keep(&self) -> bool {
        matches!(self, Self::Keep)
    }

    fn apply(&self, value: &mut Option<T>)
    where
        T: Clone,
    {
        match self {
            Self::Keep => {}
            Self::Clear => *value = None,
            Self::Set(new) => *value = Some(new.clone()),
        }
    }
}

impl<T: Serialize> Serialize for Field<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Keep | Self::Clear => serializer.serialize_none(),
            Self::Set(value) => serializer.serialize_some(value),
        }
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Field<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Option::<T>::deserialize(deserializer)?.map_or(Self::Clear, Self::Set))
    }
}

impl RoutePatch {
    /// Whether it changes nothing.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

impl Route {
    /// The route with the patch applied, or every problem that it then has.
    pub fn patched(&self, patch: &RoutePatch) -> Result<Route, RouteProblems> {
        let mut raw = RawRoute::from(self);
        if let Some(destination) = &patch.destination {
            raw.destination = destination.clone();
        }
        patch.ports.apply(&mut raw.ports);
        patch.resolver.apply(&mut raw.resolver);
        patch.source_ips.apply(&mut raw.source_ips);
        patch.on_no_backend.apply(&mut raw.on_no_backend);
        patch.idle_timeout.apply(&mut raw.idle_timeout);
        raw.try_into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::route::OnNoBackend;

    fn route() -> Route {
        let raw = RawRoute {
            source: "a.internal".into(),
            destination: RawDestination::One("lb.public".into()),
            ports: Some(vec!["443".into()]),
            resolver: Some("10.0.0.2".into()),
            ..RawRoute::default()
        };
        raw.try_into().expect("a route")
    }

    fn patch(json: &str) -> RoutePatch {
        serde_json::from_str(json).expect("a patch")
    }

    #[test]
    fn an_absent_key_stays_null_clears_and_a_value_replaces() {
        let patched = route()
            .patched(&patch(
                r#"{"ports": null, "on_no_backend": "pass", "destination": ["203.0.113.7"]}"#,
            ))
            .expect("a route");
        assert!(patched.ports.is_all());
        assert_eq!(patched.resolver, route().resolver);
        assert_eq!(patched.on_no_backend, OnNoBackend::Pass);
        assert_eq!(patched.destination.to_string(), "203.0.113.7");
        assert!(patch("{}").is_empty());
        assert_eq!(route().patched(&patch("{}")), Ok(route()));
    }

    #[test]
    fn a_patch_round_trips() {
        for json in [
            r#"{"ports":null,"resolver":"10.0.0.3"}"#,
            "{}",
            r#"{"destination":"lb2.public","idle_timeout":null}"#,
        ] {
            assert_eq!(serde_json::to_string(&patch(json)).expect("json"), json);
        }
        assert!(serde_json::from_str::<RoutePatch>(r#"{"source": "b"}"#).is_err());
    }

    #[test]
    fn a_patch_that_makes_no_valid_route_names_every_problem() {
        let problems = route()
            .patched(&patch(r#"{"ports": ["0"], "resolver": "x"}"#))
            .expect_err("two problems")
            .to_string();
        assert_eq!(problems.lines().count(), 2, "{problems}");
        assert!(
            problems.starts_with(
                "route `a.internal`: key `ports[0]`: `0`: port 0 can't be connected to"
            ),
            "{problems}"
        );
    }
}
