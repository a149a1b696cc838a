//! The leak guard: an `unreachable` route for the pool, so that a connect which no hook rewrote fails at once instead of leaving the node.
//! Rewriting happens before routing, so redirected connects never meet it.

use std::net::IpAddr;

use futures_util::TryStreamExt;
use ipnet::Ipv4Net;
use rtnetlink::packet_route::route::{RouteAddress, RouteAttribute, RouteMessage, RouteProtocol, RouteType};
use rtnetlink::{Handle, RouteMessageBuilder};

use super::{HostError, to_io, with_netlink};
use crate::vip::Pool;

/// Routes of ours carry this protocol number (`ip route` shows `proto 198`): above 4 and below 256 it is anybody's to choose (rtnetlink(7)).
const PROTOCOL: u8 = 198;

/// The table of the routes to the host's own addresses (rtnetlink(7)).
const LOCAL_TABLE: u8 = 255;

/// What [`guard`] found or did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Guard {
    /// The route was added.
    Added,
    /// It was there already, ours.
    Present,
}

/// Adds the guard route for the pool. Idempotent.
///
/// # Errors
///
/// [`HostError::PoolIsRouted`] when the same prefix has somebody else's route, [`HostError::Netlink`] when the kernel refuses.
pub async fn guard(pool: &Pool) -> Result<Guard, HostError> {
    let pool = pool.ipv4.trunc();
    with_netlink(async |handle| {
        let existing: Vec<RouteMessage> = routes(&handle).await?.into_iter().filter(|route| destination(route) == Some(pool)).collect();
        if existing.iter().any(is_ours) {
            return Ok(Guard::Present);
        }
        if let Some(route) = existing.first() {
            return Err(HostError::PoolIsRouted { pool: pool.to_string(), route: describe(route) });
        }
        let added = handle.route().add(message(pool)).execute().await;
        added.map_err(|error| HostError::netlink(format!("add the guard route for {pool}"), error))?;
        Ok(Guard::Added)
    })
    .await
}

/// Removes the guard route. True when there was one; somebody else's route is left alone.
///
/// # Errors
///
/// [`HostError::Netlink`] when the kernel refuses.
pub async fn remove_guard(pool: Ipv4Net) -> Result<bool, HostError> {
    let pool = pool.trunc();
    with_netlink(async |handle| match handle.route().del(message(pool)).execute().await.map_err(to_io) {
        Ok(()) => Ok(true),
        Err(error) if error.raw_os_error() == Some(libc::ESRCH) => Ok(false),
        Err(source) => Err(HostError::Netlink { action: format!("remove the guard route for {pool}"), source }),
    })
    .await
}

/// Routes of this host that overlap the pool and are not ours, as `ip route` would show them: whoever they lead to would lose connects to VIPs,
/// or VIPs would leak to them.
///
/// # Errors
///
/// [`HostError::Netlink`] when the routes can't be listed.
pub async fn conflicts(pool: &Pool) -> Result<Vec<String>, HostError> {
    let pool = pool.ipv4.trunc();
    with_netlink(async |handle| {
        let overlaps = |route: &RouteMessage| {
            // The default route overlaps everything and is what the guard is for.
            destination(route).is_some_and(|net| net.prefix_len() > 0 && (net.contains(&pool) || pool.contains(&net))) && !is_ours(route)
        };
        Ok(routes(&handle).await?.iter().filter(|route| overlaps(route)).map(describe).collect())
    })
    .await
}

async fn routes(handle: &Handle) -> Result<Vec<RouteMessage>, HostError> {
    let all = RouteMessageBuilder::<std::net::Ipv4Addr>::new().build();
    let listed: Result<Vec<RouteMessage>, _> = handle.route().get(all).execute().try_collect().await;
    let routes = listed.map_err(|error| HostError::netlink("list the routes of this host", error))?;
    // The local and broadcast routes of the host's own addresses stand in a table of their own.
    Ok(routes.into_iter().filter(|route| route.header.table != LOCAL_TABLE).collect())
}

fn message(pool: Ipv4Net) -> RouteMessage {
    RouteMessageBuilder::<std::net::Ipv4Addr>::new()
        .destination_prefix(pool.network(), pool.prefix_len())
        .kind(RouteType::Unreachable)
        .protocol(RouteProtocol::from(PROTOCOL))
        .build()
}

fn is_ours(route: &RouteMessage) -> bool {
    route.header.kind == RouteType::Unreachable && u8::from(route.header.protocol) == PROTOCOL
}

fn destination(route: &RouteMessage) -> Option<Ipv4Net> {
    let address = route.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Destination(RouteAddress::Inet(address)) => Some(*address),
        _ => None,
    });
    match address {
        Some(address) => Ipv4Net::new(address, route.header.destination_prefix_length).ok(),
        None => Ipv4Net::new(std::net::Ipv4Addr::UNSPECIFIED, 0).ok().filter(|_| route.header.destination_prefix_length == 0),
    }
}

fn describe(route: &RouteMessage) -> String {
    let net = destination(route).map_or_else(|| "?".into(), |net| net.to_string());
    let gateway = route.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Gateway(RouteAddress::Inet(address)) => Some(format!(" via {}", IpAddr::V4(*address))),
        _ => None,
    });
    let kind = if route.header.kind == RouteType::Unicast { String::new() } else { format!("{:?} ", route.header.kind).to_lowercase() };
    format!("{kind}{net}{}", gateway.unwrap_or_default())
}
