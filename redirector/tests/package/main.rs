//! The Debian package on a machine with systemd: installed, upgraded under load, removed, purged;
//! and with Docker. `cargo xtask deb` builds the package, `cargo xtask setup` the Debian.

mod docker;
mod machine;

use std::{thread, time::Duration};

use machine::Machine;
use testbed::{
    debian_package::{later_package, package},
    process::until,
    topology::INTERNAL_NAME,
};

const LIMIT: Duration = Duration::from_secs(60);
const CONFIG: &str = "/etc/redirector/redirector.toml";

/// The documented route.
fn routes() -> String {
    testbed::agent::documented_config().unwrap()
}

/// Everything on the machine that has our name, besides the package in /root and logs; our
/// addresses and routes.
fn leftovers(machine: &Machine) -> String {
    let files = machine.ok(
        "find / -xdev \\( -path /proc -o -path /sys -o -path /root -o -path /var/log \\) -prune \
            -o -iname '*redirector*' -print; find /run -iname '*redirector*'; \
            ls -A --ignore '*.debug' /sys/fs/bpf; getent group redirector || true",
    );
    let network = "ip -4 addr show dev lo | grep 169.254; ip route show | grep 198.18";
    files + &machine.on_its_network(network).text()
}

/// One test, since booting takes most of its time; its order is that of a machine's life.
#[test]
fn the_package_installs_upgrades_and_purges() {
    let machine = Machine::boot();
    takes_its_routes_from_user_data(&machine);
    starts_only_with_a_valid_configuration(&machine);
    serves(&machine);
    reloads(&machine);
    upgrades_under_load(&machine);
    keeps_the_old_agent_if_the_configuration_is_wrong(&machine);
    leaves_nothing(&machine);
}

fn takes_its_routes_from_user_data(machine: &Machine) {
    let shipped = concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/executor-vm/user-data.yaml");
    machine.write("/root/user-data", &std::fs::read_to_string(shipped).unwrap());
    machine.ok("cloud-init schema --config-file /root/user-data");
    machine.ok("cloud-init --file /root/user-data single --name write_files --frequency always");
    let installed = machine.install(&package().unwrap());
    assert!(installed.status.success(), "{}", installed.text());
    machine.assert_active();
    assert!(machine.ok("redirector route list").contains(INTERNAL_NAME));
    machine.ok("dpkg --purge redirector");
}

fn starts_only_with_a_valid_configuration(machine: &Machine) {
    machine.ok("mkdir /etc/redirector");
    machine.write(CONFIG, "[attach]\ncgroup = 1\n");
    let installed = machine.install(&package().unwrap());
    assert!(installed.status.success(), "{}", installed.text());
    for line in ["redirector.toml:2", "redirector: not started"] {
        assert!(installed.stderr.contains(line), "no `{line}` in:\n{}", installed.text());
    }
    assert_eq!(machine.unit("ActiveState"), "inactive");
    assert_eq!(machine.unit("UnitFileState"), "enabled");
    machine.ok("dpkg --purge redirector");

    // The configuration of the package has no route.
    let installed = machine.install(&package().unwrap());
    assert!(installed.status.success(), "{}", installed.text());
    machine.assert_active();
    assert!(!machine.ok("redirector route list").contains("company.net"));
    let files = machine.ok("dpkg --listfiles redirector");
    for file in [
        "/usr/share/man/man1/redirector-verify.1.gz",
        "/usr/share/bash-completion/completions/redirector",
        "/usr/share/zsh/vendor-completions/_redirector",
        "/usr/share/doc/redirector/sbom.cdx.json",
        "/usr/share/doc/redirector/THIRD-PARTY-LICENCES",
        "/usr/share/fish/vendor_completions.d/redirector.fish",
        CONFIG,
    ] {
        assert!(files.lines().any(|line| line == file), "no {file} in:\n{files}");
    }
}

fn serves(machine: &Machine) {
    machine.write(CONFIG, &routes());
    machine.ok("systemctl reload redirector");
    machine.ok("systemctl status redirector");
    assert!(machine.vip(INTERNAL_NAME).starts_with("198.18."), "{}", machine.vip(INTERNAL_NAME));
    let text = || machine.unit("StatusText");
    let is_current = || Ok(text().starts_with("redirecting 1 route for 1 cgroup"));
    until("the status text", LIMIT, is_current).unwrap_or_else(|_| panic!("{}", text()));
    let socket = "/run/redirector/control.sock";
    assert_eq!(machine.ok(&format!("stat -c '%U:%G %a' {socket}")), "root:redirector 660");
    machine.ok("useradd --groups redirector reader");
    machine.ok("runuser -u reader -- redirector route list");
    machine.ok("userdel reader");
}

fn reloads(machine: &Machine) {
    machine.write(CONFIG, "[attach]\ncgroup = 1\n");
    assert!(!machine.run("systemctl reload redirector").status.success());
    machine.write(CONFIG, &routes().replace("\n[health]", "\n[health]\n"));
    machine.ok("systemctl reload redirector");
    let warnings = machine.ok("journalctl -u redirector -p warning --no-pager -o cat");
    assert!(warnings.contains("WARN the configuration was not reloaded"), "{warnings}");
    assert!(!warnings.contains("INFO"), "{warnings}");
}

fn upgrades_under_load(machine: &Machine) {
    let folder = tempfile::tempdir().unwrap();
    let later = later_package(folder.path()).unwrap();
    let (vip, agent) = (machine.vip(INTERNAL_NAME), machine.unit("MainPID"));
    let load = machine.load(&vip, 20.0);
    let upgraded = machine.install(&later);
    assert!(upgraded.status.success(), "{}", upgraded.text());
    assert_ne!(machine.unit("MainPID"), agent, "not restarted");
    machine.ok("kill -KILL $(systemctl show --value --property MainPID redirector)");
    until("systemd has started the agent again", LIMIT, || {
        Ok(machine.unit("ActiveState") == "active" && machine.unit("NRestarts") == "1")
    })
    .unwrap();
    let report = load.report().unwrap();
    assert!(report.flawless(), "{report:?}");
    assert_eq!(machine.vip(INTERNAL_NAME), vip);
}

fn keeps_the_old_agent_if_the_configuration_is_wrong(machine: &Machine) {
    let agent = machine.unit("MainPID");
    machine.write(CONFIG, "[attach]\ncgroup = 1\n");
    let installed = machine.install(&package().unwrap());
    assert!(installed.stderr.contains("the agent before this version keeps running"));
    assert_eq!(machine.unit("MainPID"), agent);
    machine.write(CONFIG, &routes());
    thread::sleep(Duration::from_secs(2));
}

fn leaves_nothing(machine: &Machine) {
    let removed = machine.run("dpkg --remove redirector");
    assert!(removed.status.success(), "{}", removed.text());
    // The kernel's own files end in .debug.
    assert_eq!(machine.ok("ls -A --ignore '*.debug' /sys/fs/bpf"), "", "unloaded");
    assert_eq!(machine.ok(&format!("ls {CONFIG}")), CONFIG, "the configuration stays");
    machine.ok("dpkg --purge redirector");
    assert_eq!(leftovers(machine), "");

    // Purged while it runs.
    assert!(machine.install(&package().unwrap()).status.success());
    machine.assert_active();
    machine.ok("dpkg --purge redirector");
    assert_eq!(leftovers(machine), "");
    assert_eq!(machine.ok("systemctl --failed --no-legend"), "");
}
