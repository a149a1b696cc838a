//! Which hook applies to the process, and which foreign programs share it.

use std::path::Path;

use super::{explainer::Explainer, facts::ExplainFacts};
use crate::verify::{
    cause_code::CauseCode,
    causes::{guest_kernel, not_attached, wrong_cgroup},
    lookups::covering,
    report::Finding,
};

/// Which hook applies to the process, and what else is there.
pub(super) fn trace_hook(out: &mut Explainer, known: &ExplainFacts<'_>) {
    if let Some(guest) = known.process.and_then(guest_kernel) {
        out.findings.push(guest);
    }
    let attachments = known
        .status
        .datapath
        .as_ref()
        .map(|datapath| datapath.attachments.as_slice())
        .unwrap_or_default();
    let live: Vec<_> = attachments.iter().filter(|at| at.live).collect();
    let names = live.iter().map(|at| {
        at.cgroup
            .as_ref()
            .map_or_else(|| format!("cgroup {}", at.cgroup_id), |path| path.display().to_string())
    });
    if live.is_empty() {
        out.stage("hook", "attached to no cgroup");
        out.findings.push(not_attached());
    } else if let Some(process) = known.process {
        let cgroup = process
            .cgroup
            .as_ref()
            .map_or_else(|| "its cgroup".to_owned(), |path| path.display().to_string());
        match process.cgroup.as_deref().and_then(|cgroup| covering(attachments, cgroup)) {
            Some(at) => out.stage(
                "hook",
                format!(
                    "{cgroup} is covered by {}",
                    at.cgroup.as_deref().unwrap_or(Path::new("?")).display()
                ),
            ),
            None => {
                out.stage(
                    "hook",
                    format!(
                        "{cgroup} is covered by none of {}",
                        names.collect::<Vec<_>>().join(", ")
                    ),
                );
                out.findings.push(wrong_cgroup(&cgroup));
            }
        }
    } else {
        out.stage("hook", format!("applies at and below {}", names.collect::<Vec<_>>().join(", ")));
    }
    for other in known.others {
        out.findings.push(Finding::note(
            CauseCode::ForeignProgram,
            format!(
                "a foreign program is on the hook {} too: {} (ID {})",
                other.hook,
                other.name.as_deref().unwrap_or("unnamed"),
                other.id
            ),
            "it sees connects before or after ours, and may refuse or rewrite them; `bpftool \
                prog show` shows its owner",
        ));
    }
}
