//! The datapath's scenarios as the whole user space of a virtual machine.
//!
//! As process 1 it mounts the file systems, runs itself again in a pod's cgroup with exactly the
//! capabilities that the product needs, and powers off. The second process plays the scenarios and
//! reports each on standard output: `SCENARIO<tab>name<tab>ok|FAIL<tab>detail`,
//! `PROGRAM<tab>name<tab>verified instructions<tab>bytes`, and `END` as the last line.

mod attaching;
mod connects;
mod fixture;
mod init;
mod interception;
mod loading;
mod log_tail;
mod scenarios;
mod socket_options;

use std::process::ExitCode;

use anyhow::Context as _;

/// The argument of the second process.
const PLAY: &str = "play";
/// The argument of the second process that runs as [`NOBODY`].
const PLAY_AS_NOBODY: &str = "play-as-nobody";
/// A user without any rights.
const NOBODY: u32 = 65534;

fn main() -> ExitCode {
    if std::env::args().nth(1).as_deref() == Some(PLAY_AS_NOBODY) {
        report("as uid 65534", &connects::as_nobody(NOBODY));
        return ExitCode::SUCCESS;
    }
    if std::env::args().nth(1).as_deref() == Some(PLAY) {
        return match play() {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                println!("{}", log_tail::text());
                println!(
                    "SCENARIO\tload and attach\tFAIL\t{}",
                    format!("{error:#}").replace(['\n', '\t'], " ")
                );
                ExitCode::FAILURE
            }
        };
    }
    if std::process::id() != 1 {
        eprintln!("this is the init of a virtual machine: `cargo xtask vm` starts it");
        return ExitCode::FAILURE;
    }
    let played = init::prepare()
        .and_then(|()| init::run_scenarios(PLAY_AS_NOBODY, NOBODY))
        .and_then(|()| init::run_scenarios(PLAY, 0));
    if let Err(error) = played {
        println!("SCENARIO\tmachine\tFAIL\t{error:#}");
    }
    init::power_off()
}

fn play() -> anyhow::Result<()> {
    log_tail::start();
    println!("KERNEL\t{}", rustix::system::uname().release().to_string_lossy());
    let mut fixture = fixture::Fixture::new().context("failed to load and attach")?;
    println!("SCENARIO\tload and attach\tok\t");
    for program in fixture.datapath.status().programs {
        let verified =
            program.verified_instructions.map_or_else(|| "-".to_owned(), |count| count.to_string());
        println!("PROGRAM\t{}\t{verified}\t{}", program.name, program.jited_bytes);
    }
    report("packet programs load", &loading::packet_programs(&fixture));
    for (name, scenario) in scenarios::ALL {
        report(name, &scenario(&mut fixture));
    }
    report("unload", &connects::unload(fixture));
    println!("END");
    Ok(())
}

fn report(name: &str, outcome: &anyhow::Result<()>) {
    match outcome {
        Ok(()) => println!("SCENARIO\t{name}\tok\t"),
        Err(error) => {
            println!("SCENARIO\t{name}\tFAIL\t{}", format!("{error:#}").replace(['\n', '\t'], " "))
        }
    }
}
