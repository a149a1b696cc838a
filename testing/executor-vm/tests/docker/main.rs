//! A machine with systemd and Docker, with the package, routes, and no other setting: what
//! docs/executor-vms.md states. `cargo xtask executor-vm` runs it.

mod checks;
mod installed;
mod layouts;
mod lifecycle;
mod load;

use std::fs;

use checks::Checks;
use executor_vm::{Input, Vm};
use testbed::{debian_package, workspace};

/// One test, since booting takes most of its time; its order is that of a machine's life.
#[test]
fn docker_is_redirected_under_auto() {
    let vm = Vm::boot(&input()).unwrap();
    let mut checks = Checks::default();
    installed::installs(&mut checks, &vm);
    layouts::are_redirected(&mut checks, &vm);
    lifecycle::serves_throughout(&mut checks, &vm);
    lifecycle::starts_first_at_boot(&mut checks, &vm);
    layouts::are_redirected(&mut checks, &vm);
    installed::serves_other_names(&mut checks, &vm);
    layouts::are_redirected_with_cgroupfs(&mut checks, &vm);
    checks.check("no packet for a virtual address left the machine", || {
        let leaked = vm.leaked_packets()?;
        anyhow::ensure!(leaked == 0, "{leaked} packets");
        Ok(String::new())
    });
    checks.finish();
}

/// What the machine needs, in its /root.
fn input() -> Vec<Input> {
    let folder = tempfile::tempdir().unwrap();
    let later = debian_package::later_package(folder.path()).unwrap();
    let read = |path| fs::read(path).unwrap();
    vec![
        Input { name: "redirector.deb", content: read(debian_package::package().unwrap()) },
        Input { name: "later.deb", content: read(later) },
        Input { name: "redirector.toml", content: routes().into() },
        Input { name: "fetch", content: include_bytes!("fetch").to_vec() },
        Input { name: "load", content: include_bytes!("load").to_vec() },
        Input { name: "compose.yaml", content: include_bytes!("compose.yaml").to_vec() },
    ]
}

/// The configuration of deploy/executor-vm/user-data.yaml: routes, and nothing else.
fn routes() -> String {
    let path = workspace::root().join("deploy/executor-vm/user-data.yaml");
    let text = fs::read_to_string(path).unwrap();
    let (_, content) = text.split_once("    content: |\n").unwrap();
    content.lines().map(|line| format!("{}\n", line.trim_start())).collect()
}
