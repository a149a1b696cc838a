//! The row of `redirector check` about wildcards and this host's search list.

use crate::{config::Config, datapath::Check as Checked, net::SearchList};

/// Wildcards that also get names that are meant to be outside of their zones.
pub(super) fn check(config: &Config, list: &SearchList) -> Checked {
    const NAME: &str = "search_list";
    let caught = config.routes.iter().filter_map(|route| {
        list.suffix_below(&route.source).map(|suffix| format!("{} gets {suffix}", route.source))
    });
    let caught: Vec<_> = caught.collect();
    if caught.is_empty() {
        return Checked::ok(NAME, "no suffix of this host's search list is below a wildcard");
    }
    let found = format!(
        "resolvers append suffixes of /etc/resolv.conf (first, to names with fewer than {} dots), \
            and so lead other names to wildcards: {}",
        list.ndots,
        caught.join("; ")
    );
    Checked::warning(
        NAME,
        found,
        "remove the suffix from the search list, or name the sources instead of the wildcard",
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{datapath::Outcome, route::RawRoute};

    #[test]
    fn wildcards_that_get_other_names_are_listed() {
        let route = |source: &str| {
            let raw = RawRoute {
                source: source.into(),
                destination: crate::route::RawDestination::One("203.0.113.7".into()),
                ..RawRoute::default()
            };
            raw.try_into().expect("a route")
        };
        let routes = ["**.internal.net", "*.other.net", "a.internal.net"].map(route).to_vec();
        let config = Config { routes, ..Config::default() };
        let list = SearchList::parse("search eu.internal.net\noptions ndots:5\n");
        let checked = check(&config, &list);
        assert_eq!(checked.outcome, Outcome::Warning);
        assert!(checked.detail.contains("than 5 dots"), "{}", checked.detail);
        assert!(checked.detail.ends_with(": **.internal.net gets eu.internal.net"));
        assert_eq!(check(&config, &SearchList::default()).outcome, Outcome::Ok);
    }
}
