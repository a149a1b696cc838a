//! The leak guard: an `unreachable` route for the pool, so that a connect that no hook rewrote
//! fails at once instead of leaving the node. Redirected connects are rewritten before routing and
//! never use it.
//!
//! The route is in a table of its own, and a rule before all others leads to it: the main table is
//! only asked when no rule of a container network or a VPN is before it. TCP of pods gets a reset
//! before that, where the kernel has nf_tables: its rate is not limited.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use futures_util::TryStreamExt;
use ipnet::IpNet;
use rtnetlink::packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use rtnetlink::packet_route::route::{
    RouteAddress, RouteAttribute, RouteMessage, RouteProtocol, RouteType,
};
use rtnetlink::packet_route::rule::{RuleAction, RuleAttribute, RuleMessage};
use rtnetlink::packet_route::{AddressFamily, RouteNetlinkMessage};
use rtnetlink::{Handle, IpVersion, RouteMessageBuilder};

use crate::{
    host::{
        netlink::{HostError, to_io, with_netlink},
        reset,
    },
    net::route_socket::RouteSocket,
    pool::Pool,
};

/// The protocol number of our routes (`ip route` shows `proto 198`): values above 4 have no meaning
/// to the kernel (rtnetlink(7)).
const PROTOCOL: u8 = 198;

/// The table of the guard routes.
const TABLE: u32 = 19_818;

/// The highest priority. Of equal rules the first one is asked first, which is that of the host's
/// own addresses.
const PRIORITY: u32 = 0;

/// The routing table of the host's own addresses (rtnetlink(7)).
const LOCAL_TABLE: u8 = 255;
/// The table of most routes (rtnetlink(7)).
const MAIN_TABLE: u32 = 254;

/// The result of [`add_guard`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Guard {
    /// Whether it was added, or a part of it that was missing.
    pub added: bool,
    /// Why TCP is not refused with resets: this kernel lacks what it takes.
    pub no_resets: Option<String>,
}

/// Adds the guard for the pool: a route, a rule that leads to it, and resets, for each of its
/// families. Idempotent.
///
/// # Errors
///
/// [`HostError::PoolIsRouted`] if another route has the same prefix, [`HostError::Netlink`] if the
/// kernel refuses.
pub async fn add_guard(pool: &Pool) -> Result<Guard, HostError> {
    let nets = pool.nets();
    with_netlink(async |handle| {
        for &net in &nets {
            refuse_routed(&handle, net).await?;
        }
        let guard = put(&nets, true)?;
        for net in nets {
            // Earlier versions had the route in the main table.
            remove_route(&handle, net, MAIN_TABLE).await?;
        }
        Ok(guard)
    })
    .await
}

/// Adds what is missing of the guard: a few messages, whatever number of routes this host has.
/// Without `resets` where the kernel lacks what they take: asking each time would load modules.
///
/// # Errors
///
/// [`HostError::Netlink`] if the kernel refuses.
pub fn restore_guard(pool: &Pool, resets: bool) -> Result<Guard, HostError> {
    put(&pool.nets(), resets)
}

/// Whether TCP to the pool can be refused with resets on this host. Nothing is changed.
///
/// # Errors
///
/// [`HostError::NoResets`] if the kernel lacks what it takes, [`HostError::Netlink`] if it refuses.
pub fn can_reset(pool: &Pool) -> Result<(), HostError> {
    pool.nets().into_iter().try_for_each(reset::probe).map_err(
        |source| match reset::is_unsupported(&source) {
            true => HostError::NoResets { cause: describe_missing(&source) },
            false => HostError::Netlink { action: "ask nf_tables".into(), source },
        },
    )
}

fn put(nets: &[IpNet], resets: bool) -> Result<Guard, HostError> {
    let mut guard = Guard::default();
    let mut socket = RouteSocket::open()
        .map_err(|source| HostError::Netlink { action: "open a netlink socket".into(), source })?;
    let mut add = |message| socket.change(message, NLM_F_CREATE | NLM_F_EXCL);
    for &net in nets {
        let route = add(RouteNetlinkMessage::NewRoute(guard_route(net, TABLE)));
        guard.added |= is_new(route, || format!("add the guard route for {net}"))?;
        let rule = add(RouteNetlinkMessage::NewRule(guard_rule(net)));
        guard.added |= is_new(rule, || format!("add the guard rule for {net}"))?;
        if resets {
            match reset::put(net) {
                Ok(added) => guard.added |= added,
                Err(error) => guard.no_resets = Some(describe_missing(&error)),
            }
        }
    }
    Ok(guard)
}

fn describe_missing(error: &io::Error) -> String {
    if reset::is_unsupported(error) {
        return format!("this kernel lacks nf_tables or its `reject` ({error})");
    }
    format!("the kernel refuses a rule of nf_tables ({error})")
}

async fn refuse_routed(handle: &Handle, net: IpNet) -> Result<(), HostError> {
    let routes = routes(handle, net).await?;
    match routes.iter().find(|route| destination(route) == Some(net) && !is_ours(route)) {
        Some(route) => Err(HostError::PoolIsRouted {
            key: pool_key(net),
            pool: net.to_string(),
            route: describe(route),
        }),
        None => Ok(()),
    }
}

