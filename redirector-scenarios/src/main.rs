//! The datapath's scenarios as the whole user space of a virtual machine.
//!
//! As process 1 it makes the machine fit to live in, starts itself again in a pod's cgroup with exactly the capabilities that the product asks
//! for, and powers off. The second process plays the scenarios and says on standard output, line by line, how each came out:
//! `SCENARIO<tab>name<tab>ok|FAIL<tab>detail`, `PROGRAM<tab>name<tab>verified instructions<tab>bytes`, `END` when none was forgotten.

mod bed;
mod last_words;
mod machine;
mod options;
mod scenarios;

use std::process::ExitCode;

use anyhow::Context as _;

/// The argument that makes this the second process.
const PLAY: &str = "play";

fn main() -> ExitCode {
    if std::env::args().nth(1).as_deref() == Some(PLAY) {
        return match play() {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                println!("{}", last_words::said());
                println!("SCENARIO\tload and attach\tFAIL\t{}", format!("{error:#}").replace(['\n', '\t'], " "));
                ExitCode::FAILURE
            }
        };
    }
    if std::process::id() != 1 {
        eprintln!("this is the init of a virtual machine: `cargo xtask vm` starts it");
        return ExitCode::FAILURE;
    }
    if let Err(error) = machine::prepare().and_then(|()| machine::start_again(PLAY)) {
        println!("SCENARIO\tmachine\tFAIL\t{error:#}");
    }
    machine::power_off()
}

fn play() -> anyhow::Result<()> {
    last_words::listen();
    println!("KERNEL\t{}", rustix::system::uname().release().to_string_lossy());
    let mut bed = bed::Bed::new().context("failed to load and attach")?;
    println!("SCENARIO\tload and attach\tok\t");
    for program in bed.datapath.status().programs {
        let verified = program.verified_instructions.map_or_else(|| "-".to_owned(), |count| count.to_string());
        println!("PROGRAM\t{}\t{verified}\t{}", program.name, program.jited_bytes);
    }
    for (name, scenario) in scenarios::ALL {
        match scenario(&mut bed) {
            Ok(()) => println!("SCENARIO\t{name}\tok\t"),
            Err(error) => println!("SCENARIO\t{name}\tFAIL\t{}", format!("{error:#}").replace(['\n', '\t'], " ")),
        }
    }
    let last = scenarios::unload(bed);
    let detail = last.as_ref().err().map(|error| format!("{error:#}").replace(['\n', '\t'], " "));
    println!("SCENARIO\tunload\t{}\t{}", if last.is_ok() { "ok" } else { "FAIL" }, detail.unwrap_or_default());
    println!("END");
    Ok(())
}
