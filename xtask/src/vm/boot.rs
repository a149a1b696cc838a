//! Boots one machine and reads its results.

use std::{process::Command, time::Duration};
use testbed::capture;

use super::{kernels::Entry, machine::Machine};
use crate::arch::Arch;

/// Lines of a machine's output that are shown after a failure.
const TAIL: usize = 100;

/// Scenarios of a machine that are shown with their times.
const SLOWEST: usize = 6;

/// The results of a machine.
#[derive(Clone, Debug)]
pub(super) struct Outcome {
    pub(super) entry: Entry,
    /// The kernel's release.
    pub(super) release: String,
    pub(super) scenarios: Vec<Scenario>,
    pub(super) programs: Vec<Program>,
    /// Whether the last line arrived.
    complete: bool,
    pub(super) output: String,
}

/// The result of a scenario; the detail is empty if it passed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Scenario {
    pub(super) name: String,
    pub(super) passed: bool,
    pub(super) took: Duration,
    pub(super) detail: String,
}

/// A program as loaded by this kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Program {
    pub(super) name: String,
    /// Instructions that the verifier processed; `None` before 5.16, which does not report them.
    pub(super) verified: Option<u32>,
    /// Bytes of machine code.
    pub(super) bytes: u32,
}

impl Outcome {
    pub(super) fn passed(&self) -> bool {
        self.complete
            && !self.scenarios.is_empty()
            && self.scenarios.iter().all(|scenario| scenario.passed)
    }

    /// The scenarios that took longest, for people.
    pub(super) fn slowest(&self) -> String {
        let mut slowest: Vec<&Scenario> = self.scenarios.iter().collect();
        slowest.sort_by_key(|scenario| std::cmp::Reverse(scenario.took));
        let shown = slowest
            .iter()
            .take(SLOWEST)
            .map(|scenario| format!("{} {:.0} s", scenario.name, scenario.took.as_secs_f64()));
        shown.collect::<Vec<_>>().join(", ")
    }

    /// The first problem, in one line.
    pub(super) fn problem(&self) -> String {
        match self.scenarios.iter().find(|scenario| !scenario.passed) {
            Some(scenario) => format!("{}: {}", scenario.name, scenario.detail),
            None if self.panicked() => "the kernel panicked".to_owned(),
            None => "the machine ended before its last scenario".to_owned(),
        }
    }

    fn panicked(&self) -> bool {
        self.output.contains("Kernel panic") || self.output.contains("Oops:")
    }

    pub(super) fn tail(&self) -> String {
        let lines: Vec<&str> = self.output.lines().collect();
        lines[lines.len().saturating_sub(TAIL)..].join("\n")
    }

    fn read(entry: Entry, output: String) -> Self {
        let mut outcome = Self {
            entry,
            release: String::new(),
            scenarios: Vec::new(),
            programs: Vec::new(),
            complete: false,
            output: String::new(),
        };
        for line in output.lines() {
            let fields: Vec<&str> = line.split('\t').collect();
            match fields[..] {
                ["KERNEL", release] => outcome.release = release.to_owned(),
                ["SCENARIO", name, verdict, took, detail] => outcome.scenarios.push(Scenario {
                    name: name.to_owned(),
                    passed: verdict == "ok",
                    took: Duration::from_millis(took.parse().unwrap_or(0)),
                    detail: detail.to_owned(),
                }),
                ["PROGRAM", name, verified, bytes] => {
                    let (verified, bytes) = (verified.parse().ok(), bytes.parse().unwrap_or(0));
                    outcome.programs.push(Program { name: name.to_owned(), verified, bytes });
                }
                ["END"] => outcome.complete = true,
                _ => {}
            }
        }
        outcome.output = output;
        outcome
    }
}

/// Boots a machine and waits until it powers off. A guest that panics is booted once more:
/// emulated, 6.12 panics occasionally.
pub(super) fn play(machine: &Machine, limit: Duration) -> anyhow::Result<Outcome> {
    let first = once(machine, limit)?;
    if first.complete || !first.panicked() {
        return Ok(first);
    }
    eprintln!("  the kernel {} panicked: booting it again", machine.entry);
    once(machine, limit)
}

fn once(machine: &Machine, limit: Duration) -> anyhow::Result<Outcome> {
    let Machine { entry, kernel, initrd, packets_only } = machine;
    let mut command = emulator(entry.arch);
    command.args([
        "-m",
        "512",
        "-smp",
        "1",
        "-nodefaults",
        "-no-user-config",
        "-no-reboot",
        "-display",
        "none",
        "-serial",
        "stdio",
    ]);
    command.arg("-kernel").arg(kernel).arg("-initrd").arg(initrd);
    // What the kernel does not know is in the environment of its init.
    let only = if *packets_only { " PACKETS_ONLY=1" } else { "" };
    let log = if entry.plays_debug_log() { " DEBUG_LOG=1" } else { "" };
    let parameters = format!("console={} quiet panic=-1{only}{log}", console(entry.arch));
    command.arg("-append").arg(parameters);
    let finished = capture::capture_within(&mut command, limit, |_| {})?;
    Ok(Outcome::read(*entry, finished.output.replace('\r', "")))
}

/// Always TCG: KVM may be present without being able to run these kernels.
pub(super) fn emulator(arch: Arch) -> Command {
    match arch {
        Arch::X86 => {
            let mut command = Command::new("qemu-system-x86_64");
            // Without the fast string instructions, which TCG plays byte by byte: kernels that see
            // them copy and clear memory with them, which would take half of the verifier's time.
            command.args(["-accel", "tcg", "-cpu", "max,-erms,-fsrm", "-M", "q35"]);
            command
        }
        Arch::Arm => {
            let mut command = Command::new("qemu-system-aarch64");
            // The architected pointer authentication algorithm would take most of the emulation's
            // time.
            command.args(["-accel", "tcg", "-cpu", "max,pauth-impdef=on", "-M", "virt"]);
            command
        }
    }
}

fn console(arch: Arch) -> &'static str {
    match arch {
        Arch::X86 => "ttyS0",
        Arch::Arm => "ttyAMA0",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vm::kernels::CATALOGUE;

    #[test]
    fn a_machine_whose_report_is_complete_has_passed() {
        let output = "noise\nKERNEL\t6.1.0\nSCENARIO\tredirect\tok\t12\t\n\
            PROGRAM\trd_connect4\t-\t900\nEND\n";
        let outcome = Outcome::read(CATALOGUE[0], output.to_owned());
        assert!(outcome.passed());
        assert_eq!(
            outcome.programs,
            [Program { name: "rd_connect4".to_owned(), verified: None, bytes: 900 }]
        );
    }

    #[test]
    fn a_machine_that_stops_before_its_end_has_failed() {
        let outcome = Outcome::read(
            CATALOGUE[0],
            "SCENARIO\tredirect\tok\t12\t\nKernel panic - not syncing\n".to_owned(),
        );
        assert!(!outcome.passed() && outcome.panicked());
        assert_eq!(outcome.problem(), "the kernel panicked");
        assert!(
            !Outcome::read(CATALOGUE[0], "END\n".to_owned()).passed(),
            "no scenario was played"
        );
    }

    #[test]
    fn a_failed_scenario_is_named_with_its_detail() {
        let outcome =
            Outcome::read(CATALOGUE[0], "SCENARIO\tpass\tFAIL\t7\tgot 13\nEND\n".to_owned());
        assert_eq!(outcome.problem(), "pass: got 13");
    }
}
