//! Scenarios of guests' connections: no hook of a cgroup sees them.

use std::{
    collections::BTreeSet,
    net::{IpAddr, SocketAddr},
};

use anyhow::{Context as _, Result, ensure};
use redirector::{
    plan::PlannedRoute,
    route::{OnNoBackend, PortPair},
};

use super::fixture::{PacketFixture, route};
use crate::{
    fixture::{PORT, vip, vip_target, vip6},
    network::{
        customer::{CLOSED, CLOSED6, ONE, SILENT, SIX, TWO},
        places::{GUEST, NETKIT, PATH_MTU, TAGGED, has_netkit},
        requests::{Reply, Request},
    },
};

/// Longest time of a refusal that waits for no retransmission, in milliseconds.
const AT_ONCE: u64 = 900;

/// The route that later scenarios use again.
const ROUTE: u32 = 120;

/// A route with only these ports, each with the destination's.
fn route_with_ports(backends: &[IpAddr], ports: &[(u16, u16)]) -> PlannedRoute {
    let ports =
        ports.iter().map(|&(client, destination)| PortPair { client, destination }).collect();
    PlannedRoute { ports, ..route(backends) }
}

/// Both backends are reached; getpeername returns the VIP.
pub(super) fn redirect_v4(fixture: &mut PacketFixture) -> Result<()> {
    fixture.put(ROUTE, route(&[ONE.into(), TWO.into()]))?;
    let mut seen = BTreeSet::new();
    for _ in 0..40 {
        seen.insert(GUEST.banner(vip_target(ROUTE))?);
    }
    ensure!(seen.iter().map(String::as_str).eq(["one", "two"]), "connected to {seen:?}");
    Ok(())
}

/// The backend of the VIP's family.
pub(super) fn redirect_v6(fixture: &mut PacketFixture) -> Result<()> {
    fixture.put(121, route(&[ONE.into(), SIX.into()]))?;
    for (target, expected) in [(vip6_target(121), "six"), (vip_target(121), "one")] {
        let banner = GUEST.banner(target)?;
        ensure!(banner == expected, "{target}: connected to {banner:?}");
    }
    fixture.put(122, route(&[ONE.into()]))?;
    refused_at_once(vip6_target(122))
}

fn vip6_target(index: u32) -> SocketAddr {
    (vip6(index), PORT).into()
}

pub(super) fn port_map(fixture: &mut PacketFixture) -> Result<()> {
    fixture.put(123, route_with_ports(&[TWO.into()], &[(443, PORT)]))?;
    let banner = GUEST.banner((vip(123), 443).into())?;
    ensure!(banner == "two", "connected to {banner:?}");
    Ok(())
}

/// A port that is not listed, a VIP without a route, a route without backends.
pub(super) fn reset(fixture: &mut PacketFixture) -> Result<()> {
    fixture.put(124, route_with_ports(&[ONE.into()], &[(443, PORT)]))?;
    fixture.put(125, route(&[]))?;
    for target in [(vip(124), 22).into(), vip_target(125), vip_target(6000), vip6_target(6000)] {
        refused_at_once(target)?;
    }
    Ok(())
}

fn refused_at_once(target: SocketAddr) -> Result<()> {
    let (errno, milliseconds) = GUEST.refusal(target)?;
    ensure!(errno == libc::ECONNREFUSED, "{target}: errno {errno}");
    ensure!(milliseconds < AT_ONCE, "{target}: refused after {milliseconds} ms");
    Ok(())
}

/// The machine has no route to the pool.
pub(super) fn pass(fixture: &mut PacketFixture) -> Result<()> {
    fixture.put(126, PlannedRoute { on_no_backend: OnNoBackend::Pass, ..route(&[]) })?;
    let (errno, _) = GUEST.refusal(vip_target(126))?;
    ensure!(errno == libc::ENETUNREACH || errno == libc::EHOSTUNREACH, "errno {errno}");
    Ok(())
}

