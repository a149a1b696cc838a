//! Causes that a TLS handshake and an HTTP request share.

use super::facts::Facts;
use crate::verify::{cause_code::CauseCode, report::Finding};

pub(super) fn client_certificate() -> Finding {
    Finding::new(
        CauseCode::ClientCertificate,
        "the server requires a client certificate",
        "the path works: give the job its certificate and key",
    )
}

pub(super) fn closed(facts: &Facts<'_>, before: &str) -> Finding {
    let cause = format!(
        "{} accepted the connection and closed it before {before}: it rejects this source, or has \
            no healthy server behind it; {}",
        facts.tried(),
        facts.source.label()
    );
    Finding::new(
        CauseCode::ClosedEarly,
        cause,
        "ask the load balancer's owner whether that address is on the allowlist and its servers \
            are up",
    )
}

pub(super) fn silent(facts: &Facts<'_>, what: &str) -> Finding {
    let cause = format!(
        "{} accepted the connection and did not answer {what}: its servers are silent, or large \
            packets are lost on the way (MTU)",
        facts.tried()
    );
    Finding::new(
        CauseCode::SilentAfterConnect,
        cause,
        "ask the load balancer's owner; compare the MTU of the executor's network with the path's",
    )
}
