//! What a status shows of the host's sockets. Their lists take a while, so the event loop does not
//! wait for them.

use crate::{
    control::{self, api},
    net,
};

/// Adds it to a status of the agent.
pub(crate) async fn add(status: &mut api::Status) {
    if let Some(datapath) = &mut status.datapath {
        datapath.source_ports = source_ports(&status.routes).await;
        datapath.uncovered = uncovered(&datapath.attachments).await;
    }
}

async fn uncovered(attachments: &[api::AttachmentInfo]) -> Vec<api::UncoveredCgroup> {
    let attached: Vec<_> = attachments.iter().filter_map(|at| at.cgroup.clone()).collect();
    tokio::task::spawn_blocking(move || control::uncovered(&attached)).await.unwrap_or_default()
}

async fn source_ports(routes: &[api::RouteView]) -> Vec<api::SourcePortsInfo> {
    let backends = routes.iter().flat_map(|route| &route.backends);
    let ports = net::source_ports(backends.map(|backend| backend.address).collect()).await;
    let in_shape = |at: net::SourcePorts| {
        let net::SourcePorts { source, backend, ports } = at;
        api::SourcePortsInfo { source, backend, ports }
    };
    ports.into_iter().map(in_shape).collect()
}
