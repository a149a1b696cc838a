//! The measured client: carries out one command after the other.

use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, UdpSocket};
use std::os::fd::{AsRawFd, OwnedFd};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rustix::net::{
    RecvFlags, SendFlags, Shutdown, SocketType, connect, getpeername, recv, send, sendto, shutdown,
};

use super::command::{Batch, Held, Obedience, Operation};
use super::protocol::{BLOCK, DOWNLOAD, HOLD, RELEASE, UPLOAD, WHICH, ask, new_socket, send_all};
use crate::{clock, host, lookup};

/// The port that routing prohibits, for [`Operation::TcpProhibited`].
pub(crate) const PROHIBITED: u16 = 9;

/// Longest time of a look-up.
const LOOKUP_LIMIT: Duration = Duration::from_secs(5);

/// Longest wait for a change: with 50,000 routes a command takes seconds on a busy machine.
const OBEDIENCE_LIMIT: Duration = Duration::from_secs(120);
/// Leaves the core to the commands that make the change.
const PAUSE: Duration = Duration::from_micros(200);

/// `redirector-bench measure`: answers each batch with its duration in nanoseconds.
pub fn measure() -> Result<()> {
    let mut seed = 0x9e37_79b9_u32;
    let mut held = Vec::new();
    host::allow_descriptors()?;
    for line in std::io::stdin().lines() {
        let line = line.context("failed to read a command")?;
        let answer = if let Some(wanted) = Obedience::parse(&line) {
            obey(wanted).map(|began| began.to_string())
        } else if let Some(command) = Held::parse(&line) {
            hold(command, &mut held).map(|open| open.to_string())
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

/// When the first connect began that had the wanted answer.
fn obey(wanted: Obedience) -> Result<u64> {
    let Obedience { octet, mut target, lookup } = wanted;
    let deadline = Instant::now() + OBEDIENCE_LIMIT;
    while Instant::now() < deadline {
        let began = clock::now_us();
        if let Some((resolver, route)) = lookup {
            let found = lookup::addresses(resolver, &lookup::name(route), LOOKUP_LIMIT)?;
            target.set_ip(*found.first().context("the name has no address")?);
        }
        if which(&target)? == octet {
            return Ok(began);
        }
        thread::sleep(PAUSE);
    }
    bail!("no server at .{octet} answered within {OBEDIENCE_LIMIT:?}")
}

/// The number of connections that are open after the command.
fn hold(command: Held, held: &mut Vec<OwnedFd>) -> Result<usize> {
    match command {
        Held::Open(count, target) => {
            for _ in 0..count {
                let socket = new_socket(SocketType::STREAM)?;
                connect(&socket, &target).context("connect")?;
                ask(&socket, HOLD)?;
                held.push(socket);
            }
            Ok(held.len())
        }
        Held::Count => Ok(held.iter().filter(|socket| is_open(socket)).count()),
        Held::Close(target) => {
            held.clear();
            let socket = new_socket(SocketType::STREAM)?;
            connect(&socket, &target).context("connect")?;
            ask(&socket, RELEASE)?;
            Ok(0)
        }
    }
}

/// Whether the other side has not ended the connection.
fn is_open(socket: &OwnedFd) -> bool {
    recv(socket, &mut [0], RecvFlags::DONTWAIT) == Err(rustix::io::Errno::AGAIN)
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
