//! One soak from its beginning to its end.

use std::fmt::Write as _;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use testbed::clients::now_us;
use testbed::{interrupted, workspace};

use crate::checker::{self, Context, Rule, Violation};
use crate::clients::Clients;
use crate::fault::{Fault, Resource};
use crate::faults::Stage;
use crate::field::{Field, OBSERVED, lock};
use crate::history::{Record, Sample};
use crate::options::Options;
use crate::profile::Profile;
use crate::progress::Progress;
use crate::report::Report;
use crate::samples;
use crate::schedule::Step;
use crate::timeline::Timeline;

/// Without faults at the end.
const TAIL: Duration = Duration::from_secs(5);
/// The interval of readings.
const SAMPLE_EVERY: Duration = Duration::from_secs(2);
/// How long the kernel may take to count the last close, and the agent to give back what it used.
const SETTLE_LIMIT: Duration = Duration::from_secs(30);
/// The operations are judged this often while nothing is wrong, and at least this often otherwise.
const CHECK_EVERY: (Duration, Duration) = (Duration::from_secs(2), Duration::from_secs(30));
/// How long a thread waits before it looks whether the soak is over.
const TICK: Duration = Duration::from_millis(50);

/// Runs the soaks that `options` ask for; passes each report on as it comes, and returns all. A
/// breach of the contract is no error; it ends the soak, unless `keep_going`.
pub fn run(options: &Options, mut on_report: impl FnMut(&Report)) -> Result<Vec<Report>> {
    let binary = options.binary.clone().unwrap_or_else(workspace::release_binary);
    let binary = binary
        .canonicalize()
        .with_context(|| format!("no {}: run `cargo xtask build` first", binary.display()))?;
    let mut reports = Vec::new();
    for (profile, length) in options.soaks()? {
        let steps = options.steps_of(profile, length)?;
        let soak = Soak { options, profile, length, binary: &binary, steps: &steps };
        let report = soak.run()?;
        on_report(&report);
        reports.push(report);
    }
    Ok(reports)
}

/// One soak.
struct Soak<'a> {
    options: &'a Options,
    profile: Profile,
    length: Duration,
    binary: &'a Path,
    steps: &'a [Step],
}

/// What the threads of a soak share.
#[derive(Default)]
struct Shared {
    timeline: Mutex<Timeline>,
    samples: Mutex<Vec<Sample>>,
    /// Breaches that are no operation's.
    violations: Mutex<Vec<Violation>>,
    over: AtomicBool,
}

impl Shared {
    fn is_over(&self) -> bool {
        self.over.load(Ordering::Relaxed) || interrupted()
    }

    fn violate(&self, rule: Rule, text: String) {
        lock(&self.violations).push(Violation { rule, at_us: now_us(), text });
    }
}

