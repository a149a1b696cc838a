//! The command line as a whole, and what needs no agent.

use super::*;

#[test]
fn usage_errors_go_to_stderr_and_help_to_stdout() {
    let rig = Rig::without_agent();
    for wrong in [
        &["frobnicate"][..],
        &[],
        &["route", "add", "a.internal"],
        &["route", "add", "*a", "b.c"],
        &["status", "-o", "xml"],
    ] {
        let ended = rig.run(wrong);
        assert_eq!((ended.exit, ended.out.as_str()), (Exit::Usage, ""), "{wrong:?}");
        assert!(!ended.err.is_empty(), "{wrong:?}");
    }
    let ended = rig.run(&["route", "add", "a.internal", "https://lb.public", "--port", "0"]);
    assert_eq!(
        (ended.exit, ended.err.lines().count()),
        (Exit::Usage, 2),
        "both problems are reported: {}",
        ended.err
    );
    let ended = rig.run(&["--version"]);
    assert_eq!(
        (ended.exit, ended.out),
        (Exit::Done, format!("redirector {}\n", env!("CARGO_PKG_VERSION")))
    );
    assert!(rig.run(&["--help"]).out.contains("Exit codes:"));
}

#[test]
fn the_configuration_is_checked_and_shown_with_defaults() {
    let rig = Rig::without_agent();
    let file = rig.at("redirector.toml").display().to_string();
    assert_eq!(rig.run(&["config", "check"]).out, format!("{file}: no problem, 1 route\n"));
    let shown = rig.run(&["config", "show"]).out;
    assert!(shown.contains("ttl = 30") && shown.contains("a.internal"), "{shown}");
    let wrong = rig.at("wrong.toml");
    std::fs::write(&wrong, "x = 1\n[dns]\nttl = \"a\"\n").expect("written");
    let ended = rig.run(&["config", "check", &wrong.display().to_string()]);
    assert_eq!((ended.exit, ended.err.lines().count()), (Exit::Usage, 3), "{}", ended.err);
    assert!(ended.err.starts_with("redirector: 2 problems:\n/"), "{}", ended.err);
}

/// A reader that has gone.
struct Gone;

impl Write for Gone {
    fn write(&mut self, _: &[u8]) -> io::Result<usize> {
        Err(io::ErrorKind::BrokenPipe.into())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_reader_that_goes_away_is_no_failure() {
    let rig = Rig::without_agent();
    for arguments in [
        &["config", "show"][..],
        &["config", "check"],
        &["--help"],
        &["completions", "bash"],
        &["check"],
    ] {
        let mut err = Vec::new();
        let exit = rig.run_into(arguments, "", false, &mut Gone, &mut err);
        assert_eq!((exit, err.as_slice()), (Exit::Done, &b""[..]), "{arguments:?}");
    }
}

#[test]
fn unload_without_pins_fails_and_refuses_a_running_agent() {
    let rig = Rig::without_agent();
    std::fs::create_dir(rig.at("run")).expect("made");
    let lock = std::fs::File::open(rig.at("run")).expect("opened");
    rustix::fs::flock(&lock, rustix::fs::FlockOperation::LockExclusive).expect("locked");
    std::fs::write(rig.at("run/agent.pid"), "4711\n").expect("written");
    let ended = rig.run(&["unload"]);
    assert_eq!(ended.exit, Exit::Failed);
    assert_eq!(
        ended.err,
        "redirector: an agent, pid 4711, is running and needs its datapath: stop it first, or \
            use --force\n"
    );
}

fn leaves(command: &clap::Command) -> Vec<&clap::Command> {
    let mut below = command.get_subcommands().peekable();
    if below.peek().is_none() {
        vec![command]
    } else {
        below.filter(|leaf| !leaf.is_hide_set()).flat_map(leaves).collect()
    }
}

#[test]
fn every_command_is_consistent_and_has_examples() {
    crate::cli::command().debug_assert();
    let command = crate::cli::command();
    // A hidden one is for us, not for people.
    for leaf in leaves(&command).into_iter().filter(|leaf| !leaf.is_hide_set()) {
        let help = leaf.get_after_help().map(ToString::to_string).unwrap_or_default();
        assert!(help.starts_with("Examples:\n"), "{} has no examples", leaf.get_name());
        assert!(leaf.get_about().is_some(), "{} does not say what it does", leaf.get_name());
        for example in help.lines().filter(|line| line.starts_with("  ")) {
            assert!(example.chars().count() <= 80, "a terminal wraps the example {example:?}");
        }
    }
}

#[test]
fn completions_and_manual_pages_know_every_command() {
    let rig = Rig::without_agent();
    for shell in ["bash", "zsh", "fish"] {
        let script = rig.run(&["completions", shell]).out;
        assert!(["status", "unload", "import"].iter().all(|word| script.contains(word)), "{shell}");
    }
    let ended = rig.run(&["man", &rig.at("man").display().to_string()]);
    assert_eq!(ended.exit, Exit::Done, "{ended:?}");
    for page in ["redirector.1", "redirector-status.1", "redirector-route-add.1"] {
        assert!(rig.at("man").join(page).exists(), "{page}");
    }
}
