//! `testbed-client lookups`: look-ups at a steady rate, each one checked octet by octet, and none
//! of them repeated.
//!
//! A mapped name must have its virtual address, and the question as it was asked, in mixed case. An
//! unrelated name must have exactly the response of the scripted resolver
//! ([`crate::customer::resolver::response`]).

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::str::FromStr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use serde::{Deserialize, Serialize};

use super::errno::errno_name;
use crate::customer::resolver;

/// Threads; a look-up without an answer occupies one of them for [`ANSWER_TIMEOUT`].
const THREADS: usize = 16;
/// How long an answer may take: the first time-out of glibc.
pub(super) const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);
/// Failures that a report lists with their time.
const SHOWN: usize = 10;

/// A mapped name and its virtual address, as `NAME=ADDRESS`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mapped {
    /// The name.
    pub name: String,
    /// Its virtual address.
    pub address: Ipv4Addr,
}

impl FromStr for Mapped {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let (name, address) = text.split_once('=').context("expected NAME=ADDRESS")?;
        let address = address.parse().with_context(|| format!("not an address: {address}"))?;
        Ok(Self { name: name.to_owned(), address })
    }
}

/// Options of the load.
#[derive(Clone, Debug, clap::Args)]
pub struct LookupOptions {
    /// The resolver's address and port
    #[arg(long)]
    pub server: SocketAddr,
    /// Look-ups a second
    #[arg(long, default_value_t = 100)]
    pub rate: u32,
    /// For how many seconds
    #[arg(long, default_value_t = 5.0)]
    pub seconds: f64,
    /// A mapped name; repeatable
    #[arg(long, value_name = "NAME=ADDRESS")]
    pub mapped: Vec<Mapped>,
    /// A name that only the resolver knows; repeatable
    #[arg(long, value_name = "NAME")]
    pub unrelated: Vec<String>,
}

impl LookupOptions {
    /// The command line, as typed after `testbed-client`.
    pub fn arguments(&self) -> String {
        let mut line = format!(
            "lookups --server {} --rate {} --seconds {}",
            self.server, self.rate, self.seconds
        );
        for mapped in &self.mapped {
            line += &format!(" --mapped {}={}", mapped.name, mapped.address);
        }
        for name in &self.unrelated {
            line += &format!(" --unrelated {name}");
        }
        line
    }
}

/// The result. Every look-up is in exactly one of `right`, `wrong`, `lost` and `failed`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct LookupReport {
    /// Look-ups begun.
    pub sent: u64,
    /// Look-ups with the expected answer.
    pub right: u64,
    /// Look-ups with another answer.
    pub wrong: u64,
    /// Look-ups without an answer.
    pub lost: u64,
    /// Look-ups that could not be sent, or ended with an ICMP error, by errno.
    pub failed: BTreeMap<String, u64>,
    /// The first failures: seconds since the start, and what went wrong.
    pub failures: Vec<(f64, String)>,
    /// Longest time until an answer, in microseconds.
    pub slowest_us: u64,
}

impl LookupReport {
    /// Whether every look-up had its answer.
    pub fn flawless(&self) -> bool {
        self.sent > 0 && self.right == self.sent
    }

    fn merge(&mut self, other: Self) {
        self.sent += other.sent;
        self.right += other.right;
        self.wrong += other.wrong;
        self.lost += other.lost;
        self.failures.extend(other.failures);
        self.slowest_us = self.slowest_us.max(other.slowest_us);
        for (errno, count) in other.failed {
            *self.failed.entry(errno).or_default() += count;
        }
    }
}

/// Runs `testbed-client lookups`.
pub(crate) fn run(options: &LookupOptions) -> Result<LookupReport> {
    let names = options.mapped.len() + options.unrelated.len();
    ensure!(
        options.rate > 0 && options.seconds > 0.0 && names > 0,
        "the rate, the time and the number of names must be above zero"
    );
    let total = (f64::from(options.rate) * options.seconds).ceil() as u64;
    let (next, start) = (AtomicU64::new(0), Instant::now());
    let parts = thread::scope(|scope| {
        let workers: Vec<_> = (0..THREADS)
            .map(|_| scope.spawn(|| look_up_in_turn(options, &next, total, start)))
            .collect();
        workers.into_iter().map(|worker| worker.join()).collect::<Vec<_>>()
    });
    let mut report = LookupReport::default();
    for part in parts {
        report.merge(part.map_err(|_| anyhow!("a thread of look-ups panicked"))?);
    }
    report.failures.sort_by(|a, b| a.0.total_cmp(&b.0));
    report.failures.truncate(SHOWN);
    Ok(report)
}

