//! Scenarios of the options that a route sets on its sockets, and of the IPv6 pool.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    ops::RangeInclusive,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use redirector::{plan::PlannedRoute, route::OnNoBackend::Refuse};
use rustix::net::sockopt;

use crate::fixture::{
    Fixture, ONE, PORT, SIX, TWO, expect_errno, greeting, open, silent_server, vip_target, vip6,
};

/// The VIPs of this file.
pub(crate) const INDICES: RangeInclusive<u32> = 20..=24;

fn route(backends: &[IpAddr]) -> PlannedRoute {
    PlannedRoute {
        backends: Some(backends.to_vec()),
        on_no_backend: Refuse,
        ..PlannedRoute::default()
    }
}

/// Each family gets its own backend, at the same VIP index; getpeername returns the VIP.
pub(crate) fn redirect_v6(fixture: &mut Fixture) -> Result<()> {
    fixture.put_route(20, route(&[ONE.into(), SIX.into()]))?;
    for (target, expected) in [(SocketAddr::from((vip6(20), PORT)), "six"), (vip_target(20), "one")]
    {
        let (banner, peer) = greeting(target)?;
        ensure!(
            banner == expected && peer == target,
            "{target}: connected to {banner:?}, getpeername {peer}"
        );
    }
    Ok(())
}

/// The connection comes from the route's source address. An address that this machine lacks is
/// counted, and the connect continues without it.
pub(crate) fn source_address(fixture: &mut Fixture) -> Result<()> {
    let source = Ipv4Addr::new(127, 0, 0, 9);
    fixture.put_route(21, PlannedRoute { sources: vec![source.into()], ..route(&[ONE.into()]) })?;
    let local = open(vip_target(21))?.local_addr()?;
    ensure!(local.ip() == source && local.port() != 0, "connected from {local}");
    fixture.put_route(
        22,
        PlannedRoute {
            sources: vec![Ipv4Addr::new(203, 0, 113, 9).into()],
            ..route(&[ONE.into()])
        },
    )?;
    greeting(vip_target(22))?;
    let counters = fixture.datapath.route_counters(22)?;
    ensure!((counters.source_ip_failed, counters.established) == (1, 1), "{counters:?}");
    Ok(())
}

/// The first probe comes after two thirds of the load balancer's idle timeout.
pub(crate) fn keepalive(fixture: &mut Fixture) -> Result<()> {
    fixture.put_route(
        23,
        PlannedRoute { idle_timeout: Some(Duration::from_secs(300)), ..route(&[ONE.into()]) },
    )?;
    let stream = open(vip_target(23))?;
    let (on, idle) = (sockopt::socket_keepalive(&stream)?, sockopt::tcp_keepidle(&stream)?);
    ensure!(on && idle == Duration::from_secs(200), "keepalive {on}, first probe after {idle:?}");
    Ok(())
}

/// While another backend is eligible, a connect to a silent one ends long before the kernel's own
/// two minutes, and before this program's limit.
pub(crate) fn short_syn_timeout(fixture: &mut Fixture) -> Result<()> {
    let silent = Ipv4Addr::new(127, 0, 0, 6);
    let _server = silent_server(silent)?;
    fixture.datapath.set_connect_timeout(Duration::from_secs(1))?;
    fixture.put_route(24, route(&[silent.into(), TWO.into()]))?;
    let failed = (0..200)
        .find_map(|_| greeting(vip_target(24)).err())
        .context("200 connects met no silent backend")?;
    expect_errno::<()>(Err(failed), libc::ETIMEDOUT)?;
    for _ in 0..10 {
        let (banner, _) =
            greeting(vip_target(24)).context("a connect was sent to the silent backend")?;
        ensure!(banner == "two", "connected to {banner:?}");
    }
    let counters = fixture.datapath.route_counters(24)?;
    ensure!(counters.timed_out == 1, "{counters:?}");
    Ok(())
}
