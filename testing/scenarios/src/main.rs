//! The datapath's scenarios as the whole user space of a virtual machine.
//!
//! As process 1 it mounts the file systems, runs itself again in a pod's cgroup with exactly the
//! capabilities that the product needs, and powers off. Those processes play the scenarios; for
//! those of packets, more of them act in network namespaces. Each scenario is reported on standard
//! output: `SCENARIO<tab>name<tab>ok|FAIL<tab>milliseconds since the last one<tab>detail`,
//! `PROGRAM<tab>name<tab>verified instructions<tab>bytes`, and `END` as the last line.

mod attaching;
mod connects;
mod fixture;
mod init;
mod interception;
mod loading;
mod log_tail;
mod network;
mod packets;
mod scenarios;
mod socket_options;

use std::{cell::Cell, process::ExitCode, time::Instant};

use anyhow::Context as _;

/// The argument of the second process.
const PLAY: &str = "play";
/// The argument of the second process that runs as [`NOBODY`].
const PLAY_AS_NOBODY: &str = "play-as-nobody";
/// The argument of the process that plays the scenarios of packets.
const PLAY_PACKETS: &str = "play-packets";
/// Parameters of the kernel's command line, which it hands to its init.
const PACKETS_ONLY: &str = "PACKETS_ONLY";
const DEBUG_LOG: &str = "DEBUG_LOG";
/// A user without any rights.
const NOBODY: u32 = 65534;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [PLAY_AS_NOBODY] => {
            report("as uid 65534", &connects::as_nobody(NOBODY));
            ExitCode::SUCCESS
        }
        [PLAY] => exit_code("load and attach", play()),
        [PLAY_PACKETS] => exit_code("load and attach for packets", play_packets()),
        [network::actor::ACT, place] => exit_code(place, network::actor::serve(place)),
        _ if std::process::id() == 1 => run_machine(),
        _ => {
            eprintln!("this is the init of a virtual machine: `cargo xtask vm` starts it");
            ExitCode::FAILURE
        }
    }
}

fn run_machine() -> ! {
    match init::prepare().and_then(|()| play_all()) {
        Ok(()) => println!("END"),
        Err(error) => report("machine", &Err(error)),
    }
    init::power_off()
}

fn play_all() -> anyhow::Result<()> {
    println!("KERNEL\t{}", rustix::system::uname().release().to_string_lossy());
    if std::env::var_os(PACKETS_ONLY).is_none() {
        init::run_scenarios(PLAY_AS_NOBODY, NOBODY)?;
        init::run_scenarios(PLAY, 0)?;
    }
    network::places::build().context("failed to make the places")?;
    init::run_scenarios(PLAY_PACKETS, 0)
}

/// Reports what ended a process early as a failed scenario, after the end of its log.
fn exit_code(scenario: &str, played: anyhow::Result<()>) -> ExitCode {
    match played {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            println!("{}", log_tail::text());
            report(scenario, &Err(error));
            ExitCode::FAILURE
        }
    }
}

fn play() -> anyhow::Result<()> {
    log_tail::start();
    since_last_report();
    let mut fixture = fixture::Fixture::new().context("failed to load and attach")?;
    report("load and attach", &Ok(()));
    for program in fixture.datapath.status().programs {
        let verified =
            program.verified_instructions.map_or_else(|| "-".to_owned(), |count| count.to_string());
        println!("PROGRAM\t{}\t{verified}\t{}", program.name, program.jited_bytes);
    }
    report("packet programs load", &loading::packet_programs(&fixture));
    let plays_debug_log = std::env::var_os(DEBUG_LOG).is_some();
    for (name, scenario) in scenarios::ALL {
        if name != scenarios::DEBUG_LOG || plays_debug_log {
            report(name, &scenario(&mut fixture));
        }
    }
    report("unload", &connects::unload(fixture));
    Ok(())
}

fn play_packets() -> anyhow::Result<()> {
    log_tail::start();
    since_last_report();
    packets::play(report)
}

fn report(name: &str, outcome: &anyhow::Result<()>) {
    let took = since_last_report();
    match outcome {
        Ok(()) => println!("SCENARIO\t{name}\tok\t{took}\t"),
        Err(error) => {
            let detail = format!("{error:#}").replace(['\n', '\t'], " ");
            println!("SCENARIO\t{name}\tFAIL\t{took}\t{detail}");
        }
    }
}

/// Milliseconds since the last call in this process, 0 for the first.
fn since_last_report() -> u128 {
    thread_local! { static LAST: Cell<Option<Instant>> = const { Cell::new(None) } }
    let now = Instant::now();
    LAST.replace(Some(now)).map_or(0, |last| now.duration_since(last).as_millis())
}
