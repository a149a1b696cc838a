//! What is looked up in a status: a route's ports, the attachment above a cgroup.

use std::path::Path;

use crate::{
    control::api::{AttachmentInfo, RouteView},
    route::PortMap,
};

/// The ports of a route; none when its definition is not known.
pub(super) fn ports(route: &RouteView) -> Option<PortMap> {
    let raw = route.definition.as_ref()?;
    PortMap::parse_list(raw.ports.as_deref()?).ok()
}

/// The attachment that covers a cgroup.
pub(super) fn covering<'a>(
    attachments: &'a [AttachmentInfo],
    cgroup: &Path,
) -> Option<&'a AttachmentInfo> {
    attachments
        .iter()
        .find(|at| at.live && at.cgroup.as_deref().is_some_and(|at| cgroup.starts_with(at)))
}
