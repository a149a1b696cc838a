//! The datapath in the shapes of the control API.

use std::{
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    time::Duration,
};

use crate::{
    control::api,
    datapath::{self, Attachment},
};

/// Foreign programs on the hooks of `attachments`. The first attachments suffice: a program above
/// one of many cgroups is above the others, too.
pub(crate) fn foreign_programs(
    bpffs: &Path,
    attachments: &[Attachment],
) -> Vec<api::ForeignProgram> {
    const MAX_CGROUPS: usize = 32;
    let at = |cgroup: &Path| {
        let programs = datapath::foreign_programs(bpffs, cgroup).unwrap_or_default().into_iter();
        let in_shape = programs.map(|program| api::ForeignProgram {
            cgroup: cgroup.to_owned(),
            hook: program.hook,
            id: program.id,
            name: program.name,
            runs_first: program.runs_first,
        });
        in_shape.collect::<Vec<_>>()
    };
    let cgroups = attachments.iter().filter_map(|at| at.cgroup.as_deref());
    cgroups.take(MAX_CGROUPS).flat_map(at).collect()
}

/// An attachment; it is live while its cgroup has the ID that it was attached to.
pub(crate) fn attachment(at: &Attachment) -> api::AttachmentInfo {
    let is_same = |path: &Path| std::fs::metadata(path).is_ok_and(|found| found.ino() == at.id);
    api::AttachmentInfo {
        cgroup: at.cgroup.clone(),
        cgroup_id: at.id,
        programs: at.programs.clone(),
        live: !at.programs.is_empty() && at.cgroup.as_deref().is_some_and(is_same),
    }
}

/// The directories of attached cgroups.
pub(crate) fn directories(attachments: &[Attachment]) -> Vec<PathBuf> {
    attachments.iter().filter_map(|at| at.cgroup.clone()).collect()
}

/// Whole milliseconds.
pub(crate) fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
