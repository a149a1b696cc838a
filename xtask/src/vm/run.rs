//! `cargo xtask vm`: the datapath's scenarios on Debian's kernels from 5.10 to the newest, each in
//! an emulated machine of its own.
//!
//! A machine is a kernel and one static program, `redirector-scenarios`, its init. It needs no KVM:
//! a boot with all scenarios takes seconds. Kernels come from Debian, from the mirror that this
//! machine uses, and are cached.

use std::{
    path::PathBuf,
    sync::Mutex,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};

use super::{
    boot::{self, Outcome},
    guest,
    kernels::{self, CATALOGUE, Entry},
    machine::Machine,
    passed, table,
};
use crate::{
    arch::Arch,
    progress::{Step, seconds},
    setup::{self, needs::Group},
};

/// Longest time for one machine, all of it emulated.
const LIMIT: Duration = Duration::from_secs(1200);
/// Machines that run at the same time.
const AT_ONCE: usize = 2;

/// Arguments of `cargo xtask vm`.
#[derive(clap::Args, Debug, Default)]
pub(crate) struct Args {
    /// Only these kernels, such as 5.10,6.1 or newest
    #[arg(long, value_name = "VERSION", value_delimiter = ',')]
    kernel: Vec<String>,
    /// Only this architecture
    #[arg(long, value_enum)]
    arch: Option<Arch>,
    /// Only the scenarios of packets
    #[arg(long)]
    packets_only: bool,
    /// Look for newer packages of cached kernels
    #[arg(long)]
    refresh: bool,
    /// Also write the table to this file, as Markdown
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Show the whole output of each machine
    #[arg(long)]
    verbose: bool,
}

/// Plays the scenarios on the kernels that the arguments name; returns whether all passed.
pub(crate) fn run(args: &Args) -> anyhow::Result<bool> {
    play(args, &machines(args)?)
}

/// Fetches the kernels and builds the programs of every machine.
pub(crate) fn prepare() -> anyhow::Result<()> {
    machines(&Args::default()).map(drop)
}

/// As [`run`] for every kernel, as a stage of the tests. Machines that passed with the same
/// kernel, program and emulator are skipped.
pub(crate) fn ensure_passes() -> anyhow::Result<()> {
    let args = Args::default();
    let mut changed = Vec::new();
    for machine in machines(&args)? {
        if passed::is_recorded(&machine)? {
            eprintln!("  ok   {}: unchanged since it passed", machine.entry);
        } else {
            changed.push(machine);
        }
    }
    if !changed.is_empty() && !play(&args, &changed)? {
        bail!("a scenario failed on a kernel: see the table above");
    }
    Ok(())
}

fn machines(args: &Args) -> anyhow::Result<Vec<Machine>> {
    let entries = chosen(args)?;
    setup::ensure(&[Group::Toolchain, Group::Machines])?;
    let mut machines = Vec::new();
    for arch in Arch::ALL {
        let wanted: Vec<_> = entries.iter().filter(|entry| entry.arch == arch).collect();
        if wanted.is_empty() {
            continue;
        }
        let program = guest::program(arch)?;
        for entry in wanted {
            let kernel = kernels::ensure(entry, args.refresh)?;
            let initrd = guest::initrd(entry, &kernel.modules, &program)?;
            machines.push(Machine {
                entry: *entry,
                kernel: kernel.image,
                initrd,
                packets_only: args.packets_only,
            });
        }
    }
    Ok(machines)
}

fn play(args: &Args, machines: &[Machine]) -> anyhow::Result<bool> {
    let started = Instant::now();
    let outcomes = boot_all(machines)?;
    if args.verbose {
        outcomes.iter().for_each(|outcome| eprintln!("--- {}\n{}", outcome.entry, outcome.output));
    }
    for (machine, outcome) in machines.iter().zip(&outcomes) {
        if outcome.passed() {
            if !machine.packets_only {
                passed::record(machine)?;
            }
        } else {
            eprintln!("--- {}: {}\n{}", outcome.entry, outcome.problem(), outcome.tail());
        }
    }
    print!("{}", table::text(&outcomes));
    for outcome in &outcomes {
        println!("slowest on {}: {}", outcome.entry, outcome.slowest());
    }
    if let Some(path) = &args.output {
        std::fs::write(path, table::markdown(&outcomes))
            .with_context(|| format!("failed to write {}", path.display()))?;
    }
    let passed = outcomes.iter().filter(|outcome| outcome.passed()).count();
    println!("{passed} of {} kernels passed ({})", outcomes.len(), seconds(started.elapsed()));
    Ok(passed == outcomes.len())
}

fn chosen(args: &Args) -> anyhow::Result<Vec<Entry>> {
    let named = |entry: &&Entry| {
        args.kernel.is_empty() || args.kernel.iter().any(|name| name == entry.name)
    };
    let chosen: Vec<Entry> = CATALOGUE
        .iter()
        .filter(named)
        .filter(|entry| args.arch.is_none_or(|arch| arch == entry.arch))
        .copied()
        .collect();
    let known = |name: &&String| !CATALOGUE.iter().any(|entry| entry.name == name.as_str());
    if let Some(unknown) = args.kernel.iter().find(known) {
        let names: Vec<_> = CATALOGUE.iter().map(|entry| entry.name).collect();
        bail!("unknown kernel \"{unknown}\"; the list has {}", names.join(", "));
    }
    if chosen.is_empty() {
        bail!("no kernel of the list matches both --kernel and --arch");
    }
    Ok(chosen)
}

/// Boots every machine, [`AT_ONCE`] at a time; the outcomes are in the order of the machines.
fn boot_all(machines: &[Machine]) -> anyhow::Result<Vec<Outcome>> {
    let step = Step::start(format!("playing the scenarios on {} kernels", machines.len()));
    let next = Mutex::new(0..machines.len());
    let worker = || {
        let mut done = Vec::new();
        while let Some(number) = next.lock().ok().and_then(|mut next| next.next()) {
            done.push((number, boot::play(&machines[number], LIMIT)));
        }
        done
    };
    let mut outcomes = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..AT_ONCE).map(|_| scope.spawn(worker)).collect();
        workers.into_iter().flat_map(|worker| worker.join().unwrap_or_default()).collect::<Vec<_>>()
    });
    step.done();
    outcomes.sort_by_key(|(number, _)| *number);
    if outcomes.len() != machines.len() {
        bail!("a thread of a machine panicked");
    }
    outcomes.into_iter().map(|(_, outcome)| outcome).collect()
}
