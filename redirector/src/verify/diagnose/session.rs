//! What fails after the connect: TLS and HTTP.

use super::Facts;
use crate::verify::{
    probe::{HttpSeen, Io, TlsFailure, TlsSeen},
    report::Finding,
};

pub(super) fn of_tls(seen: &TlsSeen, facts: &Facts<'_>) -> (String, Option<Finding>) {
    match seen {
        TlsSeen::Done { version, certificate } => {
            let whose = certificate.as_ref().map(|seen| {
                format!(
                    ", certificate of {} by {}, until {}",
                    seen.subject, seen.issuer, seen.not_after
                )
            });
            (format!("{version}{}", whose.unwrap_or_default()), None)
        }
        TlsSeen::Failed { why, words, certificate } => {
            let whose = certificate.as_ref().map_or_else(
                || "the certificate".to_owned(),
                |seen| format!("the certificate of {}", seen.subject),
            );
            let names = certificate
                .as_ref()
                .map(|seen| seen.names.join(", "))
                .filter(|names| !names.is_empty());
            let names = names.unwrap_or_else(|| "no name".into());
            let issuer = certificate.as_ref().map_or("its issuer", |seen| seen.issuer.as_str());
            let until =
                certificate.as_ref().map_or("an unknown time", |seen| seen.not_after.as_str());
            (words.clone(), Some(of_failed_tls(why, words, facts, [&whose, &names, issuer, until])))
        }
    }
}

fn of_failed_tls(
    why: &TlsFailure,
    words: &str,
    facts: &Facts<'_>,
    [whose, names, issuer, until]: [&str; 4],
) -> Finding {
    let name = facts.name;
    match why {
        TlsFailure::WrongName => Finding::new(
            "wrong_name",
            format!("{whose} is for {names}, not for {name}"),
            "a load balancer that ends TLS needs a certificate for the internal name, too; one \
                that passes TLS through shows the server's own",
        ),
        TlsFailure::UnknownIssuer => Finding::new(
            "unknown_issuer",
            format!("{whose} is by {issuer}, which is not trusted here"),
            "give that authority to the job's image (and to the platform's \
                tls.external.certificates); try it with --ca FILE",
        ),
        TlsFailure::Expired => Finding::new(
            "certificate_expired",
            format!("{whose} has expired: it was good until {until}"),
            "ask its owner to renew it",
        ),
        TlsFailure::NotYetValid => Finding::new(
            "certificate_not_yet_valid",
            format!("{whose} is not valid yet"),
            "is this node's clock right?",
        ),
        TlsFailure::BadCertificate => Finding::new(
            "bad_certificate",
            format!("{whose} is not good: {words}"),
            "show it to its owner",
        ),
        TlsFailure::Alert(alert) => Finding::new(
            "tls_refused",
            format!("the server refused the handshake for {name} with the alert {alert}"),
            "does the load balancer have a certificate, or a rule, for the internal name?",
        ),
        TlsFailure::ClientCertificate => client_certificate(),
        TlsFailure::NotTls => Finding::new(
            "not_tls",
            format!(
                "port {} of {} does not speak TLS",
                facts.destination_port(),
                facts.before_name()
            ),
            "is it the right port? `--plain` verifies HTTP without TLS, `--until connect` the \
                connection alone",
        ),
        TlsFailure::Incompatible => Finding::new(
            "tls_incompatible",
            format!("no common version or cipher of TLS: {words}"),
            "this client speaks TLS 1.2 and 1.3",
        ),
        TlsFailure::NoRoots => Finding::new(
            "no_roots",
            "no bundle of certificate authorities was found in this place",
            "give one with --ca FILE",
        ),
        TlsFailure::Io(Io::Closed) => closed(facts, "TLS began"),
        TlsFailure::Io(Io::TimedOut) => silent(facts, "the TLS handshake"),
        TlsFailure::Io(_) | TlsFailure::Other => Finding::new(
            "tls_failed",
            format!("TLS with {} failed: {words}", facts.tried()),
            "look at the load balancer's log",
        ),
    }
}

fn client_certificate() -> Finding {
    Finding::new(
        "client_certificate",
        "the server wants a certificate of the client",
        "the path works: give the job its certificate and key",
    )
}

fn closed(facts: &Facts<'_>, before: &str) -> Finding {
    let cause = format!(
        "{} took the connection and closed it before {before}: it rejects this source, or has no \
            healthy server behind it; {}",
        facts.tried(),
        facts.source.words()
    );
    Finding::new(
        "closed_early",
        cause,
        "ask the load balancer's owner whether that address is on the allowlist and its servers \
            are up",
    )
}

fn silent(facts: &Facts<'_>, what: &str) -> Finding {
    let cause = format!(
        "{} took the connection and did not answer {what}: its servers are silent, or large \
            packets are lost on the way (MTU)",
        facts.tried()
    );
    Finding::new(
        "silent_after_connect",
        cause,
        "ask the load balancer's owner; compare the MTU of the executor's network with the path's",
    )
}

pub(super) fn of_http(seen: &HttpSeen, facts: &Facts<'_>) -> (String, Option<Finding>) {
    match seen {
        HttpSeen::Status { code, reason } => {
            (format!("{code} {reason}").trim().to_owned(), of_status(*code))
        }
        HttpSeen::NotHttp { begins } => {
            let cause = format!("what answers is not HTTP: it begins with `{begins}`");
            (
                cause.clone(),
                Some(Finding::new(
                    "not_http",
                    cause,
                    "the connection itself works: verify it with `--until tls` or `--until \
                        connect`",
                )),
            )
        }
        HttpSeen::Failed { why, words } => {
            let finding = match why {
                TlsFailure::ClientCertificate => client_certificate(),
                TlsFailure::Io(Io::Closed) => closed(facts, "an answer came"),
                TlsFailure::Io(Io::TimedOut) => silent(facts, "the request"),
                _ => Finding::new(
                    "http_failed",
                    format!("no HTTP answer: {words}"),
                    "look at the server's log",
                ),
            };
            (words.clone(), Some(finding))
        }
    }
}

fn of_status(code: u16) -> Option<Finding> {
    match code {
        401 => Some(Finding::note(
            "credentials_wanted",
            "the path works, and the registry wants credentials",
            "create the executor's secret with them",
        )),
        403 => Some(Finding::note(
            "forbidden",
            "the path works, and the server forbids `/`: to everybody without credentials, or to \
                this source",
            "create the executor's secret; if that does not help, ask for the allowlist of the \
                server itself",
        )),
        407 => Some(Finding::new(
            "proxy_answered",
            "a proxy answered instead of the registry",
            "is there a transparent proxy on the way?",
        )),
        421 => Some(Finding::new(
            "misdirected",
            "the server has the connection and does not serve this name",
            "the load balancer needs a rule for the internal name",
        )),
        502..=504 => Some(Finding::new(
            "server_down",
            format!("the load balancer answers {code}: it has no healthy server behind it"),
            "the path to it works; tell the registry's owner",
        )),
        500..=599 => Some(Finding::new(
            "server_error",
            format!("the server answers {code}"),
            "the path works; tell the registry's owner",
        )),
        _ => None,
    }
}
