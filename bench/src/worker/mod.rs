//! The measured processes: a client that connects in batches, on command, and its server. Each
//! stays on one core.
//!
//! Commands arrive over a pipe, so that clients in different cgroups can take turns within one run.

use std::fmt;
use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, UdpSocket};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, Shutdown, SocketFlags, SocketType, accept, bind, connect,
    getpeername, getsockname, listen, recv, send, sendto, shutdown, socket_with,
};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustix::thread::{CpuSet, sched_setaffinity};

use testbed::{Sandbox, binaries};

use crate::{clock, lookup};

/// Priority of the measured processes: other work interrupts them less. Optional.
const NICENESS: i32 = -15;

/// One operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Operation {
    /// connect() of a UDP socket that stays open: no packet, the hook alone.
    Udp,
    /// socket(), connect() and close() of a UDP socket.
    UdpLife,
    /// sendto() of one byte from a UDP socket that is not connected, to an unused port.
    UdpSend,
    /// socket(), connect(), one byte each way and close() of a TCP connection.
    Tcp,
    /// socket(), connect() and close() of a TCP socket whose connect a routing rule prohibits after
    /// the hook: no packet is sent.
    TcpProhibited,
    /// Blocks of [`BLOCK`] bytes to the server, over one connection.
    Upload,
    /// The same from the server.
    Download,
    /// Look-ups of random names among those of the first `spread` routes, at the resolver that is
    /// the target.
    LookUp,
}

/// Bytes of a block.
pub(crate) const BLOCK: usize = 64 << 10;

/// The first byte of a connection that carries blocks; a download's is followed by their number.
const UPLOAD: u8 = b'u';
const DOWNLOAD: u8 = b'd';
/// The first byte of a connection that is answered with the last octet of the server's address.
pub(crate) const WHICH: u8 = b'w';
/// The first byte of a connection that is answered and stays open; and of one that ends them all.
const HOLD: u8 = b'h';
const RELEASE: u8 = b'r';

/// The port that routing prohibits, for [`Operation::TcpProhibited`].
pub(crate) const PROHIBITED: u16 = 9;

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Udp => "udp",
            Self::UdpLife => "udp-life",
            Self::UdpSend => "udp-send",
            Self::Tcp => "tcp",
            Self::TcpProhibited => "tcp-prohibited",
            Self::Upload => "upload",
            Self::Download => "download",
            Self::LookUp => "look-up",
        })
    }
}

/// A batch of operations to random addresses among `spread` from `target` on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Batch {
    pub(crate) operation: Operation,
    pub(crate) count: u32,
    pub(crate) target: SocketAddrV4,
    pub(crate) spread: u32,
}

impl fmt::Display for Batch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {} {}", self.operation, self.count, self.target, self.spread)
    }
}

impl Batch {
    fn parse(line: &str) -> Option<Self> {
        let mut words = line.split_whitespace();
        let operation = match words.next()? {
            "udp" => Operation::Udp,
            "udp-life" => Operation::UdpLife,
            "udp-send" => Operation::UdpSend,
            "tcp" => Operation::Tcp,
            "tcp-prohibited" => Operation::TcpProhibited,
            "upload" => Operation::Upload,
            "download" => Operation::Download,
            "look-up" => Operation::LookUp,
            _ => return None,
        };
        let (count, target, spread) =
            (words.next()?.parse().ok()?, words.next()?.parse().ok()?, words.next()?.parse().ok()?);
        Some(Self { operation, count, target, spread })
    }
}

/// A wait for a change: connects until the server answers at an address that ends with an octet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Obedience {
    pub(crate) octet: u8,
    pub(crate) target: SocketAddrV4,
    /// Before each connect, the client looks up the route's name there, and connects to the answer.
    pub(crate) lookup: Option<(SocketAddrV4, u32)>,
}

