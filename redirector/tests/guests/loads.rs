//! Steady look-ups and connects in several guests at once.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use testbed::clients::{self, LoadOptions, LoadReport, LookupReport};
use testbed::guests::Guest;
use testbed::topology::{INTERNAL_NAME, RESOLVER_ADDRESS};

use crate::field::{Field, LIMIT, client};

/// Seconds of a load that is repeated.
const ROUND: f64 = 2.0;

/// A guest with its name and the rate of its look-ups, and of its connects, per second.
pub(crate) struct Loaded<'a> {
    pub(crate) name: &'static str,
    pub(crate) guest: &'a dyn Guest,
    pub(crate) rate: u32,
}

/// The sum of a guest's loads, all of them without a failure.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Sum {
    pub(crate) lookups: u64,
    pub(crate) connects: u64,
    /// The slowest look-up, in microseconds.
    pub(crate) slowest_us: u64,
}

impl fmt::Display for Sum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { lookups, connects, slowest_us } = self;
        write!(f, "{lookups} look-ups and {connects} connects, none failed; ")?;
        write!(f, "the slowest look-up took {:.1} ms", *slowest_us as f64 / 1000.0)
    }
}

/// Runs look-ups and connects in every guest for `seconds` while `act` runs. Every answer must be
/// right, and every connect must arrive.
pub(crate) fn for_seconds(field: &Field, guests: &[Loaded<'_>], seconds: f64, act: impl FnOnce()) {
    let line = line(field, seconds);
    thread::scope(|scope| {
        let loads: Vec<_> = guests
            .iter()
            .map(|loaded| {
                let line = line(loaded.rate);
                scope.spawn(move || (loaded.name, round(loaded, &line, seconds)))
            })
            .collect();
        act();
        for load in loads {
            let (name, sum) = load.join().unwrap();
            println!("{name}: {sum}");
        }
    });
}

/// The same, round after round until `act` has returned.
pub(crate) fn meanwhile(field: &Field, guests: &[Loaded<'_>], act: impl FnOnce()) {
    let line = line(field, ROUND);
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        let loads: Vec<_> = guests
            .iter()
            .map(|loaded| {
                let (line, over) = (line(loaded.rate), &over);
                scope.spawn(move || {
                    let mut sum = Sum::default();
                    while !over.load(Ordering::Relaxed) {
                        let round = round(loaded, &line, ROUND);
                        sum.lookups += round.lookups;
                        sum.connects += round.connects;
                        sum.slowest_us = sum.slowest_us.max(round.slowest_us);
                    }
                    (loaded.name, sum)
                })
            })
            .collect();
        act();
        over.store(true, Ordering::Relaxed);
        for load in loads {
            let (name, sum) = load.join().unwrap();
            println!("{name}: {sum}");
        }
    });
}

/// Makes the line of shell that runs both loads side by side, for a rate.
fn line(field: &Field, seconds: f64) -> impl Fn(u32) -> String {
    let lookups = field.lookups(RESOLVER_ADDRESS, 1, seconds);
    let target = (field.vip(INTERNAL_NAME), 8080).into();
    let connects = LoadOptions::greeted_by(&["lb1", "lb2"], target, 1, seconds);
    move |rate| {
        let mut lookups = lookups.clone();
        lookups.rate = rate;
        let connects = clients::arguments(&LoadOptions { rate, ..connects.clone() }).join(" ");
        format!(
            "d=$(mktemp -d); {0} {1} >$d/lookups & {0} {connects} >$d/connects; wait; \
             cat $d/lookups $d/connects; rm -r $d",
            client(),
            lookups.arguments(),
        )
    }
}

fn round(loaded: &Loaded<'_>, line: &str, seconds: f64) -> Sum {
    let limit = LIMIT + Duration::from_secs_f64(seconds);
    let seen = loaded.guest.run(line, limit).unwrap().text();
    let (lookups, connects) =
        seen.trim().split_once('\n').unwrap_or_else(|| panic!("{}: {seen}", loaded.name));
    let unreadable = |error| -> ! { panic!("{}: {error}: {seen}", loaded.name) };
    let lookups: LookupReport =
        serde_json::from_str(lookups).unwrap_or_else(|error| unreadable(error));
    let connects: LoadReport =
        serde_json::from_str(connects).unwrap_or_else(|error| unreadable(error));
    assert!(lookups.flawless(), "{}: {lookups:?}", loaded.name);
    assert!(connects.flawless(), "{}: {connects:?}", loaded.name);
    Sum { lookups: lookups.sent, connects: connects.attempted, slowest_us: lookups.slowest_us }
}
