//! The scenarios, in the order in which they are played. Each has VIPs of its own.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpListener, UdpSocket};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::fs::MetadataExt as _;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use redirector::datapath::{self, EventKind, Reason, RouteCounters};
use redirector::route::OnNoBackend::{Pass, Refuse};
use redirector_common::names;
use rustix::net::{AddressFamily, SocketFlags, SocketType, connect, listen, socket_with};

use crate::bed::{Bed, CLOSED, ONE, PORT, TWO, attached, greeting, settings, vip};
use crate::{attaching, interception, machine, options};

type Scenario = fn(&mut Bed) -> Result<()>;

/// All but the last one, which takes the datapath away.
pub(crate) const ALL: [(&str, Scenario); 23] = [
    ("capabilities", only_two_capabilities),
    ("check", attaching::check),
    ("redirect IPv4", redirect_v4),
    ("redirect mapped IPv6", redirect_mapped),
    ("redirect IPv6", options::redirect_v6),
    ("getpeername", peer_name),
    ("port map", port_map),
    ("refusal", refusal),
    ("pass", pass),
    ("UDP untouched", udp),
    ("refused, set aside", set_aside),
    ("silent, set aside", silent),
    ("source address", options::source_address),
    ("keepalive", options::keep_alive),
    ("connect time-out", options::hurry),
    ("DNS intercepted", interception::intercept),
    ("DNS heartbeat", interception::heartbeat),
    ("counters balance", balance),
    ("events", events),
    ("adopt after restart", adopt),
    ("swap under load", swap),
    ("cgroup goes, sockets stay", attaching::cgroup_goes),
    ("take over an older version", attaching::take_over),
];

pub(crate) fn at(index: u32) -> SocketAddr {
    SocketAddrV4::new(vip(index), PORT).into()
}

fn mapped(index: u32) -> SocketAddr {
    (vip(index).to_ipv6_mapped(), PORT).into()
}

fn only_two_capabilities(_: &mut Bed) -> Result<()> {
    let status =
        std::fs::read_to_string("/proc/self/status").context("failed to read /proc/self/status")?;
    let wanted =
        machine::CAPABILITIES.iter().fold(0_u64, |mask, capability| mask | 1 << capability);
    ensure!(
        status.contains(&format!("CapEff:\t{wanted:016x}")),
        "other capabilities than {wanted:016x}: {status}"
    );
    Ok(())
}

/// With what systemd's `AmbientCapabilities=` gives and no user's rights: loads, redirects,
/// refuses, unloads.
pub(crate) fn as_nobody(uid: u32) -> Result<()> {
    let mut bed = Bed::new().context("failed to load and attach")?;
    ensure!(
        rustix::process::geteuid().as_raw() == uid,
        "uid {}",
        rustix::process::geteuid().as_raw()
    );
    only_two_capabilities(&mut bed)?;
    redirect_v4(&mut bed)?;
    peer_name(&mut bed)?;
    bed.put(6, &[], &[], Refuse)?;
    expect_errno(greeting(at(6)), refusal_errno())?;
    unload(bed)
}

fn redirect_v4(bed: &mut Bed) -> Result<()> {
    bed.put(1, &[], &[ONE, TWO], Refuse)?;
    let mut seen = std::collections::BTreeSet::new();
    for _ in 0..40 {
        seen.insert(greeting(at(1))?.0);
    }
    ensure!(seen.iter().map(String::as_str).eq(["one", "two"]), "landed on {seen:?}");
    Ok(())
}

fn redirect_mapped(bed: &mut Bed) -> Result<()> {
    bed.put(2, &[], &[ONE], Refuse)?;
    let (banner, peer) = greeting(mapped(2))?;
    ensure!(banner == "one" && peer == mapped(2), "landed on {banner:?}, told {peer}");
    Ok(())
}

fn peer_name(bed: &mut Bed) -> Result<()> {
    bed.put(3, &[(443, PORT)], &[ONE], Refuse)?;
    let asked = SocketAddr::from((vip(3), 443));
    let (_, peer) = greeting(asked)?;
    ensure!(peer == asked, "asked for {asked}, told {peer}");
    let (_, elsewhere) = greeting((ONE, PORT).into())?;
    ensure!(
        elsewhere == SocketAddr::from((ONE, PORT)),
        "a socket that is not redirected is told {elsewhere}"
    );
    Ok(())
}

fn port_map(bed: &mut Bed) -> Result<()> {
    bed.put(4, &[(80, PORT), (443, 1)], &[TWO], Refuse)?;
    let (banner, _) = greeting((vip(4), 80).into())?;
    ensure!(banner == "two", "landed on {banner:?}");
    expect_errno(greeting((vip(4), 443).into()), libc::ECONNREFUSED)
}

