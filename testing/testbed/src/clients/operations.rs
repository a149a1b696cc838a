//! `testbed-client operations`: connects and look-ups at steady rates, and a line for each, from
//! which an observer judges it later.

use std::io::{BufWriter, Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rustix::time::{ClockId, clock_gettime};

use super::errno::errno_name;
use super::lookups::{self, ANSWER_TIMEOUT};
use super::operation::{Operation, Outcome, Task, TaskKind};
use crate::customer::resolver;

/// Threads of a task for each of its operations a second, and at most: an operation that hangs
/// occupies one for seconds.
const THREADS: (f64, u32) = (0.2, 32);
/// Longest time for a connect, and again for the banner.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How often something is sent on a connection that is kept, and how many times.
const HELD: (Duration, u32) = (Duration::from_millis(400), 50);
/// An operation that is later than this is left out: a burst would not be the rate.
const LATENESS: Duration = Duration::from_millis(500);

/// Options of the operations.
#[derive(Clone, Debug, clap::Args)]
pub struct OperationsOptions {
    /// Operations of one kind; repeatable
    #[arg(long = "task", required = true, value_name = "RATE/KIND/TARGET[/NAME[=ADDRESS]]")]
    pub tasks: Vec<Task>,
}

/// Runs `testbed-client operations` until standard input ends.
pub(crate) fn run(options: OperationsOptions) -> Result<()> {
    ensure!(options.tasks.iter().all(|task| task.rate > 0), "the rates must be above zero");
    let (over, (lines, printed)) = (AtomicBool::new(false), channel::<Operation>());
    let started = Instant::now();
    thread::scope(|scope| {
        for (number, task) in options.tasks.iter().enumerate() {
            let next = std::sync::Arc::new(AtomicU64::new(0));
            for _ in 0..threads(task.rate) {
                let worker =
                    Worker { task, number, next: next.clone(), started, lines: lines.clone() };
                let over = &over;
                scope.spawn(move || worker.run(over));
            }
        }
        drop(lines);
        scope.spawn(|| {
            let _ = std::io::stdin().read_to_end(&mut Vec::new());
            over.store(true, Ordering::Relaxed);
        });
        let mut output = BufWriter::new(std::io::stdout().lock());
        while let Ok(operation) = printed.recv() {
            writeln!(output, "{operation}")?;
            for operation in printed.try_iter() {
                writeln!(output, "{operation}")?;
            }
            output.flush()?;
        }
        std::io::Result::Ok(())
    })
    .context("failed to print an operation")
}

fn threads(rate: u32) -> u32 {
    ((f64::from(rate) * THREADS.0).ceil() as u32).clamp(2, THREADS.1)
}

/// Now, in microseconds of `CLOCK_MONOTONIC`, as in [`Operation`].
#[must_use]
pub fn now_us() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    now.tv_sec as u64 * 1_000_000 + now.tv_nsec as u64 / 1000
}

/// One of the threads that share a task's schedule.
struct Worker<'a> {
    task: &'a Task,
    number: usize,
    next: std::sync::Arc<AtomicU64>,
    started: Instant,
    lines: Sender<Operation>,
}

impl Worker<'_> {
    fn run(&self, over: &AtomicBool) {
        while !over.load(Ordering::Relaxed) {
            let number = self.next.fetch_add(1, Ordering::Relaxed);
            let due = Duration::from_secs_f64(number as f64 / f64::from(self.task.rate));
            let elapsed = self.started.elapsed();
            if elapsed > due + LATENESS {
                continue;
            }
            thread::sleep(due.saturating_sub(elapsed));
            let start_us = now_us();
            let (outcome, detail) = perform(self.task, number, over);
            let took_us = now_us() - start_us;
            let operation = Operation { task: self.number, start_us, took_us, outcome, detail };
            if self.lines.send(operation).is_err() {
                return;
            }
        }
    }
}

fn perform(task: &Task, number: u64, over: &AtomicBool) -> (Outcome, String) {
    match task.kind {
        TaskKind::Connect | TaskKind::Direct => connect(task),
        TaskKind::Held => hold(task, number, over),
        TaskKind::Denied => denied(task),
        _ => look_up(task, number).unwrap_or_else(|error| (Outcome::Failed, errno_name(&error))),
    }
}

