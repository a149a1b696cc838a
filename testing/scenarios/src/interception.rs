//! Scenarios of DNS interception at sockets: a responder on each port stands in for the shim, and
//! the resolvers do not exist.

use std::{
    io,
    mem::size_of_val,
    net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket},
    os::fd::AsRawFd as _,
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};
use redirector::datapath::ShimEndpoint;
use redirector_common::dns::{HEARTBEAT_TIMEOUT_NS, MARK, SLOTS};

use crate::fixture::{CONNECT_LIMIT, Fixture};

/// The shim's address: a loopback one, which works only in the host's own network.
const SHIM: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 53);
/// A port that needs no capability: the agent's own first port needs CAP_NET_BIND_SERVICE.
const FIRST_PORT: u16 = 10334;
/// Addresses that nothing has, without a route to them.
const RESOLVERS: [Ipv4Addr; 2] = [Ipv4Addr::new(10, 96, 0, 10), Ipv4Addr::new(10, 96, 0, 11)];

/// Every kind of query is answered by the shim's port for its resolver, and the answer appears to
/// come from the resolver. The agent's own queries are not intercepted.
pub(crate) fn intercept(fixture: &mut Fixture) -> Result<()> {
    for port in (FIRST_PORT..).take(SLOTS as usize) {
        respond(port)?;
    }
    fixture.datapath.set_shim(&ShimEndpoint {
        ipv4: Some(SHIM),
        ipv6: None,
        first_port: FIRST_PORT,
    })?;
    fixture.datapath.list_resolvers(&RESOLVERS.map(IpAddr::V4))?;
    fixture.datapath.intercept(true)?;
    fixture.datapath.heartbeat()?;
    let mut ports = Vec::new();
    for resolver in RESOLVERS {
        let four = SocketAddr::from((resolver, 53));
        let mapped = SocketAddr::from((resolver.to_ipv6_mapped(), 53));
        let mut seen = Vec::new();
        for (target, is_connected) in [(four, false), (four, true), (mapped, false), (mapped, true)]
        {
            fixture.datapath.heartbeat()?;
            seen.push(
                ask(target, is_connected)
                    .with_context(|| format!("{target}, connected: {is_connected}"))?,
            );
        }
        ensure!(
            seen.iter().all(|port| *port == seen[0]),
            "{resolver} has more than one port: {seen:?}"
        );
        ports.push(seen[0]);
    }
    ensure!(ports[0] != ports[1], "two resolvers share a port");
    let socket = socket(RESOLVERS[0].into())?;
    mark(&socket)?;
    match socket.send_to(b"ask", (RESOLVERS[0], 53)) {
        Err(error) if error.raw_os_error() == Some(libc::ENETUNREACH) => Ok(()),
        other => bail!("the agent's own query was intercepted: {other:?}"),
    }
}

/// Without a heartbeat nothing is intercepted any more; a late reply is still translated back.
pub(crate) fn heartbeat(fixture: &mut Fixture) -> Result<()> {
    fixture.datapath.heartbeat()?;
    let resolver = SocketAddr::from((RESOLVERS[0], 53));
    let late = socket(resolver.ip())?;
    late.send_to(b"ask", resolver)?;
    std::thread::sleep(Duration::from_nanos(HEARTBEAT_TIMEOUT_NS) + Duration::from_millis(50));
    match socket(resolver.ip())?.send_to(b"ask", resolver) {
        Err(error) if error.raw_os_error() == Some(libc::ENETUNREACH) => {}
        other => bail!("intercepted without a heartbeat: {other:?}"),
    }
    let (_, from) = late.recv_from(&mut [0; 8])?;
    ensure!(from == resolver, "a late reply appears to come from {from}");
    let status = fixture.datapath.interception()?;
    ensure!((status.heartbeat_stale, status.resolvers.len()) == (1, RESOLVERS.len()), "{status:?}");
    Ok(fixture.datapath.intercept(false)?)
}

/// Answers each datagram with the port that it was sent to.
fn respond(port: u16) -> Result<()> {
    let socket = UdpSocket::bind((SHIM, port))?;
    std::thread::Builder::new().stack_size(64 << 10).spawn(move || {
        let mut buffer = [0; 8];
        while let Ok((_, client)) = socket.recv_from(&mut buffer) {
            let _ = socket.send_to(&port.to_be_bytes(), client);
        }
    })?;
    Ok(())
}

/// The shim's port that answered.
fn ask(resolver: SocketAddr, is_connected: bool) -> Result<u16> {
    let socket = socket(resolver.ip())?;
    if is_connected {
        socket.connect(resolver)?;
        ensure!(socket.peer_addr()? == resolver, "getpeername returns {}", socket.peer_addr()?);
        socket.send(b"ask")?;
    } else {
        socket.send_to(b"ask", resolver)?;
    }
    let mut answer = [0; 2];
    let (_, from) = socket.recv_from(&mut answer)?;
    ensure!(from == resolver, "the answer appears to come from {from}");
    Ok(u16::from_be_bytes(answer))
}

fn socket(resolver: IpAddr) -> io::Result<UdpSocket> {
    let socket = UdpSocket::bind(if resolver.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" })?;
    socket.set_read_timeout(Some(CONNECT_LIMIT))?;
    Ok(socket)
}

/// Marks a socket as the agent's own.
fn mark(socket: &UdpSocket) -> io::Result<()> {
    let mark = MARK;
    // SAFETY: the kernel reads the number, which outlives the call.
    let failed = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_MARK,
            (&raw const mark).cast(),
            size_of_val(&mark) as libc::socklen_t,
        )
    };
    if failed == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