/// This kernel's version.
pub(crate) fn kernel() -> (u32, u32) {
    let release = rustix::system::uname().release().to_string_lossy().into_owned();
    let mut numbers = release
        .split(|character: char| !character.is_ascii_digit())
        .map(|part| part.parse().unwrap_or_default());
    (numbers.next().unwrap_or_default(), numbers.next().unwrap_or_default())
}

/// What a connect that the programs refuse gets: kernels before 6.1 don't let them say.
fn refusal_errno() -> i32 {
    if kernel() >= (6, 1) { libc::ECONNREFUSED } else { libc::EPERM }
}

fn refusal(bed: &mut Bed) -> Result<()> {
    bed.put(5, &[(443, PORT)], &[ONE], Refuse)?;
    bed.put(6, &[], &[], Refuse)?;
    for target in [SocketAddr::from((vip(5), 22)), at(6), at(6000), mapped(6)] {
        expect_errno(greeting(target), refusal_errno()).with_context(|| target.to_string())?;
    }
    let denied = bed.datapath.route_counters(6)?.denied;
    ensure!(denied == 2, "{denied} connects were counted as denied, not 2");
    Ok(())
}

/// Nothing has a route to the pool here.
fn pass(bed: &mut Bed) -> Result<()> {
    bed.put(7, &[], &[], Pass)?;
    expect_errno(greeting(at(7)), libc::ENETUNREACH)?;
    let counters = bed.datapath.route_counters(7)?;
    ensure!((counters.passed, counters.denied) == (1, 0), "{counters:?}");
    Ok(())
}

fn udp(bed: &mut Bed) -> Result<()> {
    bed.put(8, &[], &[ONE], Refuse)?;
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
    expect_errno(socket.connect(at(8)), libc::ENETUNREACH)?;
    let counters = bed.datapath.route_counters(8)?;
    ensure!(counters == RouteCounters::default(), "{counters:?}");
    Ok(())
}

fn set_aside(bed: &mut Bed) -> Result<()> {
    bed.put(9, &[], &[CLOSED, TWO], Refuse)?;
    (0..200).find(|_| greeting(at(9)).is_err()).context("200 connects met no closed port")?;
    let suspects = bed.datapath.unhealthy_backends()?;
    ensure!(
        suspects.iter().any(|suspect| suspect.index == 9 && suspect.address == CLOSED),
        "{suspects:?}"
    );
    for _ in 0..10 {
        let (banner, _) =
            greeting(at(9)).context("a connect was sent to the backend that had just refused")?;
        ensure!(banner == "two", "landed on {banner:?}");
    }
    bed.datapath.reinstate(9, CLOSED.into())?;
    ensure!(
        !bed.datapath.unhealthy_backends()?.iter().any(|suspect| suspect.index == 9),
        "still set aside"
    );
    Ok(())
}

/// What keeps a server silent for as long as it lives.
pub(crate) struct Silence {
    _listener: TcpListener,
    _fillers: Vec<OwnedFd>,
}

/// A server at `address` whose full backlog drops SYNs.
pub(crate) fn silence(address: Ipv4Addr) -> Result<Silence> {
    let listener = TcpListener::bind((address, PORT))?;
    listen(listener.as_fd(), 0)?;
    let fillers = (0..4).map(|_| start((address, PORT).into())).collect::<Result<_>>()?;
    std::thread::sleep(Duration::from_millis(200));
    Ok(Silence { _listener: listener, _fillers: fillers })
}

/// The first retransmission, after a second, sets the backend aside.
fn silent(bed: &mut Bed) -> Result<()> {
    let full = Ipv4Addr::new(127, 0, 0, 5);
    let silence = silence(full)?;
    bed.put(10, &[], &[full], Refuse)?;
    let waiting = start(at(10))?;
    let deadline = Instant::now() + Duration::from_secs(8);
    while !bed.datapath.unhealthy_backends()?.iter().any(|suspect| suspect.index == 10) {
        ensure!(
            Instant::now() < deadline,
            "not set aside after 8 s: {:?}",
            bed.datapath.route_counters(10)?
        );
        std::thread::sleep(Duration::from_millis(50));
    }
    drop((waiting, silence));
    let counters = bed.datapath.route_counters(10)?;
    ensure!((counters.started, counters.aborted) == (1, 1), "{counters:?}");
    Ok(())
}

/// A connect that nobody waits for.
fn start(target: SocketAddr) -> Result<OwnedFd> {
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let socket = socket_with(AddressFamily::INET, SocketType::STREAM, flags, None)?;
    match connect(&socket, &target) {
        Ok(()) | Err(rustix::io::Errno::INPROGRESS) => Ok(socket),
        Err(error) => Err(error).with_context(|| format!("failed to start a connect to {target}")),
    }
}