impl Obedience {
    const WORD: &str = "obey";
    /// With 50,000 routes a command takes seconds on a busy machine.
    const LIMIT: Duration = Duration::from_secs(120);
    /// Leaves the core to the commands that make the change.
    const PAUSE: Duration = Duration::from_micros(200);

    fn parse(line: &str) -> Option<Self> {
        let mut words = line.strip_prefix(Self::WORD)?.split_whitespace();
        let (octet, target) = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
        let lookup = match (words.next(), words.next()) {
            (Some(resolver), Some(route)) => Some((resolver.parse().ok()?, route.parse().ok()?)),
            _ => None,
        };
        Some(Self { octet, target, lookup })
    }

    /// When the first connect began that had the wanted answer.
    fn wait(&self) -> Result<u64> {
        let deadline = Instant::now() + Self::LIMIT;
        let mut target = self.target;
        while Instant::now() < deadline {
            let began = clock::now_us();
            if let Some((resolver, route)) = self.lookup {
                let found = lookup::addresses(resolver, &lookup::name(route), LOOKUP_LIMIT)?;
                target.set_ip(*found.first().context("the name has no address")?);
            }
            if which(&target)? == self.octet {
                return Ok(began);
            }
            thread::sleep(Self::PAUSE);
        }
        bail!("no server at .{} answered within {:?}", self.octet, Self::LIMIT)
    }
}

impl fmt::Display for Obedience {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}", Self::WORD, self.octet, self.target)?;
        let Some((resolver, route)) = self.lookup else { return Ok(()) };
        write!(f, " {resolver} {route}")
    }
}

/// What to do with connections that stay open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Held {
    Open(u32, SocketAddrV4),
    Count,
    Close(SocketAddrV4),
}

impl Held {
    fn parse(line: &str) -> Option<Self> {
        let mut words = line.split_whitespace();
        Some(match words.next()? {
            "open" => Self::Open(words.next()?.parse().ok()?, words.next()?.parse().ok()?),
            "count" => Self::Count,
            "close" => Self::Close(words.next()?.parse().ok()?),
            _ => return None,
        })
    }

    /// The number of connections that are open afterwards.
    fn perform(self, held: &mut Vec<OwnedFd>) -> Result<usize> {
        match self {
            Self::Open(count, target) => {
                for _ in 0..count {
                    let socket = new_socket(SocketType::STREAM)?;
                    connect(&socket, &target).context("connect")?;
                    ask(&socket, HOLD)?;
                    held.push(socket);
                }
                Ok(held.len())
            }
            Self::Count => Ok(held.iter().filter(|socket| is_open(socket)).count()),
            Self::Close(target) => {
                held.clear();
                let socket = new_socket(SocketType::STREAM)?;
                connect(&socket, &target).context("connect")?;
                ask(&socket, RELEASE)?;
                Ok(0)
            }
        }
    }
}

impl fmt::Display for Held {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Open(count, target) => write!(f, "open {count} {target}"),
            Self::Count => f.write_str("count"),
            Self::Close(target) => write!(f, "close {target}"),
        }
    }
}

/// Whether the other side has not ended the connection.
fn is_open(socket: &OwnedFd) -> bool {
    recv(socket, &mut [0], RecvFlags::DONTWAIT) == Err(rustix::io::Errno::AGAIN)
}

/// Longest time of a look-up.
const LOOKUP_LIMIT: Duration = Duration::from_secs(5);

/// A client or server process.
#[derive(Debug)]
pub(crate) struct Worker {
    child: Child,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
}

impl Worker {
    /// Starts a client in `sandbox`.
    pub(crate) fn client(sandbox: &Sandbox, core: usize) -> Result<Self> {
        Self::start(sandbox, core, &["measure"])
    }

    /// Starts a server in `sandbox`; returns also the port that it listens on at every address. It
    /// serves one connection at a time.
    pub(crate) fn server(sandbox: &Sandbox, core: usize) -> Result<(Self, u16)> {
        Self::server_of(sandbox, core, 1)
    }