/// Connects, and checks getpeername; otherwise returns the end of the operation.
fn connected(task: &Task) -> Result<TcpStream, (Outcome, String)> {
    let stream = TcpStream::connect_timeout(&task.target, CONNECT_TIMEOUT)
        .map_err(|error| (Outcome::Failed, errno_name(&error)))?;
    match stream.peer_addr() {
        Ok(peer) if peer == task.target => Ok(stream),
        // A reset after the handshake takes the peer's name away.
        Err(error) => Err((Outcome::Ungreeted, errno_name(&error))),
        Ok(peer) => Err((Outcome::Wrong, format!("peer {peer}"))),
    }
}

fn hold(task: &Task, number: u64, over: &AtomicBool) -> (Outcome, String) {
    let mut stream = match connected(task) {
        Ok(stream) => stream,
        Err(end) => return end,
    };
    let mut exchange = |message: [u8; 8]| -> std::io::Result<bool> {
        stream.set_read_timeout(Some(CONNECT_TIMEOUT))?;
        stream.write_all(&message)?;
        let mut back = [0; 8];
        stream.read_exact(&mut back)?;
        Ok(back == message)
    };
    for round in 0..HELD.1 {
        match exchange((number << 32 | u64::from(round)).to_be_bytes()) {
            Ok(true) if over.load(Ordering::Relaxed) => break,
            Ok(true) => thread::sleep(HELD.0),
            Ok(false) => return (Outcome::Wrong, "other bytes came back".to_owned()),
            Err(error) => {
                let after = HELD.0.as_secs_f64() * f64::from(round);
                let text = format!("broken after {after:.1} s: {}", errno_name(&error));
                return (Outcome::Ungreeted, text);
            }
        }
    }
    (Outcome::Right, String::new())
}

fn connect(task: &Task) -> (Outcome, String) {
    let mut stream = match connected(task) {
        Ok(stream) => stream,
        Err(end) => return end,
    };
    let mut text = String::new();
    let read = stream
        .set_read_timeout(Some(CONNECT_TIMEOUT))
        .and_then(|()| stream.read_to_string(&mut text));
    match (read, text.strip_suffix('\n').and_then(|text| text.lines().last())) {
        (Ok(_), Some(banner)) => (Outcome::Right, banner.to_owned()),
        (Ok(_), None) => (Outcome::Ungreeted, "end of stream".to_owned()),
        (Err(error), _) => (Outcome::Ungreeted, errno_name(&error)),
    }
}

fn denied(task: &Task) -> (Outcome, String) {
    match TcpStream::connect_timeout(&task.target, CONNECT_TIMEOUT) {
        Ok(_) => (Outcome::Wrong, "connected".to_owned()),
        // Below Linux 6.1 the programs cannot choose the error.
        Err(error) if matches!(error.raw_os_error(), Some(libc::ECONNREFUSED | libc::EPERM)) => {
            (Outcome::Right, errno_name(&error))
        }
        Err(error) => (Outcome::Failed, errno_name(&error)),
    }
}

fn look_up(task: &Task, number: u64) -> std::io::Result<(Outcome, String)> {
    let name = task.name.as_deref().unwrap_or_default();
    let at_shim = matches!(task.kind, TaskKind::ShimUdp | TaskKind::ShimTcp);
    // Every third query has EDNS, whose options the shim need not pass on.
    let query = lookups::query(name, if at_shim { number * 3 + 1 } else { number });
    let (source, answer) = match task.kind {
        TaskKind::Tcp | TaskKind::ShimTcp => (task.target, ask_by_tcp(task, &query)?),
        _ => lookups::ask(task.target, &query, number)?,
    };
    let right = source == task.target
        && match task.address {
            Some(address) if answer.len() >= query.len() => {
                lookups::has_address(&query, &answer, address)
            }
            Some(_) => false,
            None if at_shim => ends_with_address(&query, &answer, resolver::address(name)),
            None => resolver::response(&query) == Some(answer.clone()),
        };
    match right {
        true => Ok((Outcome::Right, String::new())),
        // What a shim answers that has no resolver left.
        false if is_servfail(&query, &answer) => Ok((Outcome::Failed, "SERVFAIL".to_owned())),
        false => Ok((Outcome::Wrong, format!("from {source}: {answer:02x?}"))),
    }
}

