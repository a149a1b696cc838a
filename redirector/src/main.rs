//! `redirector`: the agent and its command line in one binary.

use std::process::ExitCode;

fn main() -> ExitCode {
    redirector::cli::io::with_real(|env| redirector::cli::main(std::env::args_os(), env))
        .code()
        .into()
}