    /// The same with so many threads.
    pub(crate) fn server_of(sandbox: &Sandbox, core: usize, threads: usize) -> Result<(Self, u16)> {
        let threads = format!("--threads={threads}");
        let mut server = Self::start(sandbox, core, &["serve", &threads])?;
        let port = server.line()?.parse().context("failed to read the server's port")?;
        Ok((server, port))
    }

    fn start(sandbox: &Sandbox, core: usize, role: &[&str]) -> Result<Self> {
        let mut command =
            sandbox.command(binaries::find("redirector-bench", "redirector-bench", "bench/src")?);
        command.args(role).stdin(Stdio::piped()).stdout(Stdio::piped());
        pin(&mut command, core);
        let mut child = command.spawn().context("failed to start a process to measure")?;
        let (stdin, stdout) =
            (child.stdin.take().context("no pipe")?, child.stdout.take().context("no pipe")?);
        Ok(Self { child, stdin, stdout: BufReader::new(stdout) })
    }

    /// Runs a batch; returns the nanoseconds per operation.
    pub(crate) fn run(&mut self, batch: Batch) -> Result<f64> {
        writeln!(self.stdin, "{batch}").context("failed to send a batch to a client")?;
        let answer = self.line()?;
        let total: u64 = answer
            .parse()
            .map_err(|_| anyhow::anyhow!("a client failed at `{batch}`: {answer}"))?;
        Ok(total as f64 / f64::from(batch.count))
    }

    /// Opens connections, which stay open until [`Worker::release`].
    pub(crate) fn hold(&mut self, count: u32, target: SocketAddrV4) -> Result<()> {
        self.held(Held::Open(count, target)).map(drop)
    }

    /// How many of the held connections are still open.
    pub(crate) fn alive(&mut self) -> Result<u32> {
        self.held(Held::Count)
    }

    /// Closes the held connections.
    pub(crate) fn release(&mut self, target: SocketAddrV4) -> Result<()> {
        self.held(Held::Close(target)).map(drop)
    }

    fn held(&mut self, command: Held) -> Result<u32> {
        writeln!(self.stdin, "{command}").context("failed to send a command to a client")?;
        let answer = self.line()?;
        answer.parse().map_err(|_| anyhow::anyhow!("a client failed at `{command}`: {answer}"))
    }

    /// Lets the client connect until the server that answers has the address `wanted.octet`; then
    /// [`Worker::obeyed`] returns.
    pub(crate) fn begin(&mut self, wanted: Obedience) -> Result<()> {
        writeln!(self.stdin, "{wanted}").context("failed to send a command to a client")
    }

    /// When the first connect began that had the wanted answer: see [`clock::now_us`].
    pub(crate) fn obeyed(&mut self) -> Result<u64> {
        let answer = self.line()?;
        answer.parse().map_err(|_| anyhow::anyhow!("no connect obeyed: {answer}"))
    }

    fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        self.stdout.read_line(&mut line).context("failed to read from a measured process")?;
        ensure!(!line.is_empty(), "a measured process ended");
        Ok(line.trim().to_owned())
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Pins `command` to one core, with a high priority.
pub(crate) fn pin(command: &mut Command, core: usize) {
    let mut set = CpuSet::new();
    set.set(core);
    // SAFETY: the closure makes two system calls and allocates nothing.
    unsafe {
        command.pre_exec(move || {
            let _ = rustix::process::setpriority_process(None, NICENESS);
            Ok(sched_setaffinity(None, &set)?)
        });
    }
}

/// `redirector-bench measure`: answers each batch with its duration in nanoseconds.
pub fn measure() -> Result<()> {
    let mut seed = 0x9e37_79b9_u32;
    let mut held = Vec::new();
    allow_descriptors()?;
    for line in std::io::stdin().lines() {
        let line = line.context("failed to read a command")?;
        let answer = if let Some(wanted) = Obedience::parse(&line) {
            wanted.wait().map(|began| began.to_string())
        } else if let Some(command) = Held::parse(&line) {
            command.perform(&mut held).map(|open| open.to_string())
        } else {
            let batch = Batch::parse(&line).with_context(|| format!("not a batch: {line}"))?;
            perform(&batch, &mut seed).map(|nanoseconds| nanoseconds.to_string())
        };
        println!("{}", answer.unwrap_or_else(|error| format!("{error:#}")));
    }
    Ok(())
}

fn perform(batch: &Batch, seed: &mut u32) -> Result<u128> {
    let open_socket = new_socket(SocketType::DGRAM)?;
    if batch.operation == Operation::LookUp {
        return look_up(batch, seed);
    }
    let mut target = || {
        let offset = random(seed, batch.spread);
        SocketAddrV4::new((batch.target.ip().to_bits() + offset).into(), batch.target.port())
    };
    let started = Instant::now();
    if matches!(batch.operation, Operation::Upload | Operation::Download) {
        transfer(&target(), batch)?;
        return Ok(started.elapsed().as_nanos());
    }
    for _ in 0..batch.count {
        match batch.operation {
            Operation::Udp => connect_udp(open_socket.as_raw_fd(), target())?,
            Operation::UdpLife => {
                let socket = new_socket(SocketType::DGRAM)?;
                connect_udp(socket.as_raw_fd(), target())?;
            }
            Operation::UdpSend => {
                sendto(&open_socket, b"?", SendFlags::empty(), &target()).context("sendto")?;
            }
            Operation::Tcp => exchange(&target())?,
            Operation::Upload | Operation::Download | Operation::LookUp => {
                unreachable!("one socket for all")
            }
            Operation::TcpProhibited => {
                let socket = new_socket(SocketType::STREAM)?;
                let refused =
                    connect_bare(socket.as_raw_fd(), SocketAddrV4::new(*target().ip(), PROHIBITED));
                ensure!(
                    refused.is_err_and(|error| error.raw_os_error() == Some(libc::EACCES)),
                    "a connect that routing prohibits succeeded"
                );
            }
        }
    }
    Ok(started.elapsed().as_nanos())
}

/// A number below `limit`: xorshift32, whose product's bias is far below the noise.
fn random(seed: &mut u32, limit: u32) -> u32 {
    *seed ^= *seed << 13;
    *seed ^= *seed >> 17;
    *seed ^= *seed << 5;
    ((u64::from(*seed) * u64::from(limit)) >> 32) as u32
}

/// Looks names up, one after the other, over one socket.
fn look_up(batch: &Batch, seed: &mut u32) -> Result<u128> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).context("bind")?;
    socket.connect(batch.target).context("connect")?;
    socket.set_read_timeout(Some(LOOKUP_LIMIT)).context("setsockopt")?;
    let names: Vec<_> =
        (0..batch.count).map(|_| lookup::name(random(seed, batch.spread))).collect();
    let started = Instant::now();
    for name in &names {
        let found = lookup::ask(&socket, name)?;
        ensure!(!found.is_empty(), "{name} has no address");
    }
    Ok(started.elapsed().as_nanos())
}

/// The last octet of the address at which the server answers. Whatever leads there, the client's
/// peer is the target.
fn which(target: &SocketAddrV4) -> Result<u8> {
    let socket = new_socket(SocketType::STREAM)?;
    connect(&socket, target).context("connect")?;
    let peer = getpeername(&socket).context("getpeername")?;
    let peer = peer.context("the peer has no name")?;
    ensure!(
        SocketAddr::try_from(peer) == Ok((*target).into()),
        "getpeername does not return {target}"
    );
    ask(&socket, WHICH)
}

/// Sends a byte; returns the server's.
fn ask(socket: &OwnedFd, byte: u8) -> Result<u8> {
    send(socket, &[byte], SendFlags::NOSIGNAL).context("send")?;
    let mut answer = [0];
    let (length, _) = recv(socket, &mut answer, RecvFlags::empty()).context("recv")?;
    ensure!(length == 1, "the server closed the connection");
    Ok(answer[0])
}

