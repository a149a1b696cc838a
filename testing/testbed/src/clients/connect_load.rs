//! `testbed-client connect`: plain TCP connects at a steady rate, each one checked.

use std::collections::BTreeMap;
use std::io::Read;
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Result;
use serde::{Deserialize, Serialize};

use super::errno::errno_name;

/// Connecting threads; a connect that hangs occupies one of them for [`CONNECT_TIMEOUT`].
const THREADS: usize = 48;
/// Longest time for a connect, and again for the banner.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Failures that a report lists with their time.
const SHOWN: usize = 10;

/// Options of the load.
#[derive(Clone, Debug, clap::Args)]
pub struct LoadOptions {
    /// Address and port to connect to.
    #[arg(long)]
    pub target: SocketAddr,
    /// Connects a second.
    #[arg(long, default_value_t = 1000)]
    pub rate: u32,
    /// For how many seconds.
    #[arg(long, default_value_t = 5.0)]
    pub seconds: f64,
    /// The expected result of getpeername [default: the target]
    #[arg(long)]
    pub expect_peer: Option<SocketAddr>,
    /// A banner that a server may send; repeatable [default: any]
    #[arg(long)]
    pub expect_banner: Vec<String>,
}

impl LoadOptions {
    /// Connects to the greeting servers with these banners, whatever their getpeername.
    pub fn greeted_by(banners: &[&str], target: SocketAddr, rate: u32, seconds: f64) -> Self {
        let expect_banner = banners.iter().map(|&banner| banner.to_owned()).collect();
        Self { target, rate, seconds, expect_peer: None, expect_banner }
    }
}

/// The result. Every attempt is in exactly one of `connected` and `failed`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct LoadReport {
    /// Connects begun.
    pub attempted: u64,
    /// Connects that succeeded.
    pub connected: u64,
    /// Connects that failed, by errno.
    pub failed: BTreeMap<String, u64>,
    /// Connections whose getpeername was not the expected one.
    pub wrong_peer: u64,
    /// Connections by banner.
    pub banners: BTreeMap<String, u64>,
    /// Connections that ended without a whole banner, by errno or `end of stream`.
    pub ungreeted: BTreeMap<String, u64>,
    /// Connections with a banner that is not allowed.
    pub wrong_banner: u64,
    /// The first failures: seconds since the start, and the error.
    pub failures: Vec<(f64, String)>,
    /// Wall clock, in seconds.
    pub seconds: f64,
    /// Median time in connect(), in microseconds.
    pub median_us: u64,
    /// 99th percentile of the time in connect(), in microseconds.
    pub p99_us: u64,
    /// Longest time in connect(), in microseconds.
    pub slowest_us: u64,
}

impl LoadReport {
    /// Whether every connect succeeded with an allowed banner and the expected peer.
    pub fn flawless(&self) -> bool {
        self.attempted > 0
            && self.connected == self.attempted
            && self.wrong_peer == 0
            && self.wrong_banner == 0
            && self.ungreeted.is_empty()
            && self.banners.values().sum::<u64>() == self.attempted
    }

    fn merge(&mut self, other: Self) {
        self.attempted += other.attempted;
        self.connected += other.connected;
        self.wrong_peer += other.wrong_peer;
        self.wrong_banner += other.wrong_banner;
        self.failures.extend(other.failures);
        for (mine, theirs) in [
            (&mut self.failed, other.failed),
            (&mut self.banners, other.banners),
            (&mut self.ungreeted, other.ungreeted),
        ] {
            for (key, count) in theirs {
                *mine.entry(key).or_default() += count;
            }
        }
    }
}

/// Runs the load that `options` describe, from the calling process.
pub fn connect(options: &LoadOptions) -> Result<LoadReport> {
    anyhow::ensure!(
        options.rate > 0 && options.seconds > 0.0,
        "the rate and the time must be above zero"
    );
    let total = (f64::from(options.rate) * options.seconds).ceil() as u64;
    let (next, start) = (AtomicU64::new(0), Instant::now());
    let parts = thread::scope(|scope| {
        let workers: Vec<_> = (0..THREADS)
            .map(|_| scope.spawn(|| connect_in_turn(options, &next, total, start)))
            .collect();
        workers.into_iter().map(|worker| worker.join()).collect::<Vec<_>>()
    });
    let (mut report, mut latencies) = (LoadReport::default(), Vec::new());
    for part in parts {
        let (partial, times) = part.map_err(|_| anyhow::anyhow!("a connecting thread panicked"))?;
        report.merge(partial);
        latencies.extend(times);
    }
    latencies.sort_unstable();
    let at = |hundredth: usize| {
        latencies.get((latencies.len().saturating_sub(1)) * hundredth / 100).copied().unwrap_or(0)
    };
    (report.median_us, report.p99_us, report.slowest_us) = (at(50), at(99), at(100));
    report.failures.sort_by(|a, b| a.0.total_cmp(&b.0));
    report.failures.truncate(SHOWN);
    report.seconds = start.elapsed().as_secs_f64();
    Ok(report)
}

