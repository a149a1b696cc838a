//! What a client does next with an answer: it follows a redirect, and fetches a token where the
//! server sends it.

use super::{
    cause_code::CauseCode,
    probe::{Reference, Referrer},
    report::Finding,
    target::{Target, route_for},
};
use crate::{control::api::RouteView, printable::printable};

/// The most references that are followed, one after another.
pub(super) const MAX_FOLLOWED: usize = 5;

/// Where a reference leads: to another target that a route serves, or to a host that is no source.
pub(super) enum Lead {
    Route(Target),
    Unmapped(Finding),
}

/// Where the answer of `from` leads.
pub(super) fn lead(from: &Target, reference: &Reference, routes: &[RouteView]) -> Lead {
    let url = printable(&reference.url);
    let what = match reference.by {
        Referrer::Location => "redirects to",
        Referrer::Realm => "sends clients for a token to",
    };
    let why = match from.join(&reference.url) {
        Ok(target) if route_for(&target.name, routes).is_some() => return Lead::Route(target),
        Ok(target) => format!("{} is no source of a route", target.name),
        Err(error) => printable(&error).into_owned(),
    };
    let cause = format!("{} {what} {url}: {why}", from.name);
    let next = "executors reach it as any other host; if it is internal, add a route for it: \
        `redirector route add NAME DESTINATION`";
    Lead::Unmapped(Finding::note(CauseCode::UnmappedHost, cause, next))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unmapped(reference: &str) -> String {
        let from: Target = "a.internal/v2/".parse().expect("a target");
        let reference = Reference { by: Referrer::Realm, url: reference.into() };
        match lead(&from, &reference, &[]) {
            Lead::Unmapped(finding) => {
                assert_eq!((finding.code, finding.prevents), (CauseCode::UnmappedHost, false));
                finding.cause
            }
            Lead::Route(target) => panic!("{target:?}"),
        }
    }

    #[test]
    fn hosts_without_a_route_are_named() {
        let cause = unmapped("https://auth.company.net/token");
        assert!(cause.contains("for a token to https://auth.company.net/token"), "{cause}");
        assert!(cause.contains("auth.company.net is no source"), "{cause}");
        assert!(unmapped("https://10.0.0.1/").contains("is an address"));
        assert!(unmapped("ftp://cdn.net/\u{1b}[31m").contains("`ftp://` is not followed"));
        assert!(!unmapped("https://cdn.net/\u{1b}[31m").contains('\u{1b}'));
    }
}
