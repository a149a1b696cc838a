//! An attached datapath, servers on the loopback device, and connects that check which server they
//! reached.

use std::{
    io::{self, Read as _, Write as _},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, TcpListener, TcpStream},
    os::fd::{AsFd as _, OwnedFd},
    path::PathBuf,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};
use redirector::{
    config::CgroupSpec,
    datapath::{self, Datapath, Settings, Version},
    plan::{Change, PlannedRoute},
    pool::Pool,
    route::{OnNoBackend, PortPair},
};
use rustix::net::{AddressFamily, SocketFlags, SocketType, connect, listen, socket_with};

use crate::init;

/// The port that every server listens on.
pub(crate) const PORT: u16 = 8080;
/// The server whose banner is `one`.
pub(crate) const ONE: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);
/// The server whose banner is `two`.
pub(crate) const TWO: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 3);
/// The server whose banner is `six`.
pub(crate) const SIX: Ipv6Addr = Ipv6Addr::LOCALHOST;
/// An address without a server.
pub(crate) const CLOSED: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 4);
/// Bytes of a banner.
pub(crate) const BANNER: usize = 4;
/// Longest time for a connect: the machine is emulated.
pub(crate) const CONNECT_LIMIT: Duration = Duration::from_secs(10);

/// The attached datapath of every scenario.
pub(crate) struct Fixture {
    pub(crate) datapath: Datapath,
}

impl Fixture {
    /// Starts the servers, and attaches a datapath without routes to the pods.
    pub(crate) fn new() -> Result<Self> {
        serve(ONE.into(), "one\n")?;
        serve(TWO.into(), "two\n")?;
        serve(SIX.into(), "six\n")?;
        Ok(Self { datapath: attached()? })
    }

    /// A route from the VIP of `index` to `backends`.
    pub(crate) fn put(
        &mut self,
        index: u32,
        ports: &[(u16, u16)],
        backends: &[Ipv4Addr],
        on_no_backend: OnNoBackend,
    ) -> Result<()> {
        let ports =
            ports.iter().map(|&(client, destination)| PortPair { client, destination }).collect();
        let backends = Some(backends.iter().copied().map(IpAddr::from).collect());
        self.put_route(
            index,
            PlannedRoute { ports, backends, on_no_backend, ..PlannedRoute::default() },
        )
    }

    /// A route with all its options.
    pub(crate) fn put_route(&mut self, index: u32, route: PlannedRoute) -> Result<()> {
        Ok(self.datapath.apply(&[Change::Put { index, route }])?)
    }
}

/// The VIP of `index`.
pub(crate) fn vip(index: u32) -> Ipv4Addr {
    Ipv4Addr::from_bits(Ipv4Addr::new(198, 18, 0, 0).to_bits() + index)
}

/// The IPv6 VIP of `index`.
pub(crate) fn vip6(index: u32) -> Ipv6Addr {
    Ipv6Addr::from_bits(
        Ipv6Addr::new(0xfd00, 0x198, 0x18, 0, 0, 0, 0, 0).to_bits() + u128::from(index),
    )
}

pub(crate) fn settings() -> Result<Settings> {
    let ipv6 = Some("fd00:198:18::/112".parse()?);
    let pool = Pool::new("198.18.0.0/16".parse()?, ipv6, true).map_err(|(_, error)| error)?;
    Ok(Settings { bpffs: PathBuf::from("/sys/fs/bpf/redirector"), pool, debug_log: false })
}

/// Loads, or adopts what is pinned, and attaches.
pub(crate) fn attached() -> Result<Datapath> {
    attached_as(&Version::own())
}

/// The same as a binary of another version.
pub(crate) fn attached_as(version: &Version) -> Result<Datapath> {
    attached_with(&settings()?, version)
}

/// The same with other settings.
pub(crate) fn attached_with(settings: &Settings, version: &Version) -> Result<Datapath> {
    let mut datapath = Datapath::open_as(settings, version)?;
    let cgroups = datapath::cgroups(&[CgroupSpec::Pattern(init::ATTACHED.to_owned())])?;
    datapath.attach(&cgroups)?;
    Ok(datapath)
}

