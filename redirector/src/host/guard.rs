//! The leak guard: an `unreachable` route for the pool, so that a connect that no hook rewrote
//! fails at once instead of leaving the node. Redirected connects are rewritten before routing and
//! never use it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use futures_util::TryStreamExt;
use ipnet::IpNet;
use rtnetlink::packet_route::AddressFamily;
use rtnetlink::packet_route::route::{
    RouteAddress, RouteAttribute, RouteMessage, RouteProtocol, RouteType,
};
use rtnetlink::{Handle, RouteMessageBuilder};

use crate::{
    host::netlink::{HostError, to_io, with_netlink},
    pool::Pool,
};

/// The protocol number of our routes (`ip route` shows `proto 198`): values above 4 have no meaning
/// to the kernel (rtnetlink(7)).
const PROTOCOL: u8 = 198;

/// The routing table of the host's own addresses (rtnetlink(7)).
const LOCAL_TABLE: u8 = 255;

/// The result of [`add_guard`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Guard {
    /// The route was added.
    Added,
    /// It existed already.
    Present,
}

/// Adds the guard routes for the pool, one for each of its families. Idempotent.
///
/// # Errors
///
/// [`HostError::PoolIsRouted`] if another route has the same prefix, [`HostError::Netlink`] if the
/// kernel refuses.
pub async fn add_guard(pool: &Pool) -> Result<Guard, HostError> {
    let nets = nets(pool);
    with_netlink(async |handle| {
        let mut all = Guard::Present;
        for net in nets {
            if add_guard_route(&handle, net).await? == Guard::Added {
                all = Guard::Added;
            }
        }
        Ok(all)
    })
    .await
}

async fn add_guard_route(handle: &Handle, net: IpNet) -> Result<Guard, HostError> {
    let existing: Vec<RouteMessage> = routes(handle, net)
        .await?
        .into_iter()
        .filter(|route| destination(route) == Some(net))
        .collect();
    if existing.iter().any(is_ours) {
        return Ok(Guard::Present);
    }
    if let Some(route) = existing.first() {
        return Err(HostError::PoolIsRouted {
            key: pool_key(net),
            pool: net.to_string(),
            route: describe(route),
        });
    }
    let added = handle.route().add(guard_route(net)).execute().await;
    added.map_err(|error| HostError::netlink(format!("add the guard route for {net}"), error))?;
    Ok(Guard::Added)
}

/// Removes the guard route for one range. Returns whether there was one; foreign routes stay.
///
/// # Errors
///
/// [`HostError::Netlink`] if the kernel refuses.
pub async fn remove_guard(net: impl Into<IpNet>) -> Result<bool, HostError> {
    let net = net.into().trunc();
    with_netlink(async |handle| {
        match handle.route().del(guard_route(net)).execute().await.map_err(to_io) {
            Ok(()) => Ok(true),
            Err(error) if error.raw_os_error() == Some(libc::ESRCH) => Ok(false),
            Err(source) => Err(HostError::Netlink {
                action: format!("remove the guard route for {net}"),
                source,
            }),
        }
    })
    .await
}

/// Foreign routes of this host that overlap the pool, as `ip route` shows them. Connects to their
/// destinations would be redirected, or connects to VIPs would leak to them.
///
/// # Errors
///
/// [`HostError::Netlink`] if the routes can't be listed.
pub async fn conflicting_routes(pool: &Pool) -> Result<Vec<String>, HostError> {
    let nets = nets(pool);
    with_netlink(async |handle| {
        let mut conflicts = Vec::new();
        for pool in nets {
            let overlaps = |route: &&RouteMessage| {
                // The default route overlaps everything; it is what the guard protects against.
                destination(route).is_some_and(|net| {
                    net.prefix_len() > 0 && (net.contains(&pool) || pool.contains(&net))
                }) && !is_ours(route)
            };
            conflicts.extend(routes(&handle, pool).await?.iter().filter(overlaps).map(describe));
        }
        Ok(conflicts)
    })
    .await
}

/// The ranges of the pool, one for each family.
fn nets(pool: &Pool) -> Vec<IpNet> {
    [IpNet::from(pool.ipv4)]
        .into_iter()
        .chain(pool.ipv6.map(IpNet::from))
        .map(|net| net.trunc())
        .collect()
}

/// The key of the range in the configuration.
fn pool_key(net: IpNet) -> &'static str {
    if net.addr().is_ipv4() { "ipv4" } else { "ipv6" }
}

/// The routes of the family of `net`.
async fn routes(handle: &Handle, net: IpNet) -> Result<Vec<RouteMessage>, HostError> {
    let all = match net {
        IpNet::V4(_) => RouteMessageBuilder::<Ipv4Addr>::new().build(),
        IpNet::V6(_) => RouteMessageBuilder::<Ipv6Addr>::new().build(),
    };
    let listed: Result<Vec<RouteMessage>, _> =
        handle.route().get(all).execute().try_collect().await;
    let routes =
        listed.map_err(|error| HostError::netlink("list the routes of this host", error))?;
    // The local and broadcast routes of the host's own addresses are in a table of their own.
    Ok(routes.into_iter().filter(|route| route.header.table != LOCAL_TABLE).collect())
}

fn guard_route(net: IpNet) -> RouteMessage {
    let (kind, protocol) = (RouteType::Unreachable, RouteProtocol::from(PROTOCOL));
    match net {
        IpNet::V4(net) => {
            let builder = RouteMessageBuilder::<Ipv4Addr>::new()
                .destination_prefix(net.network(), net.prefix_len());
            builder.kind(kind).protocol(protocol).build()
        }
        IpNet::V6(net) => {
            let builder = RouteMessageBuilder::<Ipv6Addr>::new()
                .destination_prefix(net.network(), net.prefix_len());
            builder.kind(kind).protocol(protocol).build()
        }
    }
}

fn is_ours(route: &RouteMessage) -> bool {
    route.header.kind == RouteType::Unreachable && u8::from(route.header.protocol) == PROTOCOL
}

fn destination(route: &RouteMessage) -> Option<IpNet> {
    let address = route.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Destination(RouteAddress::Inet(address)) => Some(IpAddr::from(*address)),
        RouteAttribute::Destination(RouteAddress::Inet6(address)) => Some(IpAddr::from(*address)),
        _ => None,
    });
    let any = || match route.header.address_family {
        AddressFamily::Inet => Some(Ipv4Addr::UNSPECIFIED.into()),
        AddressFamily::Inet6 => Some(Ipv6Addr::UNSPECIFIED.into()),
        _ => None,
    };
    let length = route.header.destination_prefix_length;
    let address = address.or_else(|| any().filter(|_| length == 0))?;
    IpNet::new(address, length).ok()
}

fn describe(route: &RouteMessage) -> String {
    let net = destination(route).map_or_else(|| "?".into(), |net| net.to_string());
    let gateway = route.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Gateway(RouteAddress::Inet(address)) => Some(format!(" via {address}")),
        RouteAttribute::Gateway(RouteAddress::Inet6(address)) => Some(format!(" via {address}")),
        _ => None,
    });
    let kind = if route.header.kind == RouteType::Unicast {
        String::new()
    } else {
        format!("{:?} ", route.header.kind).to_lowercase()
    };
    format!("{kind}{net}{}", gateway.unwrap_or_default())
}