/// The SYN moves to the other backend before the guest sees the reset.
pub(super) fn refusing_backend(fixture: &mut PacketFixture) -> Result<()> {
    fixture.put(127, route(&[CLOSED.into(), TWO.into()]))?;
    fixture.put(128, route(&[CLOSED6.into(), SIX.into()]))?;
    for _ in 0..20 {
        ensure!(GUEST.banner(vip_target(127))? == "two", "not the other backend");
        ensure!(GUEST.banner(vip6_target(128))? == "six", "not the other backend");
    }
    let moved = fixture.datapath()?.packet_stats()?.flows_moved;
    ensure!(moved > 0, "no flow was moved");
    fixture.put(129, route(&[CLOSED.into()]))?;
    refused_at_once(vip_target(129))
}

/// The guest's first retransmission, after a second, goes to the other backend.
pub(super) fn silent_backend(fixture: &mut PacketFixture) -> Result<()> {
    fixture.put(130, route(&[SILENT.into(), TWO.into()]))?;
    for _ in 0..20 {
        ensure!(GUEST.banner(vip_target(130))? == "two", "not the other backend");
    }
    let unhealthy = fixture.datapath()?.unhealthy_backends()?;
    ensure!(
        unhealthy.iter().any(|backend| backend.index == 130 && backend.address == SILENT),
        "{unhealthy:?}"
    );
    Ok(())
}

/// Megabytes both ways, larger than the path's MTU, which the guest learns for the VIP.
pub(super) fn bulk(fixture: &mut PacketFixture) -> Result<()> {
    fixture.put(131, route(&[ONE.into(), SIX.into()]))?;
    for target in [vip_target(131), vip6_target(131)] {
        let moved = GUEST.expect(&Request::Transfer { target, octets: 1 << 20 })?;
        ensure!(moved == Reply::Transferred { mtu: PATH_MTU }, "{target}: {moved:?}");
    }
    Ok(())
}

/// A guest whose packets are tagged, and one behind a netkit pair.
pub(super) fn other_interfaces(fixture: &mut PacketFixture) -> Result<()> {
    fixture.put(132, route(&[CLOSED.into(), TWO.into()]))?;
    for actor in [TAGGED].into_iter().chain(has_netkit().then_some(NETKIT)) {
        for _ in 0..10 {
            ensure!(actor.banner(vip_target(132))? == "two", "{actor:?}: not the other backend");
        }
        actor.expect(&Request::Transfer { target: vip_target(132), octets: 1 << 18 })?;
    }
    Ok(())
}

/// Connections live and new ones are redirected without an agent; the next one takes them over.
pub(super) fn no_agent(fixture: &mut PacketFixture) -> Result<()> {
    let target = vip_target(ROUTE);
    GUEST.expect(&Request::Hold { target })?;
    fixture.end_agent();
    let works = || -> Result<()> {
        GUEST.expect(&Request::Echo)?;
        GUEST.banner(target).map(drop)
    };
    works().context("without an agent")?;
    fixture.start_agent(false)?;
    works().context("with the next agent")
}

/// Filters of clsact, which another scenario has attached, redirect on every kernel.
pub(super) fn clsact(_: &mut PacketFixture) -> Result<()> {
    for actor in [GUEST, TAGGED] {
        actor.banner(vip_target(ROUTE))?;
    }
    Ok(())
}

pub(super) fn counters(fixture: &mut PacketFixture) -> Result<()> {
    let stats = fixture.datapath()?.packet_stats()?;
    let counted = stats.resets_sent > 0 && stats.icmp_translated > 0 && stats.flows_moved > 0;
    ensure!(counted && stats.rewrite_failed == 0, "{stats:?}");
    let route = fixture.datapath()?.route_counters(ROUTE)?;
    ensure!((route.started, route.established) == (40, 40), "{route:?}");
    Ok(())
}