fn ask_by_tcp(task: &Task, query: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect_timeout(&task.target, ANSWER_TIMEOUT)?;
    stream.set_read_timeout(Some(ANSWER_TIMEOUT))?;
    stream.write_all(&[&(query.len() as u16).to_be_bytes(), query].concat())?;
    let mut length = [0; 2];
    stream.read_exact(&mut length)?;
    let mut answer = vec![0; usize::from(u16::from_be_bytes(length))];
    stream.read_exact(&mut answer)?;
    Ok(answer)
}

/// Whether `answer` has the ID and the question of `query`, and this address at its end.
fn ends_with_address(query: &[u8], answer: &[u8], address: Ipv4Addr) -> bool {
    answer.len() > query.len()
        && answer[..2] == query[..2]
        && answer[12..query.len()] == query[12..]
        && answer.ends_with(&address.octets())
}

fn is_servfail(query: &[u8], answer: &[u8]) -> bool {
    answer.len() >= 12 && answer[..2] == query[..2] && answer[3] & 15 == 2
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    fn task(kind: &str, target: &str) -> Task {
        format!("1/{kind}/{target}").parse().unwrap()
    }

    #[test]
    fn a_connect_reports_the_banner_or_what_went_wrong() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let target = listener.local_addr().unwrap().to_string();
        thread::spawn(move || {
            for text in ["HTTP/1.0 200 OK\r\n\r\nlb1\n", "", "lb1\n"] {
                listener.accept().unwrap().0.write_all(text.as_bytes()).unwrap();
            }
        });
        let connect = task("connect", &target);
        assert_eq!(
            perform(&connect, 0, &AtomicBool::new(false)),
            (Outcome::Right, "lb1".to_owned())
        );
        assert_eq!(
            perform(&connect, 0, &AtomicBool::new(false)),
            (Outcome::Ungreeted, "end of stream".to_owned())
        );
        assert_eq!(perform(&task("denied", &target), 0, &AtomicBool::new(false)).0, Outcome::Wrong);
        let (outcome, errno) = perform(&task("denied", "127.0.0.1:1"), 0, &AtomicBool::new(false));
        assert_eq!((outcome, errno.as_str()), (Outcome::Right, "ECONNREFUSED"));
        assert_eq!(
            perform(&task("connect", "127.0.0.1:1"), 0, &AtomicBool::new(false)).0,
            Outcome::Failed
        );
    }

    #[test]
    fn a_kept_connection_that_breaks_or_lies_is_reported() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let held = task("held", &listener.local_addr().unwrap().to_string());
        thread::spawn(move || {
            let mut bytes = [0; 8];
            let (mut stream, _) = listener.accept().unwrap();
            stream.read_exact(&mut bytes).unwrap();
            stream.write_all(&bytes).unwrap();
            drop(stream);
            let (mut stream, _) = listener.accept().unwrap();
            stream.write_all(b"another!").unwrap();
            let _ = stream.read(&mut bytes);
        });
        let (outcome, text) = perform(&held, 0, &AtomicBool::new(false));
        assert!(outcome == Outcome::Ungreeted && text.starts_with("broken after 0.4 s"), "{text}");
        assert_eq!(perform(&held, 0, &AtomicBool::new(false)).0, Outcome::Wrong);
    }

    #[test]
    fn the_shims_answer_needs_id_question_and_address() {
        let query = lookups::query("www.example.test", 1);
        let mut answer = query.clone();
        answer.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 9, 0, 4, 192, 0, 2, 7]);
        let address = Ipv4Addr::new(192, 0, 2, 7);
        assert!(ends_with_address(&query, &answer, address));
        assert!(!ends_with_address(&query, &answer, Ipv4Addr::new(192, 0, 2, 8)));
        answer[0] ^= 1;
        assert!(!ends_with_address(&query, &answer, address));
        assert!(!is_servfail(&query, &answer));
    }
}
