//! A datapath that is attached, servers on the loopback device, and connects that say where they
//! landed.

use std::io::{self, Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result};
use redirector::config::CgroupSpec;
use redirector::datapath::{self, Datapath, Settings, Version};
use redirector::plan::{Change, PlannedRoute};
use redirector::pool::Pool;
use redirector::route::{OnNoBackend, PortPair};

use crate::machine;

/// The port that every server listens on.
pub(crate) const PORT: u16 = 8080;
/// A server that says `one`.
pub(crate) const ONE: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);
/// A server that says `two`.
pub(crate) const TWO: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 3);
/// A server that says `six`.
pub(crate) const SIX: Ipv6Addr = Ipv6Addr::LOCALHOST;
/// Nobody listens here.
pub(crate) const CLOSED: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 4);
/// Bytes of what a server says.
const BANNER: usize = 4;
/// Longest time for a connect: the machine is emulated.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

/// What every scenario plays on.
pub(crate) struct Bed {
    pub(crate) datapath: Datapath,
}

impl Bed {
    /// Servers listen, and the datapath is attached to the pods, without a route.
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

    /// The same with all that a route can say.
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

/// The same in the part of a binary of another version.
pub(crate) fn attached_as(version: &Version) -> Result<Datapath> {
    let mut datapath = Datapath::open_as(&settings()?, version)?;
    let cgroups = datapath::cgroups(&[CgroupSpec::Pattern(machine::ATTACHED.to_owned())])?;
    datapath.attach(&cgroups)?;
    Ok(datapath)
}

fn serve(address: IpAddr, banner: &'static str) -> Result<()> {
    let listener = TcpListener::bind((address, PORT))
        .with_context(|| format!("failed to listen at {address}"))?;
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            // A client that has gone already is its own witness. The client closes first: an end
            // that has closed may reset what is left, and the other end's connect then says EPIPE
            // (7.3 and arm64, once in thousands).
            let _ = (&stream).write_all(banner.as_bytes());
            let _ = stream.set_read_timeout(Some(PATIENCE));
            let _ = (&stream).read(&mut [0]);
        }
    });
    Ok(())
}

/// Connects, with patience.
pub(crate) fn open(target: SocketAddr) -> io::Result<TcpStream> {
    TcpStream::connect_timeout(&target, PATIENCE)
}

/// Connects, and reads the banner; returns it with what getpeername says.
pub(crate) fn greeting(target: SocketAddr) -> io::Result<(String, SocketAddr)> {
    let mut stream = open(target)?;
    let peer = stream.peer_addr()?;
    stream.set_read_timeout(Some(PATIENCE))?;
    // No further than the banner: the server waits for this end to close.
    let mut banner = [0; BANNER];
    stream.read_exact(&mut banner)?;
    Ok((String::from_utf8_lossy(&banner).trim().to_owned(), peer))
}
