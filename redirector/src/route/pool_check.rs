//! A route's own addresses must lie outside the pool: a VIP leads to a backend and is never one.

use std::net::IpAddr;

use super::{definition::Route, problems::RouteProblems};
use crate::{pool::Pool, spanned::Diagnostic};

/// Refuses a route whose own addresses are in the pool: a VIP leads to a backend, it is none.
pub fn check_outside_pool(route: &Route, pool: &Pool) -> Result<(), RouteProblems> {
    let mut problems = Vec::new();
    let mut check = |key: String, ip: IpAddr| {
        if pool.contains(ip) {
            problems.push(Diagnostic::unlocated(
                key,
                format_args!(
                    "`{ip}` is in the pool of virtual \
                    addresses: write a real one, or move `pool`"
                ),
            ));
        }
    };
    for (n, ip) in route.destination.addresses().unwrap_or_default().iter().enumerate() {
        check(format!("destination[{n}]"), *ip);
    }
    for (n, ip) in route.source_ips.iter().enumerate() {
        check(format!("source_ips[{n}]"), *ip);
    }
    if let Some(resolver) = route.resolver {
        check("resolver".into(), resolver.ip());
    }
    if problems.is_empty() {
        Ok(())
    } else {
        Err(RouteProblems { route: route.source.to_string(), problems })
    }
}
