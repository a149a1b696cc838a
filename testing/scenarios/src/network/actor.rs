//! A process in a place: it acts as the scenarios, which may not enter namespaces, ask it to.

use std::{
    io::{self, BufRead as _, BufReader, Read as _, Write as _},
    net::{IpAddr, SocketAddr, TcpStream},
    os::unix::net::{UnixListener, UnixStream},
    path::PathBuf,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use rustix::net::sockopt;

use super::{
    netlink, query,
    requests::{Answer, Reply, Request},
};
use crate::fixture::{BANNER, CONNECT_LIMIT};

/// The argument of the process, before the place's name.
pub(crate) const ACT: &str = "act";

/// Octets that are written to a connection at once.
const CHUNK: usize = 64 << 10;

fn socket_path(place: &str) -> PathBuf {
    PathBuf::from(format!("/run/{place}.sock"))
}

/// Whether the actor of a place accepts requests.
pub(crate) fn is_ready(place: &str) -> bool {
    socket_path(place).exists()
}

/// Serves the requests for a place until the machine is powered off.
pub(crate) fn serve(place: &str) -> Result<()> {
    netlink::skip_address_detection()?;
    let listener = UnixListener::bind(socket_path(place)).context("failed to listen")?;
    let mut held = None;
    for stream in listener.incoming() {
        let mut stream = BufReader::new(stream?);
        let mut line = String::new();
        stream.read_line(&mut line)?;
        let started = Instant::now();
        let reply = act(serde_json::from_str(&line)?, &mut held).unwrap_or_else(|error| {
            let errno = error.downcast_ref::<io::Error>().and_then(io::Error::raw_os_error);
            Reply::Failed {
                errno: errno.unwrap_or_default(),
                error: format!("{error:#}"),
                milliseconds: started.elapsed().as_millis() as u64,
            }
        });
        serde_json::to_writer(stream.get_mut(), &reply)?;
    }
    Ok(())
}

fn act(request: Request, held: &mut Option<TcpStream>) -> Result<Reply> {
    match request {
        Request::Connect { target } => connect(target),
        Request::Transfer { target, octets } => transfer(target, octets),
        Request::Hold { target } => {
            let (stream, reply) = open(target)?;
            *held = Some(stream);
            Ok(reply)
        }
        Request::Echo => {
            let stream = held.as_mut().context("no connection is held")?;
            stream.write_all(b"x")?;
            stream.read_exact(&mut [0])?;
            Ok(Reply::Echoed)
        }
        Request::Query { resolver, name, kind } => {
            query::ask(resolver, &name, &kind).map(Reply::Answer)
        }
    }
}

fn connect(target: SocketAddr) -> Result<Reply> {
    open(target).map(|(_, reply)| reply)
}

/// Connects and reads the banner.
fn open(target: SocketAddr) -> Result<(TcpStream, Reply)> {
    let started = Instant::now();
    let mut stream = TcpStream::connect_timeout(&target, CONNECT_LIMIT)?;
    let milliseconds = started.elapsed().as_millis() as u64;
    stream.set_read_timeout(Some(CONNECT_LIMIT))?;
    stream.set_write_timeout(Some(CONNECT_LIMIT))?;
    let mut banner = [0; BANNER];
    stream.read_exact(&mut banner)?;
    let banner = String::from_utf8_lossy(&banner).trim().to_owned();
    let peer = stream.peer_addr()?;
    Ok((stream, Reply::Connected { banner, peer, milliseconds }))
}

fn transfer(target: SocketAddr, octets: usize) -> Result<Reply> {
    let (stream, _) = open(target)?;
    let sent: Vec<u8> = (0..CHUNK).map(|number| (number % 251) as u8).collect();
    let chunks = octets.div_ceil(CHUNK);
    std::thread::scope(|scope| -> Result<()> {
        let writer = scope.spawn(|| -> io::Result<()> {
            (0..chunks).try_for_each(|_| (&stream).write_all(&sent))
        });
        let mut echoed = vec![0; CHUNK];
        for number in 0..chunks {
            (&stream).read_exact(&mut echoed)?;
            if echoed != sent {
                bail!("chunk {number} came back changed");
            }
        }
        writer.join().map_err(|_| anyhow::anyhow!("the writer panicked"))??;
        Ok(())
    })?;
    let mtu = match target {
        SocketAddr::V4(_) => sockopt::ip_mtu(&stream)?,
        SocketAddr::V6(_) => sockopt::ipv6_mtu(&stream)?,
    };
    Ok(Reply::Transferred { mtu })
}

/// The scenarios' side of an actor.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Actor {
    place: &'static str,
}

impl Actor {
    /// The actor of a place.
    pub(crate) const fn of(place: &'static str) -> Self {
        Self { place }
    }

    /// Its reply to a request.
    pub(crate) fn ask(self, request: &Request) -> Result<Reply> {
        let path = socket_path(self.place);
        let mut stream = UnixStream::connect(&path)
            .with_context(|| format!("failed to connect to {}", path.display()))?;
        stream.set_read_timeout(Some(Duration::from_secs(60)))?;
        let mut line = serde_json::to_vec(request)?;
        line.push(b'\n');
        stream.write_all(&line)?;
        serde_json::from_reader(&stream).with_context(|| format!("{}: {request:?}", self.place))
    }

    /// As [`Self::ask`]; the system calls of the request must have succeeded.
    pub(crate) fn expect(self, request: &Request) -> Result<Reply> {
        match self.ask(request)? {
            Reply::Failed { error, .. } => bail!("{}: {request:?}: {error}", self.place),
            reply => Ok(reply),
        }
    }

    /// A resolver's answer.
    pub(crate) fn query(self, resolver: IpAddr, name: &str, kind: &str) -> Result<Answer> {
        let (name, kind) = (name.to_owned(), kind.to_owned());
        match self.expect(&Request::Query { resolver, name, kind })? {
            Reply::Answer(answer) => Ok(answer),
            other => bail!("expected an answer, got {other:?}"),
        }
    }

    /// The banner of the server that it reaches at `target`.
    pub(crate) fn banner(self, target: SocketAddr) -> Result<String> {
        match self.expect(&Request::Connect { target })? {
            Reply::Connected { banner, peer, .. } if peer == target => Ok(banner),
            other => bail!("connected to {target}, got {other:?}"),
        }
    }

    /// The errno of a connect that must fail, and the milliseconds that it took.
    pub(crate) fn refusal(self, target: SocketAddr) -> Result<(i32, u64)> {
        match self.ask(&Request::Connect { target })? {
            Reply::Failed { errno, milliseconds, .. } => Ok((errno, milliseconds)),
            other => bail!("the connect to {target} must fail, got {other:?}"),
        }
    }
}
