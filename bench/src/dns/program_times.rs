//! The time of the program that answers names, by kind of name, with the names of a full pool.

use std::{
    net::Ipv4Addr,
    os::fd::{AsFd as _, BorrowedFd, OwnedFd},
};

use anyhow::Result;

use crate::{
    bpf::{self, Packet},
    guests::frames,
    lookup,
    packets::{EXACT, WILDCARDS, exact_name, wildcard_suffix},
    rows::{Goal, Row},
    statistics::Spread,
};

/// Names of one measurement: so many that their elements are in no cache of the core.
const NAMES: u32 = 5000;
/// Runs on the same packet.
const REPEAT: u32 = 20_000;
/// The class of the Internet.
const INTERNET: u8 = 1;
/// A class that is never answered: the program searches the name and leaves the packet as it was.
const CHAOS: u8 = 3;

/// The programs whose times are compared.
struct Programs {
    ours: OwnedFd,
    empty: OwnedFd,
}

/// The time of the program at the ingress of `interface` for a query, above that of an empty one.
pub(super) fn measure(rounds: usize, interface: u32) -> Result<Vec<Row>> {
    let ours = bpf::classifier_at(interface, bpf::TCX_INGRESS)?;
    let programs = Programs { ours, empty: bpf::empty_classifier()? };
    let rounds = rounds.max(3);
    let mut rows = Vec::new();
    for (kind, name, limit) in kinds() {
        let packets = |class| -> Vec<Packet> {
            (0..NAMES).map(|number| packet(&name(number), class, interface)).collect()
        };
        let (searched, asked) = (packets(CHAOS), packets(INTERNET));
        let mut row = |what: &str, values| {
            rows.push(Row::new(format!("{what}, {kind}"), "ns", values, Some(Goal::AtMost(limit))));
        };
        row("search for the same name", programs.each(rounds, |of| same(of, &searched[0]))?);
        row("search for another name", programs.each(rounds, |of| once(of, &searched))?);
        row("the whole program, another name", programs.each(rounds, |of| once(of, &asked))?);
    }
    Ok(rows)
}

/// A kind of name, the name by its number, and the goal in nanoseconds.
type Kind = (&'static str, fn(u32) -> String, f64);

fn kinds() -> [Kind; 3] {
    [
        ("exact", |number| exact_name(number * 97 % EXACT), 200.0),
        ("wildcard", |number| format!("job.{}", wildcard_suffix(number % WILDCARDS)), 350.0),
        ("foreign", |number| format!("n{number}.a.b.elsewhere.example"), 250.0),
    ]
}

impl Programs {
    /// The differences of our program's time and the empty one's, one of each round.
    fn each(
        &self,
        rounds: usize,
        time: impl Fn(BorrowedFd<'_>) -> Result<f64>,
    ) -> Result<Vec<f64>> {
        (0..rounds).map(|_| Ok(time(self.ours.as_fd())? - time(self.empty.as_fd())?)).collect()
    }
}

fn packet(name: &str, class: u8, interface: u32) -> Packet {
    let (source, resolver) = (Ipv4Addr::new(10, 0, 0, 2), Ipv4Addr::new(10, 0, 0, 53));
    let mut query = lookup::query(1, name);
    if let Some(last) = query.last_mut() {
        *last = class;
    }
    Packet { octets: frames::query(source, resolver, &query), interface }
}

/// The mean of many runs on one packet, which they leave as it was.
fn same(program: BorrowedFd<'_>, packet: &Packet) -> Result<f64> {
    Ok(f64::from(bpf::run(program, packet, REPEAT)?.1))
}

/// The median of the times of one run for each packet: an interrupt in one of them changes nothing.
fn once(program: BorrowedFd<'_>, packets: &[Packet]) -> Result<f64> {
    let times = packets.iter().map(|packet| Ok(f64::from(bpf::run(program, packet, 1)?.1)));
    Ok(Spread::of(times.collect::<Result<Vec<_>>>()?).median)
}
