//! Gathers what is explained.

use super::{facts::ExplainFacts, target::ExplainTarget};
use crate::{
    control::api::{RouteView, VERSION},
    verify::report::{Candidate, Explained, Finding, PathStage},
};

/// What was found so far.
#[derive(Default)]
pub(super) struct Explainer {
    pub(super) path: Vec<PathStage>,
    pub(super) candidates: Vec<Candidate>,
    pub(super) findings: Vec<Finding>,
    pub(super) route: Option<RouteView>,
    /// The outcome unless something prevents it.
    pub(super) verdict: Option<String>,
}

impl Explainer {
    pub(super) fn stage(&mut self, stage: &str, detail: impl Into<String>) {
        self.path.push(PathStage { stage: stage.to_owned(), detail: detail.into() });
    }

    pub(super) fn into_report(
        mut self,
        target: &ExplainTarget,
        known: &ExplainFacts<'_>,
    ) -> Explained {
        self.findings.sort_by_key(|finding| !finding.prevents);
        let prevented = self.findings.first().filter(|finding| finding.prevents);
        let verdict = match (prevented, self.verdict, &self.route) {
            (Some(finding), _, Some(_)) => format!("would not work: {}", finding.cause),
            (_, Some(verdict), _) => verdict,
            (_, None, _) => "unknown".into(),
        };
        Explained {
            version: VERSION,
            target: target.to_string(),
            verdict,
            redirected: prevented.is_none() && self.route.is_some(),
            path: self.path,
            candidates: self.candidates,
            process: known.process.cloned(),
            vip: self.route.as_ref().and_then(|route| route.vip.ipv4),
            backends: self
                .route
                .iter()
                .flat_map(|route| route.backends.iter().map(|backend| backend.address))
                .collect(),
            findings: self.findings,
        }
    }
}
