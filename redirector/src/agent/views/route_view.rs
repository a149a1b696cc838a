//! Routes in the shapes of the control API.

use std::collections::HashMap;

use crate::{
    agent::state::reconciler::Reconciler,
    backend::{Freshness, RejectedAddress, Resolved},
    control::api,
    datapath::{BackendStatus, Ejection, RouteStatus, client_name},
    error::error_chain,
    route::{EffectiveRoute, SourceName},
};

/// Every route, by source.
pub(crate) fn all(reconciler: &Reconciler) -> Vec<api::RouteView> {
    let mut statuses = kernel_statuses(reconciler);
    let routes = reconciler.routes.iter();
    routes.map(|entry| view(reconciler, entry, statuses.remove(&entry.route.source))).collect()
}

/// One route.
pub(crate) fn find(reconciler: &Reconciler, source: &SourceName) -> Option<api::RouteView> {
    let status = reconciler
        .leases
        .get(source)
        .and_then(|index| reconciler.datapath.routes(&[index]).ok()?.pop());
    reconciler.routes.get(source).map(|entry| view(reconciler, entry, status))
}

/// A route with its status in the kernel, if that could be read.
pub(crate) fn view(
    reconciler: &Reconciler,
    entry: EffectiveRoute<'_>,
    status: Option<RouteStatus>,
) -> api::RouteView {
    let source = &entry.route.source;
    let (index, pool) = (reconciler.leases.get(source), reconciler.pool());
    let (counters, backends) = status.map(|status| (status.counters, status.backends)).unzip();
    api::RouteView {
        source: Some(source.clone()),
        vip: api::VipView {
            index: index.unwrap_or_default(),
            ipv4: index.and_then(|index| pool.ipv4_at(index)),
            ipv6: index.and_then(|index| pool.ipv6_at(index)),
        },
        origin: Some(entry.origin),
        definition: Some(entry.route.into()),
        live: reconciler.is_live(source),
        resolution: reconciler.follower().resolved(source).map(|known| resolution(&known)),
        backends: backends.into_iter().flatten().map(backend).collect(),
        counters,
        answers: api::AnswerCounts {
            packet: index
                .and_then(|index| reconciler.datapath.name_answers(index).ok())
                .unwrap_or_default(),
            shim: reconciler.publisher().map_or(0, |publisher| publisher.answer_counts()(source)),
        },
    }
}

/// A backend in the API's shape.
pub(crate) fn backend(status: BackendStatus) -> api::BackendView {
    let ejected = status.ejected();
    api::BackendView {
        address: status.address,
        state: if ejected.is_some() {
            api::BackendState::Ejected
        } else {
            api::BackendState::Eligible
        },
        cause: ejected.map(|ejection| ejection.cause),
        failures: ejected.map_or(0, |ejection| ejection.failures.into()),
        retry_in_ms: ejected.map(|ejection| ejection.retry_in_ms),
        ejections: status.ejections.iter().map(ejection).collect(),
        counters: Some(status.counters),
    }
}

fn ejection(ejection: &Ejection) -> api::EjectionView {
    api::EjectionView {
        port: ejection.port,
        client: ejection.client.map(client_name),
        cause: ejection.cause,
        failures: ejection.failures.into(),
        retry_in_ms: ejection.retry_in_ms,
    }
}

/// The status of each route in the kernel, as far as it can be read.
fn kernel_statuses(reconciler: &Reconciler) -> HashMap<SourceName, RouteStatus> {
    let indexed = |entry: EffectiveRoute<'_>| {
        let source = &entry.route.source;
        Some((reconciler.leases.get(source)?, source.clone()))
    };
    let mut routes: Vec<_> = reconciler.routes.iter().filter_map(indexed).collect();
    routes.sort_unstable_by_key(|(index, _)| *index);
    let (indices, sources): (Vec<u32>, Vec<SourceName>) = routes.into_iter().unzip();
    let statuses = reconciler.datapath.routes(&indices).unwrap_or_else(|error| {
        tracing::warn!("failed to read counters and health: {}", error_chain(&error));
        Vec::new()
    });
    sources.into_iter().zip(statuses).collect()
}

fn resolution(resolved: &Resolved) -> api::Resolution {
    let (state, error) = match &resolved.freshness {
        Freshness::Literal => (api::ResolutionState::Literal, None),
        Freshness::Fresh => (api::ResolutionState::Fresh, None),
        Freshness::Stale { error } => (api::ResolutionState::Stale, Some(error.clone())),
        Freshness::Unresolved { error } => (api::ResolutionState::Unresolved, error.clone()),
    };
    let is_known = !matches!(state, api::ResolutionState::Unresolved);
    let expires = matches!(state, api::ResolutionState::Fresh | api::ResolutionState::Stale);
    api::Resolution {
        state,
        error,
        resolved_at: is_known.then_some(resolved.resolved_at),
        ttl_seconds: expires.then_some(resolved.ttl.as_secs()),
        rejected: resolved.rejected.iter().map(rejected).collect(),
        left_out: resolved.left_out.clone(),
    }
}

fn rejected(rejected: &RejectedAddress) -> api::RejectedAddress {
    api::RejectedAddress { address: rejected.address, reason: rejected.reason.to_string() }
}