impl Soak<'_> {
    fn run(&self) -> Result<Report> {
        let mut report = Report::new(self.profile.to_string(), self.options.seed);
        let field = Field::new(self.profile, self.binary)?;
        let before = samples::sample(&field)?.context("the agent ended before the soak began")?;
        let shared = Shared::default();
        lock(&shared.timeline).publish(now_us(), [0, 1]);
        let progress = Progress::start(&report.title, self.length + TAIL);
        let mut clients = Clients::start(&field, self.profile)?;
        let started = (Instant::now(), now_us());
        let mut seen = Seen { records: Vec::new(), violations: Vec::new() };
        thread::scope(|scope| {
            for step in self.steps {
                let (field, shared, progress) = (&field, &shared, &progress);
                scope.spawn(move || self.play(field, step, started.0, shared, progress));
            }
            scope.spawn(|| watch(&field, &shared, self.profile));
            self.observe(&clients, started.0, &shared, &progress, &mut seen);
            shared.over.store(true, Ordering::Relaxed);
        });
        clients.end()?;
        seen.check(&clients, &shared, self.profile);
        let seconds = started.0.elapsed().as_secs_f64();
        progress.note("everything settles");
        self.settle(&field, &clients, &shared, &seen, before)?;
        self.sum_up(&mut report, &clients, &shared, seen, started.1);
        report.finish(seconds);
        Ok(report)
    }

    /// Waits for a step's time, and plays it.
    fn play(
        &self,
        field: &Field,
        step: &Step,
        started: Instant,
        shared: &Shared,
        progress: &Progress,
    ) {
        while started.elapsed() < step.at {
            if shared.is_over() {
                return;
            }
            thread::sleep(TICK.min(step.at.saturating_sub(started.elapsed())));
        }
        progress.note(&step.to_string());
        let of_agent = |step: &&Step| step.fault.resources() == [Resource::Agent];
        let next = self.steps.iter().filter(of_agent).find(|next| next.at > step.at);
        let stage = Stage {
            field,
            timeline: &shared.timeline,
            profile: self.profile,
            next_of_agent: next.map(|next| started + next.at),
        };
        if let Err(error) = stage.play(step, &|| shared.is_over()) {
            let rule = match step.fault {
                Fault::RoutesChanged | Fault::GuestReplaced => Rule::ChangeServed,
                _ => Rule::Recovers,
            };
            shared.violate(rule, format!("{error:#}"));
        }
    }

    /// Judges what the clients report, until the time is over or the contract is broken.
    fn observe(
        &self,
        clients: &Clients,
        started: Instant,
        shared: &Shared,
        progress: &Progress,
        seen: &mut Seen,
    ) {
        let mut checked = Instant::now();
        while started.elapsed() < self.length + TAIL && !shared.is_over() {
            thread::sleep(TICK);
            progress.tick(started.elapsed());
            let calm = lock(&shared.timeline).is_calm();
            let since = checked.elapsed();
            if (calm && since > CHECK_EVERY.0) || since > CHECK_EVERY.1 {
                seen.check(clients, shared, self.profile);
                checked = Instant::now();
            }
            let broken = !seen.violations.is_empty() || !lock(&shared.violations).is_empty();
            if broken && !self.options.keep_going {
                return;
            }
        }
    }

    /// What must hold once nothing is under way any more.
    fn settle(
        &self,
        field: &Field,
        clients: &Clients,
        shared: &Shared,
        seen: &Seen,
        before: Sample,
    ) -> Result<()> {
        if let Err(error) = field.await_serving() {
            shared.violate(Rule::Recovers, format!("{error:#}"));
        }
        let timeline = lock(&shared.timeline).clone();
        let context =
            Context { timeline: &timeline, clients: clients.infos(), profile: self.profile };
        let deadline = Instant::now() + SETTLE_LIMIT;
        loop {
            let mut found = checker::counters(context, samples::counters(field)?, &seen.records);
            if let Some(after) = samples::sample(field)? {
                found.extend(checker::settled(before, after));
            }
            if found.is_empty() || Instant::now() > deadline {
                if let Some((_, text)) = found.last_mut() {
                    let left = samples::connections(field);
                    let _ = write!(text, "; {} connections: {}", left.len(), left.join(", "));
                }
                found.extend(checker::growth(&lock(&shared.samples)));
                found.into_iter().for_each(|(rule, text)| shared.violate(rule, text));
                return Ok(());
            }
            thread::sleep(SAMPLE_EVERY);
        }
    }

    fn sum_up(
        &self,
        report: &mut Report,
        clients: &Clients,
        shared: &Shared,
        seen: Seen,
        started_us: u64,
    ) {
        report.add(clients.infos(), &seen.records);
        let timeline = lock(&shared.timeline);
        for step in self.steps {
            let text = step.to_string();
            if timeline.intervals().iter().any(|interval| interval.text == text) {
                report.fault(step.fault.to_string());
            }
        }
        let mut violations = seen.violations;
        violations.append(&mut lock(&shared.violations));
        violations.sort_by_key(|violation| violation.at_us);
        for violation in violations {
            report.breach(violation, &timeline, started_us);
        }
    }
}

/// What the clients have reported so far, and what of it broke the contract.
struct Seen {
    records: Vec<Record>,
    violations: Vec<Violation>,
}

impl Seen {
    fn check(&mut self, clients: &Clients, shared: &Shared, profile: Profile) {
        let new = clients.take();
        let timeline = lock(&shared.timeline).clone();
        let context = Context { timeline: &timeline, clients: clients.infos(), profile };
        self.violations.extend(checker::operations(context, &new));
        self.records.extend(new);
    }
}

/// Reads what must not grow, and what must never leave the node.
fn watch(field: &Field, shared: &Shared, profile: Profile) {
    while !shared.is_over() {
        if matches!(profile, Profile::Attacks(_)) {
            watch_backends(field, shared);
        }
        if let Err(error) = watch_agent(field) {
            return shared.violate(Rule::Recovers, format!("{error:#}"));
        }
        match samples::sample(field) {
            Ok(sample) => lock(&shared.samples).extend(sample),
            Err(error) => shared.violate(Rule::NothingGrows, format!("unreadable: {error:#}")),
        }
        match field.rig.customer.leaked_packets() {
            Ok(0) => {}
            Ok(count) => {
                return shared.violate(Rule::NothingLeaks, format!("{count} packets"));
            }
            Err(error) => shared.violate(Rule::NothingLeaks, format!("unreadable: {error:#}")),
        }
        let next = Instant::now() + SAMPLE_EVERY;
        while !shared.is_over() && Instant::now() < next {
            thread::sleep(TICK);
        }
    }
}

/// Reads the agent's notifications, as its service manager does. It must not end without a fault:
/// one that ends it holds the lock.
fn watch_agent(field: &Field) -> Result<()> {
    if let Ok(mut agent) = field.agent.try_lock() {
        agent.notifications()?;
        if let Some(status) = agent.ended()? {
            bail!("the agent ended without a fault: {status}\n{}", agent.log_tail());
        }
    }
    Ok(())
}

/// Notes each backend that is ejected although nothing is wrong with it.
fn watch_backends(field: &Field, shared: &Shared) {
    let Ok(route) = field.route(OBSERVED) else {
        return shared.violate(Rule::Recovers, "the agent does not list its routes".to_owned());
    };
    let backends = route["backends"].as_array().into_iter().flatten();
    for backend in backends.filter(|backend| backend["state"] != "eligible") {
        shared.violate(Rule::WorkingBackendKept, backend.to_string());
    }
}
