//! From what the probe saw to the steps and the probable cause. Pure.

use super::{
    connect::diagnose_connect, dns::diagnose_dns, facts::Facts, http::diagnose_http,
    ssh::diagnose_ssh, tls::diagnose_tls,
};
use crate::verify::{
    causes::proxy,
    probe::ProbeResult,
    report::{Finding, Step, StepOutcome},
};

/// The steps that were done, with the causes of what failed.
pub(in crate::verify) fn diagnose(
    seen: &ProbeResult,
    facts: &Facts<'_>,
) -> (Vec<Step>, Vec<Finding>) {
    let (mut steps, mut findings) = (Vec::new(), Vec::new());
    let mut step = |name: &str, (detail, finding): (String, Option<Finding>)| {
        let outcome = if finding.as_ref().is_some_and(|finding| finding.prevents) {
            StepOutcome::Failed
        } else {
            StepOutcome::Ok
        };
        steps.push(Step { step: name.to_owned(), outcome, detail });
        findings.extend(finding);
    };
    if let Some(dns) = &seen.dns {
        step("dns", diagnose_dns(dns, facts));
    }
    if let Some(connect) = &seen.connect {
        step("connect", diagnose_connect(connect, facts));
    }
    if let Some(tls) = &seen.tls {
        step("tls", diagnose_tls(tls, facts));
    }
    if let Some(ssh) = &seen.ssh {
        step("ssh", diagnose_ssh(ssh, facts));
    }
    if let Some(http) = &seen.http {
        step("http", diagnose_http(http, facts));
    }
    if let Some((variable, value)) = facts.process.and_then(|process| process.proxy_for(facts.name))
    {
        findings.push(proxy(variable, value, facts.name));
    }
    (steps, findings)
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
