//! `cargo run -p conventions [PACKAGE]`: every violation in the workspace or in one package.

use std::{path::Path, process::ExitCode};

use conventions::{modules, targets};

fn main() -> anyhow::Result<ExitCode> {
    let package = std::env::args().nth(1);
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize()?;
    let mut count = 0;
    for target in targets::of_workspace()? {
        if package.as_ref().is_some_and(|package| *package != target.package) {
            continue;
        }
        let findings = modules::check(&target.root, &root)?;
        println!("{}: {}", target.label(), findings.len());
        for finding in &findings {
            println!("{finding}");
        }
        count += findings.len();
    }
    println!("{count} violations");
    Ok(if count == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
