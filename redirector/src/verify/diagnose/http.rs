//! What an HTTP answer, or its absence, means.

use super::{
    facts::Facts,
    session::{client_certificate, closed, silent},
};
use crate::verify::{
    cause_code::CauseCode,
    probe::{HttpResult, IoFailure, TlsFailure},
    report::Finding,
};

pub(super) fn diagnose_http(seen: &HttpResult, facts: &Facts<'_>) -> (String, Option<Finding>) {
    match seen {
        HttpResult::Status { code, reason, .. } => {
            (format!("{code} {reason}").trim().to_owned(), http_status(*code))
        }
        HttpResult::NotHttp { begins } => {
            let cause = format!("the answer is not HTTP: it begins with `{begins}`");
            (
                cause.clone(),
                Some(Finding::new(
                    CauseCode::NotHttp,
                    cause,
                    "the connection itself works: verify it with `--until tls` or `--until \
                        connect`",
                )),
            )
        }
        HttpResult::Failed { why, message } => {
            let finding = match why {
                TlsFailure::ClientCertificate => client_certificate(),
                TlsFailure::Io(IoFailure::Closed) => closed(facts, "an answer came"),
                TlsFailure::Io(IoFailure::TimedOut) => silent(facts, "the request"),
                _ => Finding::new(
                    CauseCode::HttpFailed,
                    format!("no HTTP answer: {message}"),
                    "look at the server's log",
                ),
            };
            (message.clone(), Some(finding))
        }
    }
}

fn http_status(code: u16) -> Option<Finding> {
    match code {
        401 => Some(Finding::note(
            CauseCode::CredentialsWanted,
            "the path works, and the registry requires credentials",
            "create the executor's secret with them",
        )),
        403 => Some(Finding::note(
            CauseCode::Forbidden,
            "the path works, and the server forbids `/`, for anyone without credentials or for \
                this source",
            "create the executor's secret; if that does not help, ask for the allowlist of the \
                server itself",
        )),
        407 => Some(Finding::new(
            CauseCode::ProxyAnswered,
            "a proxy answered instead of the registry",
            "is there a transparent proxy on the way?",
        )),
        421 => Some(Finding::new(
            CauseCode::Misdirected,
            "the server has the connection and does not serve this name",
            "the load balancer needs a rule for the internal name",
        )),
        502..=504 => Some(Finding::new(
            CauseCode::ServerDown,
            format!("the load balancer answers {code}: it has no healthy server behind it"),
            "the path to it works: report this to the registry's owner",
        )),
        500..=599 => Some(Finding::new(
            CauseCode::ServerError,
            format!("the server answers {code}"),
            "the path works: report this to the registry's owner",
        )),
        _ => None,
    }
}