/// Makes connects at their scheduled times until there are no more.
fn connect_in_turn(
    options: &LoadOptions,
    next: &AtomicU64,
    total: u64,
    start: Instant,
) -> (LoadReport, Vec<u64>) {
    let (mut report, mut latencies) = (LoadReport::default(), Vec::new());
    loop {
        let number = next.fetch_add(1, Ordering::Relaxed);
        if number >= total {
            return (report, latencies);
        }
        let moment = start + Duration::from_secs_f64(number as f64 / f64::from(options.rate));
        thread::sleep(moment.saturating_duration_since(Instant::now()));
        let begun = Instant::now();
        report.attempted += 1;
        match TcpStream::connect_timeout(&options.target, CONNECT_TIMEOUT) {
            Ok(stream) => {
                latencies.push(u64::try_from(begun.elapsed().as_micros()).unwrap_or(u64::MAX));
                report.connected += 1;
                check(options, stream, &mut report, start);
            }
            Err(error) => {
                report.failures.push((start.elapsed().as_secs_f64(), errno_name(&error)));
                *report.failed.entry(errno_name(&error)).or_default() += 1;
            }
        }
    }
}

fn check(options: &LoadOptions, mut stream: TcpStream, report: &mut LoadReport, start: Instant) {
    if stream.peer_addr().ok() != Some(options.expect_peer.unwrap_or(options.target)) {
        report.wrong_peer += 1;
    }
    let mut text = String::new();
    let read = stream
        .set_read_timeout(Some(CONNECT_TIMEOUT))
        .and_then(|()| stream.read_to_string(&mut text));
    // The lines before the last one are an HTTP header, if anything.
    match (read, text.strip_suffix('\n').and_then(|text| text.lines().last())) {
        (Ok(_), Some(banner)) => {
            if !options.expect_banner.is_empty()
                && !options.expect_banner.iter().any(|expected| expected == banner)
            {
                report.wrong_banner += 1;
            }
            *report.banners.entry(banner.to_owned()).or_default() += 1;
        }
        (read, _) => {
            let why = read.map_or_else(|error| errno_name(&error), |_| "end of stream".to_owned());
            report
                .failures
                .push((start.elapsed().as_secs_f64(), format!("after connecting: {why}")));
            *report.ungreeted.entry(why).or_default() += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::net::TcpListener;

    use super::*;

    fn options(target: SocketAddr) -> LoadOptions {
        LoadOptions {
            target,
            rate: 500,
            seconds: 0.1,
            expect_peer: None,
            expect_banner: vec!["here".to_owned()],
        }
    }

    #[test]
    fn every_connect_is_counted_once_and_checked() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let target = listener.local_addr().unwrap();
        thread::spawn(move || {
            for (number, stream) in listener.incoming().enumerate() {
                let text: &[u8] = if number == 7 { b"elsewhere\n" } else { b"here\n" };
                stream.unwrap().write_all(text).unwrap();
            }
        });
        let report = connect(&options(target)).unwrap();
        assert_eq!(
            (report.attempted, report.connected, report.wrong_banner, report.wrong_peer),
            (50, 50, 1, 0),
            "{report:?}"
        );
        assert!(!report.flawless());
    }

    #[test]
    fn a_refused_connect_is_reported_with_errno_and_time() {
        let target = crate::unused_address();
        let report = connect(&options(target)).unwrap();
        assert_eq!(report.failed.get("ECONNREFUSED"), Some(&50), "{report:?}");
        assert_eq!((report.connected, report.failures.len()), (0, SHOWN));
    }

    #[test]
    fn an_unexpected_peer_is_counted() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut options = options(listener.local_addr().unwrap());
        options.expect_peer = Some("198.18.0.1:80".parse().unwrap());
        thread::spawn(move || {
            listener.incoming().for_each(|stream| stream.unwrap().write_all(b"here\n").unwrap())
        });
        assert_eq!(connect(&options).unwrap().wrong_peer, 50);
    }
}
