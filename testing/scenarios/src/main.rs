//! The datapath's scenarios as the whole user space of a virtual machine.
//!
//! As process 1 it makes the machine fit to live in, starts itself again in a pod's cgroup with
//! exactly the capabilities that the product asks for, and powers off. The second process plays the
//! scenarios and says on standard output, line by line, how each came out:
//! `SCENARIO<tab>name<tab>ok|FAIL<tab>detail`,
//! `PROGRAM<tab>name<tab>verified instructions<tab>bytes`, `END` when none was forgotten.

mod attaching;
mod bed;
mod interception;
mod last_words;
mod machine;
mod options;
mod scenarios;

use std::process::ExitCode;

use anyhow::Context as _;

/// The argument that makes this the second process.
const PLAY: &str = "play";
/// The argument that makes this the one that is nobody.
const PLAY_AS_NOBODY: &str = "play-as-nobody";
/// A user without any right of its own.
const NOBODY: u32 = 65534;

fn main() -> ExitCode {
    if std::env::args().nth(1).as_deref() == Some(PLAY_AS_NOBODY) {
        tell("as uid 65534", &scenarios::as_nobody(NOBODY));
        return ExitCode::SUCCESS;
    }
    if std::env::args().nth(1).as_deref() == Some(PLAY) {
        return match play() {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                println!("{}", last_words::said());
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
    let played = machine::prepare()
        .and_then(|()| machine::start_again(PLAY_AS_NOBODY, NOBODY))
        .and_then(|()| machine::start_again(PLAY, 0));
    if let Err(error) = played {
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
        let verified =
            program.verified_instructions.map_or_else(|| "-".to_owned(), |count| count.to_string());
        println!("PROGRAM\t{}\t{verified}\t{}", program.name, program.jited_bytes);
    }
    for (name, scenario) in scenarios::ALL {
        tell(name, &scenario(&mut bed));
    }
    tell("unload", &scenarios::unload(bed));
    println!("END");
    Ok(())
}

fn tell(name: &str, outcome: &anyhow::Result<()>) {
    match outcome {
        Ok(()) => println!("SCENARIO\t{name}\tok\t"),
        Err(error) => {
            println!("SCENARIO\t{name}\tFAIL\t{}", format!("{error:#}").replace(['\n', '\t'], " "))
        }
    }
}