fn balance(bed: &mut Bed) -> Result<()> {
    for index in (1..=10).chain(options::INDICES) {
        let c = bed.datapath.route_counters(index)?;
        let ends = c.established + c.refused + c.timed_out + c.unreachable + c.aborted + c.unsent;
        ensure!(c.started == ends, "route {index}: {c:?}");
    }
    let first = bed.datapath.route_counters(1)?;
    ensure!((first.started, first.established) == (40, 40), "{first:?}");
    // "one\n" or "two\n", and the end.
    ensure!(first.rx_bytes >= 160 && first.connect_ns > 0, "{first:?}");
    Ok(())
}

/// An established connection, its end, a refusal by a backend and one here: each told once, with
/// who called.
fn events(bed: &mut Bed) -> Result<()> {
    let mut reader = bed.datapath.take_event_reader().context("somebody else reads the events")?;
    bed.put(13, &[], &[ONE], Refuse)?;
    bed.put(14, &[(PORT, PORT)], &[CLOSED], Refuse)?;
    bed.datapath.set_event_sampling(Some(0))?;
    greeting(at(13))?;
    expect_errno(greeting(mapped(14)), libc::ECONNREFUSED)?;
    expect_errno(greeting((vip(14), 22).into()), refusal_errno())?;
    bed.datapath.set_event_sampling(None)?;
    let events = reader.read(100);
    let told: Vec<_> = events.iter().map(|event| (event.index, event.kind)).collect();
    let wanted = [
        (13, EventKind::Established),
        (13, EventKind::Closed),
        (14, EventKind::Refused),
        (14, EventKind::Denied(Reason::PortNotListed)),
    ];
    // The end of the first one may come late.
    ensure!(told.len() == 4 && wanted.iter().all(|one| told.contains(one)), "{events:?}");
    let cgroup = std::fs::metadata(machine::POD)?.ino();
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
    let counters = bed.datapath.route_counters(13)?;
    ensure!(counters.latency.iter().sum::<u64>() == 1 && counters.srtt_us > 0, "{counters:?}");
    ensure!(bed.datapath.lost_events()? == 0, "events were lost");
    Ok(())
}

fn adopt(bed: &mut Bed) -> Result<()> {
    bed.put(11, &[(80, PORT)], &[ONE, TWO], Refuse)?;
    let before = bed.datapath.plan();
    let successor = attached()?;
    ensure!(successor.plan() == before, "the plan is not what it was");
    bed.datapath = successor;
    greeting((vip(11), 80).into())?;
    let counters = bed.datapath.route_counters(1)?;
    ensure!(counters.started == 40, "the counters did not survive: {counters:?}");
    Ok(())
}

fn swap(bed: &mut Bed) -> Result<()> {
    bed.put(12, &[], &[ONE, TWO], Refuse)?;
    let made = under_load(12, || {
        (0..2).try_for_each(|_| attached().map(|datapath| bed.datapath = datapath))
    })?;
    let counters = bed.datapath.route_counters(12)?;
    ensure!(counters.established == made && made > 0, "{made} connects, counted {counters:?}");
    Ok(())
}

/// Connects to the VIP of `index` while `act` does something, each of which must be redirected; how
/// many there were.
pub(crate) fn under_load(index: u32, act: impl FnOnce() -> Result<()>) -> Result<u64> {
    let (over, count) = (AtomicBool::new(false), AtomicU64::new(0));
    let load = || -> Result<()> {
        while !over.load(Ordering::Relaxed) {
            let (_, peer) = greeting(at(index))?;
            ensure!(peer == at(index), "told {peer}");
            count.fetch_add(1, Ordering::Relaxed);
        }
        Ok(())
    };
    std::thread::scope(|scope| -> Result<()> {
        let load = scope.spawn(load);
        let acted = act();
        over.store(true, Ordering::Relaxed);
        load.join().map_err(|_| anyhow::anyhow!("the load panicked"))??;
        acted
    })?;
    Ok(count.load(Ordering::Relaxed))
}

/// Takes the datapath away, and sees that nothing of it is left.
pub(crate) fn unload(bed: Bed) -> Result<()> {
    drop(bed);
    let settings = settings()?;
    let removed = datapath::unload(&settings.bpffs)?;
    ensure!(
        (removed.links, removed.maps) == (names::PROGRAMS.len(), names::MAPS.len()),
        "{removed:?}"
    );
    ensure!(!settings.bpffs.exists(), "pins are left");
    expect_errno(greeting(at(1)), libc::ENETUNREACH)
}

pub(crate) fn expect_errno<T: std::fmt::Debug>(result: io::Result<T>, errno: i32) -> Result<()> {
    match result {
        Err(error) if error.raw_os_error() == Some(errno) => Ok(()),
        Err(error) => bail!("expected errno {errno}, got {error}"),
        Ok(value) => bail!("expected errno {errno}, got {value:?}"),
    }
}
