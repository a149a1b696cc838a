//! Why the TLS handshake failed.

use super::{
    facts::Facts,
    session::{client_certificate, closed, silent},
};
use crate::{
    printable::printable,
    verify::{
        cause_code::CauseCode,
        probe::{IoFailure, TlsFailure, TlsResult},
        report::Finding,
    },
};

pub(super) fn diagnose_tls(seen: &TlsResult, facts: &Facts<'_>) -> (String, Option<Finding>) {
    match seen {
        TlsResult::Done { version, certificate } => {
            let whose = certificate.as_ref().map(|seen| {
                format!(
                    ", certificate of {} by {}, until {}",
                    seen.subject, seen.issuer, seen.not_after
                )
            });
            (format!("{version}{}", whose.unwrap_or_default()), None)
        }
        TlsResult::Failed { why, message, certificate } => {
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
            (
                message.clone(),
                Some(tls_failure(why, message, facts, [&whose, &names, issuer, until])),
            )
        }
    }
}

fn not_tls(begins: &str, facts: &Facts<'_>) -> Finding {
    let begins: String = printable(begins).chars().take(60).collect();
    let cause = format!(
        "port {} of {} does not speak TLS: the answer begins with `{begins}`",
        facts.destination_port(),
        facts.before_name()
    );
    let next = if begins.starts_with("SSH-") {
        format!("it speaks SSH: verify it as ssh://{}:{}", facts.name, facts.port)
    } else {
        "is it the right port? `--plain` verifies HTTP without TLS, `--until connect` the \
            connection alone"
            .to_owned()
    };
    Finding::new(CauseCode::NotTls, cause, next)
}

fn tls_failure(
    why: &TlsFailure,
    message: &str,
    facts: &Facts<'_>,
    [whose, names, issuer, until]: [&str; 4],
) -> Finding {
    let name = facts.name;
    match why {
        TlsFailure::WrongName => Finding::new(
            CauseCode::WrongName,
            format!("{whose} is for {names}, not for {name}"),
            "a load balancer that terminates TLS needs a certificate for the internal name; one \
                that passes TLS through shows the server's certificate",
        ),
        TlsFailure::UnknownIssuer => Finding::new(
            CauseCode::UnknownIssuer,
            format!("{whose} is issued by {issuer}, which is not trusted here"),
            "give that authority to the job's image (and to the platform's \
                tls.external.certificates); try it with --ca FILE",
        ),
        TlsFailure::Expired => Finding::new(
            CauseCode::CertificateExpired,
            format!("{whose} has expired: it was valid until {until}"),
            "ask its owner to renew it",
        ),
        TlsFailure::NotYetValid => Finding::new(
            CauseCode::CertificateNotYetValid,
            format!("{whose} is not valid yet"),
            "is this node's clock right?",
        ),
        TlsFailure::BadCertificate => Finding::new(
            CauseCode::BadCertificate,
            format!("{whose} is invalid: {message}"),
            "report this to its owner",
        ),
        TlsFailure::Alert(alert) => Finding::new(
            CauseCode::TlsRefused,
            format!("the server refused the handshake for {name} with the alert {alert}"),
            "does the load balancer have a certificate, or a rule, for the internal name?",
        ),
        TlsFailure::ClientCertificate => client_certificate(),
        TlsFailure::NotTls { begins } => not_tls(begins, facts),
        TlsFailure::Incompatible => Finding::new(
            CauseCode::TlsIncompatible,
            format!("no common version or cipher of TLS: {message}"),
            "this client speaks TLS 1.2 and 1.3",
        ),
        TlsFailure::NoRoots => Finding::new(
            CauseCode::NoRoots,
            "no bundle of certificate authorities was found here",
            "give one with --ca FILE",
        ),
        TlsFailure::Io(IoFailure::Closed) => closed(facts, "TLS began"),
        TlsFailure::Io(IoFailure::TimedOut) => silent(facts, "the TLS handshake"),
        TlsFailure::Io(_) | TlsFailure::Other => Finding::new(
            CauseCode::TlsFailed,
            format!("TLS with {} failed: {message}", facts.tried()),
            "check the load balancer's log",
        ),
    }
}
