//! Scenarios of connects: redirected, refused, passed, counted; and of programs that are swapped.

use std::{
    net::{Ipv4Addr, SocketAddr, UdpSocket},
    os::unix::fs::MetadataExt as _,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use redirector::{
    datapath::{self, DenyReason, EventKind, RouteCounters},
    route::OnNoBackend::{Pass, Refuse},
};
use redirector_common::names;

use crate::{
    fixture::{
        CLOSED, Fixture, ONE, PORT, TWO, attached, expect_errno, greeting, kernel_version,
        mapped_vip_target, settings, silent_server, start_connect, under_load, vip, vip_target,
    },
    init, socket_options,
};

pub(crate) fn only_two_capabilities(_: &mut Fixture) -> Result<()> {
    let status =
        std::fs::read_to_string("/proc/self/status").context("failed to read /proc/self/status")?;
    let wanted = init::CAPABILITIES.iter().fold(0_u64, |mask, capability| mask | 1 << capability);
    ensure!(
        status.contains(&format!("CapEff:\t{wanted:016x}")),
        "other capabilities than {wanted:016x}: {status}"
    );
    Ok(())
}

/// As a user without rights but with ambient capabilities: loads, redirects, refuses, unloads.
pub(crate) fn as_nobody(uid: u32) -> Result<()> {
    let mut fixture = Fixture::new().context("failed to load and attach")?;
    ensure!(
        rustix::process::geteuid().as_raw() == uid,
        "uid {}",
        rustix::process::geteuid().as_raw()
    );
    only_two_capabilities(&mut fixture)?;
    redirect_v4(&mut fixture)?;
    peer_name(&mut fixture)?;
    fixture.put(6, &[], &[], Refuse)?;
    expect_errno(greeting(vip_target(6)), refusal_errno())?;
    unload(fixture)
}

pub(crate) fn redirect_v4(fixture: &mut Fixture) -> Result<()> {
    fixture.put(1, &[], &[ONE, TWO], Refuse)?;
    let mut seen = std::collections::BTreeSet::new();
    for _ in 0..40 {
        seen.insert(greeting(vip_target(1))?.0);
    }
    ensure!(seen.iter().map(String::as_str).eq(["one", "two"]), "connected to {seen:?}");
    Ok(())
}

pub(crate) fn redirect_mapped(fixture: &mut Fixture) -> Result<()> {
    fixture.put(2, &[], &[ONE], Refuse)?;
    let (banner, peer) = greeting(mapped_vip_target(2))?;
    ensure!(
        banner == "one" && peer == mapped_vip_target(2),
        "connected to {banner:?}, getpeername {peer}"
    );
    Ok(())
}

pub(crate) fn peer_name(fixture: &mut Fixture) -> Result<()> {
    fixture.put(3, &[(443, PORT)], &[ONE], Refuse)?;
    let target = SocketAddr::from((vip(3), 443));
    let (_, peer) = greeting(target)?;
    ensure!(peer == target, "connected to {target}, getpeername {peer}");
    let (_, elsewhere) = greeting((ONE, PORT).into())?;
    ensure!(
        elsewhere == SocketAddr::from((ONE, PORT)),
        "getpeername of a socket that is not redirected: {elsewhere}"
    );
    Ok(())
}

pub(crate) fn port_map(fixture: &mut Fixture) -> Result<()> {
    fixture.put(4, &[(80, PORT), (443, 1)], &[TWO], Refuse)?;
    let (banner, _) = greeting((vip(4), 80).into())?;
    ensure!(banner == "two", "connected to {banner:?}");
    expect_errno(greeting((vip(4), 443).into()), libc::ECONNREFUSED)
}

/// The errno of a connect that the programs refuse: before 6.1 they cannot choose it.
fn refusal_errno() -> i32 {
    if kernel_version() >= (6, 1) { libc::ECONNREFUSED } else { libc::EPERM }
}

pub(crate) fn refusal(fixture: &mut Fixture) -> Result<()> {
    fixture.put(5, &[(443, PORT)], &[ONE], Refuse)?;
    fixture.put(6, &[], &[], Refuse)?;
    for target in
        [SocketAddr::from((vip(5), 22)), vip_target(6), vip_target(6000), mapped_vip_target(6)]
    {
        expect_errno(greeting(target), refusal_errno()).with_context(|| target.to_string())?;
    }
    let denied = fixture.datapath.route_counters(6)?.denied;
    ensure!(denied == 2, "{denied} connects were counted as denied, not 2");
    Ok(())
}

/// This machine has no route to the pool.
pub(crate) fn pass(fixture: &mut Fixture) -> Result<()> {
    fixture.put(7, &[], &[], Pass)?;
    expect_errno(greeting(vip_target(7)), libc::ENETUNREACH)?;
    let counters = fixture.datapath.route_counters(7)?;
    ensure!((counters.passed, counters.denied) == (1, 0), "{counters:?}");
    Ok(())
}

pub(crate) fn udp(fixture: &mut Fixture) -> Result<()> {
    fixture.put(8, &[], &[ONE], Refuse)?;
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
    expect_errno(socket.connect(vip_target(8)), libc::ENETUNREACH)?;
    let counters = fixture.datapath.route_counters(8)?;
    ensure!(counters == RouteCounters::default(), "{counters:?}");
    Ok(())
}

pub(crate) fn refusing_backend(fixture: &mut Fixture) -> Result<()> {
    fixture.put(9, &[], &[CLOSED, TWO], Refuse)?;
    (0..200)
        .find(|_| greeting(vip_target(9)).is_err())
        .context("200 connects met no closed port")?;
    let suspects = fixture.datapath.unhealthy_backends()?;
    let suspect = suspects
        .iter()
        .find(|suspect| suspect.index == 9 && suspect.address == CLOSED)
        .with_context(|| format!("{suspects:?}"))?;
    let place = suspect.place();
    for _ in 0..10 {
        let (banner, _) = greeting(vip_target(9))
            .context("a connect was sent to the backend that had just refused")?;
        ensure!(banner == "two", "connected to {banner:?}");
    }
    fixture.datapath.reinstate(place)?;
    let backends = fixture.datapath.backends(9)?;
    ensure!(backends.iter().all(|backend| backend.ejections.is_empty()), "still ejected");
    Ok(())
}

/// The first retransmission, after a second, ejects the backend.
pub(crate) fn silent_backend(fixture: &mut Fixture) -> Result<()> {
    let full = Ipv4Addr::new(127, 0, 0, 5);
    let server = silent_server(full)?;
    fixture.put(10, &[], &[full], Refuse)?;
    let waiting = start_connect(vip_target(10))?;
    let deadline = Instant::now() + Duration::from_secs(8);
    while !fixture.datapath.unhealthy_backends()?.iter().any(|suspect| suspect.index == 10) {
        ensure!(
            Instant::now() < deadline,
            "not ejected after 8 s: {:?}",
            fixture.datapath.route_counters(10)?
        );
        std::thread::sleep(Duration::from_millis(50));
    }
    drop((waiting, server));
    let counters = fixture.datapath.route_counters(10)?;
    ensure!((counters.started, counters.aborted) == (1, 1), "{counters:?}");
    Ok(())
}

pub(crate) fn balance(fixture: &mut Fixture) -> Result<()> {
    for index in (1..=10).chain(socket_options::INDICES) {
        let c = fixture.datapath.route_counters(index)?;
        let ends = c.established + c.refused + c.timed_out + c.unreachable + c.aborted + c.unsent;
        ensure!(c.started == ends, "route {index}: {c:?}");
    }
    let first = fixture.datapath.route_counters(1)?;
    ensure!((first.started, first.established) == (40, 40), "{first:?}");
    // "one\n" or "two\n", and the end.
    ensure!(first.rx_bytes >= 160 && first.connect_ns > 0, "{first:?}");
    Ok(())
}

/// The longest time until every event is reported.
const EVENTS_LIMIT: Duration = Duration::from_secs(2);

/// An established connection, its end, a backend's refusal and a denied connect are each reported
/// once, with the caller.
pub(crate) fn events(fixture: &mut Fixture) -> Result<()> {
    let mut reader =
        fixture.datapath.take_event_reader().context("the events are already being read")?;
    fixture.put(13, &[], &[ONE], Refuse)?;
    fixture.put(14, &[(PORT, PORT)], &[CLOSED], Refuse)?;
    fixture.datapath.set_event_sampling(Some(0))?;
    greeting(vip_target(13))?;
    expect_errno(greeting(mapped_vip_target(14)), libc::ECONNREFUSED)?;
    expect_errno(greeting((vip(14), 22).into()), refusal_errno())?;
    let (mut events, deadline) = (reader.read(100), Instant::now() + EVENTS_LIMIT);
    // The first connection ends when the other side has acknowledged its end.
    while events.len() < 4 && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(5));
        events.extend(reader.read(100));
    }
    fixture.datapath.set_event_sampling(None)?;
    let reported: Vec<_> =
        events.iter().map(|event| (event.index, event.kind, event.reason)).collect();
    let wanted = [
        (13, EventKind::Established, None),
        (13, EventKind::Closed, None),
        (14, EventKind::Refused, None),
        (14, EventKind::Denied, Some(DenyReason::PortNotListed)),
    ];
    // The first connection's end may be reported after the later events.
    ensure!(reported.len() == 4 && wanted.iter().all(|one| reported.contains(one)), "{events:?}");
    let cgroup = std::fs::metadata(init::POD)?.ino();
    let command = if datapath::has_current_comm() { "init" } else { "" };
    let ours = |event: &datapath::Event| {
        event.pid == std::process::id() && event.command == command && event.cgroup == cgroup
    };
    ensure!(
        events.iter().all(ours),
        "not by process {} in cgroup {cgroup}: {events:?}",
        std::process::id()
    );
    ensure!(events.iter().any(|event| event.rx_bytes >= 4 && !event.srtt.is_zero()), "{events:?}");
    let counters = fixture.datapath.route_counters(13)?;
    ensure!(counters.latency.iter().sum::<u64>() == 1 && counters.srtt_us > 0, "{counters:?}");
    ensure!(fixture.datapath.lost_events()? == 0, "events were lost");
    Ok(())
}

