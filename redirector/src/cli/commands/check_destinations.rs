//! The destinations of the configuration file's routes: whether they resolve, and to addresses
//! that executors can use.

use std::{collections::BTreeMap, net::IpAddr, time::Duration};

use crate::{
    backend::{self, Freshness, Resolved, Target},
    config::Config,
    control::count,
    datapath::Check as Checked,
    host,
};

/// The most destinations that are looked up.
const MAX_CHECKED: usize = 100;
/// Longest time for all look-ups.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Looks up the destinations of the routes.
pub(super) async fn check(config: &Config) -> Checked {
    const NAME: &str = "destinations";
    let mut targets: BTreeMap<String, Target> = BTreeMap::new();
    for route in &config.routes {
        let resolver = route.resolver.map(|at| format!(" at {at}")).unwrap_or_default();
        let target = Target { destination: route.destination.clone(), resolver: route.resolver };
        targets.entry(format!("{}{resolver}", route.destination)).or_insert(target);
    }
    let all = targets.len();
    let (labels, targets): (Vec<_>, Vec<_>) = targets.into_iter().take(MAX_CHECKED).unzip();
    let dns = &config.dns;
    let lookups =
        backend::look_up(targets, dns.upstreams.clone(), dns.listen.clone(), config.pool.clone());
    let Ok(resolved) = tokio::time::timeout(TIMEOUT, lookups).await else {
        let found = format!("not all of {} resolved within {TIMEOUT:?}", count(all, "destination"));
        return Checked::warning(NAME, found, "check dns.upstreams and the routes' resolvers");
    };
    let has_pool6 = config.pool.ipv6.is_some();
    let problems: Vec<_> = labels
        .iter()
        .zip(&resolved)
        .filter_map(|(label, resolved)| {
            Some(format!("{label} {}", objection(resolved, has_pool6, host::has_route)?))
        })
        .collect();
    if !problems.is_empty() {
        let remedy = "correct the names or their records; set pool.ipv6 for a destination that has \
            IPv6 addresses only";
        return Checked::warning(NAME, problems.join("; "), remedy);
    }
    let checked = match all {
        0 => "the file has no route".to_owned(),
        all if all > MAX_CHECKED => {
            format!("the first {MAX_CHECKED} of {all} have addresses that executors can use")
        }
        all => format!("{}: executors can use their addresses", count(all, "destination")),
    };
    Checked::ok(NAME, checked)
}

/// What is wrong with a destination.
fn objection(
    resolved: &Resolved,
    has_pool6: bool,
    has_route: impl Fn(IpAddr) -> bool,
) -> Option<String> {
    let Some(first) = resolved.addresses.first() else {
        return Some(match &resolved.freshness {
            Freshness::Stale { error } | Freshness::Unresolved { error: Some(error) } => {
                format!("does not resolve: {error}")
            }
            _ => "has no address".to_owned(),
        });
    };
    if resolved.addresses.iter().all(IpAddr::is_ipv6) {
        if !has_pool6 {
            return Some(format!("has IPv6 addresses only ({first}), and there is no pool.ipv6"));
        }
        if !has_route(*first) {
            return Some(format!("has IPv6 addresses only, and this host has no route to {first}"));
        }
    }
    let rejected: Vec<_> = resolved.rejected.iter().map(ToString::to_string).collect();
    (!rejected.is_empty())
        .then(|| format!("has addresses that are not used: {}", rejected.join(", ")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{backend::RejectReason, route::Destination};

    fn resolved(addresses: &[&str]) -> Resolved {
        let addresses: Vec<IpAddr> =
            addresses.iter().map(|text| text.parse().expect("an address")).collect();
        Resolved {
            addresses,
            left_out: vec![],
            rejected: vec![],
            freshness: Freshness::Fresh,
            resolved_at: jiff::Timestamp::UNIX_EPOCH,
            ttl: Duration::from_secs(60),
        }
    }

    #[test]
    fn a_destination_that_no_executor_can_use_is_named() {
        let found = |addresses: &[&str], has_pool6, has_route| {
            objection(&resolved(addresses), has_pool6, |_| has_route)
        };
        assert_eq!(found(&["203.0.113.7", "2001:db8::7"], false, false), None);
        assert_eq!(found(&["2001:db8::7"], true, true), None);
        assert_eq!(
            found(&["2001:db8::7"], false, true).as_deref(),
            Some("has IPv6 addresses only (2001:db8::7), and there is no pool.ipv6")
        );
        assert_eq!(
            found(&["2001:db8::7"], true, false).as_deref(),
            Some("has IPv6 addresses only, and this host has no route to 2001:db8::7")
        );
        assert_eq!(found(&[], false, true).as_deref(), Some("has no address"));
        let loopback = backend::RejectedAddress {
            address: [127, 0, 0, 1].into(),
            reason: RejectReason::Loopback,
        };
        let rejected = Resolved { rejected: vec![loopback], ..resolved(&["203.0.113.7"]) };
        assert_eq!(
            objection(&rejected, false, |_| true).as_deref(),
            Some("has addresses that are not used: 127.0.0.1 (loopback)")
        );
    }

    #[tokio::test]
    async fn an_ipv6_only_destination_needs_an_ipv6_pool() {
        let raw = crate::route::RawRoute {
            source: "a.internal".into(),
            destination: crate::route::RawDestination::One("2001:db8::7".into()),
            ..Default::default()
        };
        let route: crate::route::Route = raw.try_into().expect("a route");
        assert!(matches!(route.destination, Destination::Addresses(_)));
        let config = Config { routes: vec![route], ..Config::default() };
        let checked = check(&config).await;
        assert!(checked.detail.contains("there is no pool.ipv6"), "{}", checked.detail);
    }
}
