//! What differs between two sets of routes, for a person (`route import --dry-run`) and for a
//! program (`-o json`).

use std::{collections::BTreeMap, fmt};

use serde::Serialize;

use super::{definition::Route, raw::RawRoute};

/// The difference between two sets of routes, each part in the order of the sources.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct RouteDiff {
    /// Routes that only the new set has.
    pub added: Vec<RawRoute>,
    /// Routes that both have, but not alike.
    pub changed: Vec<RouteChange>,
    /// Routes that only the old set has.
    pub removed: Vec<RawRoute>,
    /// How many routes are alike.
    pub unchanged: usize,
}

/// One route before and after.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RouteChange {
    /// What it was.
    pub old: RawRoute,
    /// What it becomes.
    pub new: RawRoute,
}

impl RouteDiff {
    /// Compares two sets by their sources.
    pub fn between<'r>(
        old: impl IntoIterator<Item = &'r Route>,
        new: impl IntoIterator<Item = &'r Route>,
    ) -> Self {
        let mut old: BTreeMap<_, _> = old.into_iter().map(|route| (&route.source, route)).collect();
        let new: BTreeMap<_, _> = new.into_iter().map(|route| (&route.source, route)).collect();
        let mut diff = Self::default();
        for (source, route) in new {
            match old.remove(source) {
                None => diff.added.push(route.into()),
                Some(same) if same == route => diff.unchanged += 1,
                Some(other) => {
                    diff.changed.push(RouteChange { old: other.into(), new: route.into() })
                }
            }
        }
        diff.removed = old.into_values().map(RawRoute::from).collect();
        diff
    }

    /// Whether the sets are alike.
    pub fn is_empty(&self) -> bool {
        self.added.is_empty() && self.changed.is_empty() && self.removed.is_empty()
    }
}

impl fmt::Display for RouteDiff {
    /// One line for each route (`+` added, `~` changed, `-` removed), below it its keys, and a
    /// summary.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for route in &self.added {
            writeln!(f, "+ {}", route.source)?;
            for (key, value) in keys(route) {
                if let Some(value) = value {
                    writeln!(f, "    {key}: {value}")?;
                }
            }
        }
        for RouteChange { old, new } in &self.changed {
            writeln!(f, "~ {}", new.source)?;
            for ((key, old), (_, new)) in keys(old).into_iter().zip(keys(new)) {
                if old != new {
                    let shown = |value: Option<String>| value.unwrap_or_else(|| "(default)".into());
                    writeln!(f, "    {key}: {} -> {}", shown(old), shown(new))?;
                }
            }
        }
        for route in &self.removed {
            writeln!(f, "- {}", route.source)?;
        }
        let Self { added, changed, removed, unchanged } = self;
        write!(
            f,
            "{} added, {} changed, {} removed, {unchanged} unchanged",
            added.len(),
            changed.len(),
            removed.len()
        )
    }
}

/// A route's keys but for the source, with their values as text; `None` where the default stands.
fn keys(route: &RawRoute) -> [(&'static str, Option<String>); 6] {
    let joined = |texts: &Option<Vec<String>>| texts.as_ref().map(|texts| texts.join(", "));
    [
        ("destination", Some(route.destination.to_string())),
        ("ports", joined(&route.ports)),
        ("resolver", route.resolver.clone()),
        ("source_ips", joined(&route.source_ips)),
        ("on_no_backend", route.on_no_backend.clone()),
        ("idle_timeout", route.idle_timeout.clone()),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::route::import;

    #[test]
    fn the_diff_lists_added_changed_and_removed_routes() {
        let old = import::parse(
            "routes: [{source: a, destination: lb}, \
            {source: b, destination: lb}, {source: c, destination: lb}]",
        )
        .expect("routes");
        let new = import::parse(
            "routes: [{source: b, destination: 203.0.113.7, ports: ['443', '80:8080']}, \
                {source: c, destination: lb}, {source: d, destination: lb, resolver: 10.0.0.2}]",
        )
        .expect("routes");
        let diff = RouteDiff::between(&old, &new);
        assert!(!diff.is_empty());
        let expected = "+ d\n    destination: lb\n    resolver: 10.0.0.2:53\n\
                        ~ b\n    destination: lb -> 203.0.113.7\n\x20   ports: (default) -> \
                        443, 80:8080\n\
                        - a\n1 added, 1 changed, 1 removed, 1 unchanged";
        assert_eq!(diff.to_string(), expected);
        assert!(RouteDiff::between(&new, &new).is_empty());
    }
}