/// Whether an addition made something new.
fn is_new(added: io::Result<()>, action: impl FnOnce() -> String) -> Result<bool, HostError> {
    match added {
        Ok(()) => Ok(true),
        Err(error) if error.raw_os_error() == Some(libc::EEXIST) => Ok(false),
        Err(source) => Err(HostError::Netlink { action: action(), source }),
    }
}

fn guard_rule(net: IpNet) -> RuleMessage {
    let mut rule = RuleMessage::default();
    rule.header.family =
        if net.addr().is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    rule.header.dst_len = net.prefix_len();
    rule.header.table = MAIN_TABLE as u8;
    rule.header.action = RuleAction::ToTable;
    rule.attributes = vec![
        RuleAttribute::Priority(PRIORITY),
        RuleAttribute::Table(TABLE),
        RuleAttribute::Destination(net.network()),
        RuleAttribute::Protocol(RouteProtocol::from(PROTOCOL)),
    ];
    rule
}

/// Removes the guard for one range. Returns whether there was one; foreign routes stay.
///
/// # Errors
///
/// [`HostError::Netlink`] if the kernel refuses.
pub async fn remove_guard(net: impl Into<IpNet>) -> Result<bool, HostError> {
    let net = net.into().trunc();
    with_netlink(async |handle| {
        let mut removed = false;
        for rule in rules(&handle, net).await? {
            let deleted = handle.rule().del(rule).execute().await;
            removed |= is_gone(deleted, || format!("remove the guard rule for {net}"))?;
        }
        for table in [TABLE, MAIN_TABLE] {
            removed |= remove_route(&handle, net, table).await?;
        }
        removed |= reset::remove(net).map_err(|source| HostError::Netlink {
            action: format!("remove the guard's resets for {net}"),
            source,
        })?;
        Ok(removed)
    })
    .await
}

async fn remove_route(handle: &Handle, net: IpNet, table: u32) -> Result<bool, HostError> {
    let deleted = handle.route().del(guard_route(net, table)).execute().await;
    is_gone(deleted, || format!("remove the guard route for {net}"))
}

/// Whether a removal found something.
fn is_gone(
    removed: Result<(), rtnetlink::Error>,
    action: impl FnOnce() -> String,
) -> Result<bool, HostError> {
    match removed.map_err(to_io) {
        Ok(()) => Ok(true),
        Err(error) if matches!(error.raw_os_error(), Some(libc::ESRCH | libc::ENOENT)) => Ok(false),
        Err(source) => Err(HostError::Netlink { action: action(), source }),
    }
}

/// Our rules for one range.
async fn rules(handle: &Handle, net: IpNet) -> Result<Vec<RuleMessage>, HostError> {
    let version = if net.addr().is_ipv4() { IpVersion::V4 } else { IpVersion::V6 };
    let listed: Result<Vec<RuleMessage>, _> =
        handle.rule().get(version).execute().try_collect().await;
    let rules = listed.map_err(|error| HostError::netlink("list the rules of this host", error))?;
    let has = |rule: &RuleMessage, wanted: &RuleAttribute| rule.attributes.contains(wanted);
    let ours = RuleAttribute::Protocol(RouteProtocol::from(PROTOCOL));
    let to = RuleAttribute::Destination(net.addr());
    let is_ours = |rule: &RuleMessage| {
        rule.header.dst_len == net.prefix_len() && has(rule, &ours) && has(rule, &to)
    };
    Ok(rules.into_iter().filter(is_ours).collect())
}

/// Foreign routes of this host to the pool or a part of it, as `ip route` shows them: connects to
/// their destinations would be redirected. Of a broader route, such as that of a VPN, the pool is
/// not a destination in use.
///
/// # Errors
///
/// [`HostError::Netlink`] if the routes can't be listed.
pub async fn conflicting_routes(pool: &Pool) -> Result<Vec<String>, HostError> {
    let nets = pool.nets();
    with_netlink(async |handle| {
        let mut conflicts = Vec::new();
        for pool in nets {
            let overlaps = |route: &&RouteMessage| {
                destination(route).is_some_and(|net| pool.contains(&net)) && !is_ours(route)
            };
            conflicts.extend(routes(&handle, pool).await?.iter().filter(overlaps).map(describe));
        }
        Ok(conflicts)
    })
    .await
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

fn guard_route(net: IpNet, table: u32) -> RouteMessage {
    let (kind, protocol) = (RouteType::Unreachable, RouteProtocol::from(PROTOCOL));
    match net {
        IpNet::V4(net) => {
            let builder = RouteMessageBuilder::<Ipv4Addr>::new()
                .destination_prefix(net.network(), net.prefix_len());
            builder.kind(kind).protocol(protocol).table_id(table).build()
        }
        IpNet::V6(net) => {
            let builder = RouteMessageBuilder::<Ipv6Addr>::new()
                .destination_prefix(net.network(), net.prefix_len());
            builder.kind(kind).protocol(protocol).table_id(table).build()
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
