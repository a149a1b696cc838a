//! Nothing is left behind, however the process that made a rig ends: here `xtask demo` with an
//! agent that never gets ready.

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use testbed::{Rig, process};

/// Starts a demo and returns once its servers run and its agent hangs.
fn hanging_demo(folder: &Path) -> Child {
    let agent = folder.join("redirector");
    fs::write(&agent, "#!/bin/sh\nexec sleep 600\n").unwrap();
    fs::set_permissions(&agent, fs::Permissions::from_mode(0o755)).unwrap();
    let config = folder.join("redirector.toml");
    fs::write(&config, "").unwrap();
    let mut demo = Command::new(env!("CARGO_BIN_EXE_xtask"));
    demo.arg("demo")
        .arg("--binary")
        .arg(agent)
        .arg("--config")
        .arg(config)
        .stdout(Stdio::piped())
        .stderr(Stdio::null());
    let mut child = demo.spawn().unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
    assert!(
        lines.into_iter().any(|line| line.contains("two HAProxy")),
        "the demo ended before its load balancers ran"
    );
    child
}

/// The cgroup and the folder of the rig that `pid` made, if they exist.
fn remains(pid: u32, beside: &Rig) -> Vec<PathBuf> {
    let cgroups = beside
        .node
        .sandbox()
        .cgroup()
        .ancestors()
        .find(|path| path.ends_with(beside.name()))
        .unwrap()
        .parent()
        .unwrap();
    let entries = [cgroups, &std::env::temp_dir()].map(|folder| fs::read_dir(folder).unwrap());
    let paths = entries.into_iter().flatten().map(|entry| entry.unwrap().path());
    paths
        .filter(|path| {
            path.to_string_lossy().contains("redirector-rig-")
                && path.to_string_lossy().contains(&format!("-{pid}-"))
        })
        .collect()
}

fn end(child: &mut Child, signal: Signal) -> Option<i32> {
    kill_process(Pid::from_child(child), signal).unwrap();
    process::wait(child, Duration::from_secs(20))
        .unwrap()
        .expect("the demo still runs 20 s after the signal")
        .signal()
}

#[test]
fn an_interrupted_demo_cleans_up_and_dies_by_its_signal() {
    let (folder, rig) = (tempfile::tempdir().unwrap(), Rig::new().unwrap());
    for signal in [Signal::INT, Signal::TERM] {
        let mut demo = hanging_demo(folder.path());
        assert_eq!(remains(demo.id(), &rig).len(), 2);
        assert_eq!(end(&mut demo, signal), Some(signal.as_raw()));
        assert_eq!(remains(demo.id(), &rig), Vec::<PathBuf>::new());
    }
}

#[test]
fn the_next_rig_sweeps_what_a_killed_demo_left() {
    let (folder, rig) = (tempfile::tempdir().unwrap(), Rig::new().unwrap());
    let mut demo = hanging_demo(folder.path());
    assert_eq!(remains(demo.id(), &rig).len(), 2);
    assert_eq!(end(&mut demo, Signal::KILL), Some(Signal::KILL.as_raw()));
    drop(Rig::new().unwrap());
    assert_eq!(remains(demo.id(), &rig), Vec::<PathBuf>::new());
}