fn look_up_in_turn(
    options: &LookupOptions,
    next: &AtomicU64,
    total: u64,
    start: Instant,
) -> LookupReport {
    let mut report = LookupReport::default();
    loop {
        let number = next.fetch_add(1, Ordering::Relaxed);
        if number >= total {
            return report;
        }
        let moment = start + Duration::from_secs_f64(number as f64 / f64::from(options.rate));
        thread::sleep(moment.saturating_duration_since(Instant::now()));
        let begun = Instant::now();
        report.sent += 1;
        let failure = match look_up(options, number) {
            Ok(None) => {
                report.right += 1;
                let took = u64::try_from(begun.elapsed().as_micros()).unwrap_or(u64::MAX);
                report.slowest_us = report.slowest_us.max(took);
                continue;
            }
            Ok(Some(wrong)) => {
                report.wrong += 1;
                wrong
            }
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                report.lost += 1;
                "lost".to_owned()
            }
            Err(error) => {
                *report.failed.entry(errno_name(&error)).or_default() += 1;
                errno_name(&error)
            }
        };
        report.failures.push((begun.duration_since(start).as_secs_f64(), failure));
    }
}

/// Makes the look-up of this number; `Some` describes a wrong answer.
fn look_up(options: &LookupOptions, number: u64) -> std::io::Result<Option<String>> {
    let names = options.mapped.len() + options.unrelated.len();
    let which = number as usize % names;
    let mapped = options.mapped.get(which);
    let name = match mapped {
        Some(mapped) => &mapped.name,
        None => &options.unrelated[which - options.mapped.len()],
    };
    let query = query(name, number);
    let (source, answer) = ask(options.server, &query, number)?;
    let right = source == options.server
        && match mapped {
            Some(mapped) => has_address(&query, &answer, mapped.address),
            None => resolver::response(&query) == Some(answer.clone()),
        };
    Ok((!right).then(|| format!("{name} from {source}: {answer:02x?}")))
}

/// Sends a query by UDP; returns the answer and where it came from. Every other socket is
/// connected, as those of glibc and Go; the others are as those of musl.
pub(super) fn ask(
    server: SocketAddr,
    query: &[u8],
    number: u64,
) -> std::io::Result<(SocketAddr, Vec<u8>)> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
    socket.set_read_timeout(Some(ANSWER_TIMEOUT))?;
    if number.is_multiple_of(2) {
        socket.connect(server)?;
        socket.send(query)?;
    } else {
        socket.send_to(query, server)?;
    }
    let mut packet = [0; 1500];
    let (length, source) = socket.recv_from(&mut packet)?;
    Ok((source, packet[..length].to_vec()))
}

/// A query for an A record, its ID and the case of its letters made from the look-up's number;
/// every third one has EDNS.
pub(super) fn query(name: &str, number: u64) -> Vec<u8> {
    let mixed = number.wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(17);
    let edns = number.is_multiple_of(3);
    let mut query = (mixed as u16).to_be_bytes().to_vec();
    query.extend([1, 0, 0, 1, 0, 0, 0, 0, 0, u8::from(edns)]);
    for label in name.split('.') {
        query.push(label.len() as u8);
        query.extend(label.bytes().enumerate().map(|(at, byte)| {
            if mixed >> (at % 60) & 1 == 1 { byte.to_ascii_uppercase() } else { byte }
        }));
    }
    query.extend([0, 0, 1, 0, 1]);
    if edns {
        query.extend([0, 0, 41, 4, 208, 0, 0, 0, 0, 0, 0]);
    }
    query
}

/// Whether `answer` has the question of `query` and this address as its only record.
pub(super) fn has_address(query: &[u8], answer: &[u8], address: Ipv4Addr) -> bool {
    let question_end = 12 + query[12..].iter().position(|octet| *octet == 0).unwrap_or(0) + 5;
    let Some(record) = answer.get(question_end..question_end + 16) else { return false };
    // The name is a pointer to the question's.
    answer[..2] == query[..2]
        && answer[2] & 0xfb == 0x81
        && answer[3] & 15 == 0
        && answer[4..8] == [0, 1, 0, 1]
        && answer[12..question_end] == query[12..question_end]
        && record[..6] == [0xc0, 12, 0, 1, 0, 1]
        && record[10..12] == [0, 4]
        && record[12..] == address.octets()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_with_another_address_or_case_is_wrong() {
        let address = Ipv4Addr::new(198, 18, 0, 1);
        let query = query("artifactory.internal.company.net", 5);
        let end = query.len();
        let mut answer = query.clone();
        answer[2] = 0x85;
        answer[7] = 1;
        answer.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 30, 0, 4, 198, 18, 0, 1]);
        assert!(has_address(&query, &answer, address));
        assert!(!has_address(&query, &answer, Ipv4Addr::new(198, 18, 0, 2)));
        answer[13] ^= 0x20;
        assert!(!has_address(&query, &answer, address));
        assert!(!has_address(&query, &answer[..end], address));
    }

    #[test]
    fn the_command_line_has_every_option() {
        let options = LookupOptions {
            server: "203.0.113.54:53".parse().unwrap(),
            rate: 10,
            seconds: 2.5,
            mapped: vec!["a.test=198.18.0.1".parse().unwrap()],
            unrelated: vec!["b.test".to_owned()],
        };
        assert_eq!(
            options.arguments(),
            "lookups --server 203.0.113.54:53 --rate 10 --seconds 2.5 --mapped a.test=198.18.0.1 \
                --unrelated b.test"
        );
    }
}
