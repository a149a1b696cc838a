//! A name with a port, and the route that serves it.

use std::str::FromStr;

use crate::{control::api::RouteView, route::SourceName};

/// A name and a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// The name, in lower case and without the final dot.
    pub name: String,
    /// The port; 443 by default.
    pub port: u16,
    /// Whether the name was written with a final dot: resolvers then use no search list.
    pub is_absolute: bool,
}

impl FromStr for Target {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, port) = match text.split_once(':') {
            Some((name, port)) => (
                name,
                port.parse()
                    .ok()
                    .filter(|&port| port > 0)
                    .ok_or(format!("`{port}` is not a port (1 to 65535)"))?,
            ),
            None => (text, 443),
        };
        let source: SourceName =
            name.parse().map_err(|error: crate::route::SourceNameError| error.to_string())?;
        if source.is_wildcard() {
            return Err(format!(
                "`{source}` stands for many names: give one that it matches, such as `registry.{}`",
                source.name()
            ));
        }
        Ok(Self { name: source.name().to_owned(), port, is_absolute: name.ends_with('.') })
    }
}

/// The route that serves `name`: the exact one, else the longest wildcard, as DNS answers.
pub fn route_for<'r>(name: &str, routes: &'r [RouteView]) -> Option<&'r RouteView> {
    let precedence = |route: &'r RouteView| {
        let source = route.source.as_ref().filter(|source| source.matches(name))?;
        Some((source.precedence(), route))
    };
    let matching = routes.iter().filter_map(precedence);
    matching.max_by_key(|(precedence, _)| *precedence).map(|(_, route)| route)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_is_a_name_and_port_443_by_default() {
        let target = |port, is_absolute| Target { name: "git.internal".into(), port, is_absolute };
        assert_eq!("Git.Internal.".parse(), Ok(target(443, true)));
        assert_eq!("git.internal:22".parse(), Ok(target(22, false)));
        for wrong in ["git.internal:0", "git.internal:x", "*.internal", "10.0.0.1", ""] {
            assert!(wrong.parse::<Target>().is_err(), "{wrong}");
        }
    }
}