fn serve(address: IpAddr, banner: &'static str) -> Result<()> {
    let listener = TcpListener::bind((address, PORT))
        .with_context(|| format!("failed to listen at {address}"))?;
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            // A client that disconnects early reports the error itself. Waits until the client
            // closes: a server that closes first may reset the connection, and the client's connect
            // then fails with EPIPE (once in thousands on 7.3 and arm64).
            let _ = (&stream).write_all(banner.as_bytes());
            let _ = stream.set_read_timeout(Some(CONNECT_LIMIT));
            let _ = (&stream).read(&mut [0]);
        }
    });
    Ok(())
}

/// Connects within [`CONNECT_LIMIT`].
pub(crate) fn open(target: SocketAddr) -> io::Result<TcpStream> {
    TcpStream::connect_timeout(&target, CONNECT_LIMIT)
}

/// Connects and reads the banner; returns it with the result of getpeername.
pub(crate) fn greeting(target: SocketAddr) -> io::Result<(String, SocketAddr)> {
    let mut stream = open(target)?;
    let peer = stream.peer_addr()?;
    stream.set_read_timeout(Some(CONNECT_LIMIT))?;
    // Only the banner: the server waits for this end to close.
    let mut banner = [0; BANNER];
    stream.read_exact(&mut banner)?;
    Ok((String::from_utf8_lossy(&banner).trim().to_owned(), peer))
}

/// The VIP of `index`, at the servers' port.
pub(crate) fn vip_target(index: u32) -> SocketAddr {
    SocketAddrV4::new(vip(index), PORT).into()
}

/// The same as a mapped IPv6 address.
pub(crate) fn mapped_vip_target(index: u32) -> SocketAddr {
    (vip(index).to_ipv6_mapped(), PORT).into()
}

/// This kernel's version.
pub(crate) fn kernel_version() -> (u32, u32) {
    let release = rustix::system::uname().release().to_string_lossy().into_owned();
    let mut numbers = release
        .split(|character: char| !character.is_ascii_digit())
        .map(|part| part.parse().unwrap_or_default());
    (numbers.next().unwrap_or_default(), numbers.next().unwrap_or_default())
}

/// A server that drops SYNs until it is dropped.
pub(crate) struct SilentServer {
    _listener: TcpListener,
    _fillers: Vec<OwnedFd>,
}

/// Starts a server at `address` whose full backlog drops SYNs.
pub(crate) fn silent_server(address: Ipv4Addr) -> Result<SilentServer> {
    let listener = TcpListener::bind((address, PORT))?;
    listen(listener.as_fd(), 0)?;
    let fillers = (0..4).map(|_| start_connect((address, PORT).into())).collect::<Result<_>>()?;
    std::thread::sleep(Duration::from_millis(200));
    Ok(SilentServer { _listener: listener, _fillers: fillers })
}

/// Starts a connect without waiting for it.
pub(crate) fn start_connect(target: SocketAddr) -> Result<OwnedFd> {
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let socket = socket_with(AddressFamily::INET, SocketType::STREAM, flags, None)?;
    match connect(&socket, &target) {
        Ok(()) | Err(rustix::io::Errno::INPROGRESS) => Ok(socket),
        Err(error) => Err(error).with_context(|| format!("failed to start a connect to {target}")),
    }
}

/// Connects to the VIP of `index` while `act` runs; every connect must be redirected. Returns their
/// number.
pub(crate) fn under_load(index: u32, act: impl FnOnce() -> Result<()>) -> Result<u64> {
    let (done, count) = (AtomicBool::new(false), AtomicU64::new(0));
    let load = || -> Result<()> {
        while !done.load(Ordering::Relaxed) {
            let (_, peer) = greeting(vip_target(index))?;
            ensure!(peer == vip_target(index), "getpeername {peer}");
            count.fetch_add(1, Ordering::Relaxed);
        }
        Ok(())
    };
    std::thread::scope(|scope| -> Result<()> {
        let load = scope.spawn(load);
        let acted = act();
        done.store(true, Ordering::Relaxed);
        load.join().map_err(|_| anyhow::anyhow!("the load panicked"))??;
        acted
    })?;
    Ok(count.load(Ordering::Relaxed))
}

pub(crate) fn expect_errno<T: std::fmt::Debug>(result: io::Result<T>, errno: i32) -> Result<()> {
    match result {
        Err(error) if error.raw_os_error() == Some(errno) => Ok(()),
        Err(error) => bail!("expected errno {errno}, got {error}"),
        Ok(value) => bail!("expected errno {errno}, got {value:?}"),
    }
}