pub(crate) fn adopt(fixture: &mut Fixture) -> Result<()> {
    fixture.put(11, &[(80, PORT)], &[ONE, TWO], Refuse)?;
    let before = fixture.datapath.plan();
    let successor = attached()?;
    ensure!(successor.plan() == before, "the plan has changed");
    fixture.datapath = successor;
    greeting((vip(11), 80).into())?;
    let counters = fixture.datapath.route_counters(1)?;
    ensure!(counters.started == 40, "the counters did not survive: {counters:?}");
    Ok(())
}

pub(crate) fn swap(fixture: &mut Fixture) -> Result<()> {
    fixture.put(12, &[], &[ONE, TWO], Refuse)?;
    let connects = under_load(12, || {
        fixture.datapath = attached()?;
        Ok(())
    })?;
    let counters = fixture.datapath.route_counters(12)?;
    ensure!(
        counters.established == connects && connects > 0,
        "{connects} connects, counted {counters:?}"
    );
    Ok(())
}

/// Unloads the datapath, and checks that nothing of it is left.
pub(crate) fn unload(fixture: Fixture) -> Result<()> {
    drop(fixture);
    let settings = settings()?;
    let removed = datapath::unload(&settings.bpffs)?;
    ensure!(
        (removed.links, removed.maps) == (names::PROGRAMS.len(), names::MAPS.len()),
        "{removed:?}"
    );
    ensure!(!settings.bpffs.exists(), "pins are left");
    expect_errno(greeting(vip_target(1)), libc::ENETUNREACH)
}