/// Allows as many descriptors as this process may have.
fn allow_descriptors() -> Result<()> {
    let maximum = getrlimit(Resource::Nofile).maximum;
    setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum })
        .context("failed to allow more descriptors")
}

fn connect_udp(socket: i32, target: SocketAddrV4) -> Result<()> {
    connect_bare(socket, target).context("connect")
}

/// The bare system call: it takes about 300 ns, which a wrapper would distort, above all in a debug
/// build.
fn connect_bare(socket: i32, target: SocketAddrV4) -> std::io::Result<()> {
    let address = libc::sockaddr_in {
        sin_family: libc::AF_INET as u16,
        sin_port: target.port().to_be(),
        sin_addr: libc::in_addr { s_addr: target.ip().to_bits().to_be() },
        sin_zero: [0; 8],
    };
    // SAFETY: the address is a whole `sockaddr_in`, which outlives the call.
    let result = unsafe {
        libc::connect(socket, (&raw const address).cast(), size_of_val(&address) as libc::socklen_t)
    };
    if result == 0 { Ok(()) } else { Err(std::io::Error::last_os_error()) }
}

/// The server closes first, so that the client's ports are free again at once.
fn exchange(target: &SocketAddrV4) -> Result<()> {
    let mut byte = [0];
    let socket = new_socket(SocketType::STREAM)?;
    connect(&socket, target).context("connect")?;
    send(&socket, b"?", SendFlags::NOSIGNAL).context("send")?;
    let (answer, _) = recv(&socket, &mut byte, RecvFlags::empty()).context("recv")?;
    let (end, _) = recv(&socket, &mut byte, RecvFlags::empty()).context("recv")?;
    ensure!((answer, end) == (1, 0), "expected one byte and the end, got {answer} and {end}");
    Ok(())
}

/// Moves the blocks of a batch; it ends when the other side has them all.
fn transfer(target: &SocketAddrV4, batch: &Batch) -> Result<()> {
    let socket = new_socket(SocketType::STREAM)?;
    connect(&socket, target).context("connect")?;
    let mut block = vec![0; BLOCK];
    if batch.operation == Operation::Upload {
        send_all(&socket, &[UPLOAD])?;
        for _ in 0..batch.count {
            send_all(&socket, &block)?;
        }
        shutdown(&socket, Shutdown::Write).context("shutdown")?;
        let (end, _) = recv(&socket, &mut block[..1], RecvFlags::empty()).context("recv")?;
        ensure!(end == 1, "the server did not confirm the end");
        return Ok(());
    }
    send_all(&socket, &[&[DOWNLOAD][..], &batch.count.to_le_bytes()].concat())?;
    let mut received = 0;
    while let (length @ 1.., _) = recv(&socket, &mut block, RecvFlags::empty()).context("recv")? {
        received += length;
    }
    ensure!(received == batch.count as usize * BLOCK, "received {received} bytes");
    Ok(())
}

/// The server's side of [`transfer`], after the first byte.
fn serve_transfer(connection: &OwnedFd, first: u8) -> Result<()> {
    let mut block = vec![0; BLOCK];
    if first == UPLOAD {
        while let (1.., _) = recv(connection, &mut block, RecvFlags::empty())? {}
        return send_all(connection, b"!");
    }
    let mut count = [0; 4];
    let (length, _) = recv(connection, &mut count, RecvFlags::WAITALL)?;
    ensure!(length == count.len(), "a client ended early");
    (0..u32::from_le_bytes(count)).try_for_each(|_| send_all(connection, &block))
}

fn send_all(socket: &OwnedFd, mut bytes: &[u8]) -> Result<()> {
    while !bytes.is_empty() {
        let sent = send(socket, bytes, SendFlags::NOSIGNAL).context("send")?;
        bytes = &bytes[sent..];
    }
    Ok(())
}

