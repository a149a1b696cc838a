//! `cargo xtask bench scale`: connects, look-ups, loads and changes with 1, 1,000 and 50,000
//! routes, of redirector and of each peer.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

use crate::{
    clock,
    comparison::publish,
    options::{Options, last_core},
    peers::{
        lineup::{Lineup, Measure},
        peer::{BACKENDS, Routes},
        report::{Figure, Report, routes},
    },
    worker::{Obedience, Operation},
};

/// How much is measured.
struct Effort {
    counts: &'static [u32],
    loads: usize,
    changes: usize,
    rounds: usize,
    /// Seconds of a comparison.
    seconds: f64,
}

const FULL: Effort =
    Effort { counts: &[1, 1000, 50_000], loads: 3, changes: 11, rounds: 2000, seconds: 25.0 };
const QUICK: Effort = Effort { counts: &[1, 200], loads: 1, changes: 2, rounds: 3, seconds: 2.0 };

/// Routes from which on a batch is shorter: rules are searched one after the other.
const MANY: u32 = 10_000;

/// Measures, prints the result, and writes it into the results' folder.
pub fn run(options: &Options) -> Result<()> {
    publish(&measure(options)?, options, "scale", "Many routes")
}

/// Measures on sites of its own; needs root.
pub fn measure(options: &Options) -> Result<Report> {
    let binary = options.measurable()?;
    let effort = if options.quick { QUICK } else { FULL };
    let mut report = Report::begin(last_core()?, options.quick);
    for count in effort.counts {
        eprintln!("{count} routes: starting redirector and its peers");
        let lineup = Lineup::new(&binary, *count, (report.core, 1))?;
        let session = Session { count: *count, effort: &effort, lineup };
        report.figures.extend(session.measure()?);
    }
    Ok(report.finish())
}

/// The measurements with so many routes.
struct Session<'a> {
    count: u32,
    effort: &'a Effort,
    lineup: Lineup,
}

impl Session<'_> {
    fn measure(mut self) -> Result<Vec<Figure>> {
        let mut figures = self.loads()?;
        eprintln!("{} routes: measuring connects and look-ups", self.count);
        figures.extend(self.connects()?);
        figures.extend(self.lookups()?);
        eprintln!("{} routes: measuring changes", self.count);
        figures.extend(self.changes()?);
        Ok(figures)
    }

    fn named(&self, measure: &str) -> String {
        format!("{measure}; {}", routes(self.count))
    }

    fn loads(&mut self) -> Result<Vec<Figure>> {
        let measure = self.named("time to load all routes");
        let mut figures = Vec::new();
        for peer in self.lineup.peers.iter_mut().filter(|peer| peer.has_routes()) {
            let mut times = Vec::new();
            for _ in 0..self.effort.loads {
                let began = Instant::now();
                peer.load(Routes::single(self.count))?;
                times.push(began.elapsed().as_secs_f64() * 1e3);
            }
            figures.push(Figure::new(&measure, peer.label(), "ms", times));
        }
        Ok(figures)
    }

    fn connects(&mut self) -> Result<Vec<Figure>> {
        let chosen = self.lineup.select(|peer| !peer.is_dns_only());
        let measure = self.named("connect, one byte each way, close");
        self.turns(&measure, Operation::Tcp, &chosen)
    }

    fn lookups(&mut self) -> Result<Vec<Figure>> {
        let chosen = self.lineup.select(|peer| peer.resolver().is_some());
        let measure = self.named("look-up of a name");
        self.turns(&measure, Operation::LookUp, &chosen)
    }

    fn turns(
        &mut self,
        measure: &str,
        operation: Operation,
        chosen: &[usize],
    ) -> Result<Vec<Figure>> {
        let count = if self.count < MANY { 40 } else { 10 };
        let limit = (self.effort.rounds, Duration::from_secs_f64(self.effort.seconds));
        let measure = Measure::less_is_better(measure, "µs", |nanoseconds| nanoseconds / 1e3);
        self.lineup.turns(&[measure], (operation, count), chosen, limit)
    }

    /// From the start of a change of the last route until the first connect that obeys it.
    fn changes(&mut self) -> Result<Vec<Figure>> {
        let measure = self.named("from a change to the first connect that obeys");
        let last = self.count - 1;
        let mut figures = Vec::new();
        for (peer, client) in self.lineup.peers.iter_mut().zip(&mut self.lineup.clients) {
            if !peer.has_routes() {
                continue;
            }
            let lookup = peer.is_dns_only().then(|| peer.resolver()).flatten().map(|at| (at, last));
            let target = peer.target(last)?;
            let mut times = Vec::new();
            for number in 0..self.effort.changes {
                let backend = BACKENDS[(number + 1) % BACKENDS.len()];
                peer.prepare_change(last)?;
                client.begin(Obedience { octet: backend.octets()[3], target, lookup })?;
                let began = clock::now_us();
                peer.change(last, backend)?;
                let obeyed = client.obeyed().with_context(|| format!("with {}", peer.label()))?;
                times.push(obeyed.saturating_sub(began) as f64 / 1e3);
            }
            figures.push(Figure::new(&measure, peer.label(), "ms", times));
        }
        Ok(figures)
    }
}