fn new_socket(kind: SocketType) -> Result<OwnedFd> {
    socket_with(AddressFamily::INET, kind, SocketFlags::CLOEXEC, None).context("socket")
}

/// Options of the server.
#[derive(Clone, Copy, Debug, clap::Args)]
pub struct ServeOptions {
    /// How many connections are served at the same time
    #[arg(long, default_value_t = 1)]
    pub threads: usize,
}

/// A client that sends nothing for so long is given up: its packets may be dropped.
const SILENCE: Duration = Duration::from_secs(2);

/// `redirector-bench serve`: answers one byte with one byte and closes, or moves blocks, or keeps
/// the connection.
pub fn serve(options: ServeOptions) -> Result<()> {
    let listener = new_socket(SocketType::STREAM)?;
    bind(&listener, &SocketAddr::from(([0, 0, 0, 0], 0))).context("failed to bind")?;
    // Connections inherit it.
    set_socket_timeout(&listener, Timeout::Recv, Some(SILENCE)).context("failed to set a limit")?;
    listen(&listener, 1024).context("failed to listen")?;
    let Ok(SocketAddr::V4(address)) =
        SocketAddr::try_from(getsockname(&listener).context("failed to read the port")?)
    else {
        bail!("the listener has no IPv4 address");
    };
    allow_descriptors()?;
    println!("{}", address.port());
    let held = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for _ in 1..options.threads {
            scope.spawn(|| serve_connections(&listener, &held));
        }
        serve_connections(&listener, &held)
    })
}

/// Serves one connection after the other.
fn serve_connections(listener: &OwnedFd, held: &Mutex<Vec<OwnedFd>>) -> Result<()> {
    let held = || held.lock().unwrap_or_else(PoisonError::into_inner);
    loop {
        let connection = match accept(listener) {
            Err(rustix::io::Errno::AGAIN) => continue,
            accepted => accepted.context("failed to accept")?,
        };
        let mut byte = [0];
        let Ok(_) = recv(&connection, &mut byte, RecvFlags::empty()) else { continue };
        // A client that disconnects early reports the error itself.
        let _ = match byte[0] {
            UPLOAD | DOWNLOAD => serve_transfer(&connection, byte[0]),
            WHICH => own_octet(&connection).and_then(|octet| send_all(&connection, &[octet])),
            HOLD => {
                let sent = send_all(&connection, &byte);
                held().push(connection);
                sent
            }
            RELEASE => {
                held().clear();
                send_all(&connection, &byte)
            }
            _ => send_all(&connection, &byte),
        };
    }
}

/// The last octet of the address that a client reached.
fn own_octet(connection: &OwnedFd) -> Result<u8> {
    match SocketAddr::try_from(getsockname(connection).context("failed to read an address")?) {
        Ok(SocketAddr::V4(address)) => Ok(address.ip().octets()[3]),
        _ => bail!("a connection has no IPv4 address"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_printed_command_for_held_connections_parses_to_itself() {
        let target = "198.18.0.1:443".parse().unwrap();
        for command in [Held::Open(7, target), Held::Count, Held::Close(target)] {
            assert_eq!(Held::parse(&command.to_string()), Some(command));
        }
    }

    #[test]
    fn a_printed_wait_for_a_change_parses_to_itself() {
        let target = "198.18.0.1:443".parse().unwrap();
        for lookup in [None, Some(("127.0.0.1:53".parse().unwrap(), 9))] {
            let wanted = Obedience { octet: 8, target, lookup };
            assert_eq!(Obedience::parse(&wanted.to_string()), Some(wanted));
        }
    }

    #[test]
    fn a_printed_batch_parses_to_itself() {
        let batch = Batch {
            operation: Operation::UdpLife,
            count: 12,
            target: "198.18.0.1:443".parse().unwrap(),
            spread: 65_534,
        };
        assert_eq!(Batch::parse(&batch.to_string()), Some(batch));
        assert_eq!(Batch::parse("tcp 12"), None);
    }
}
