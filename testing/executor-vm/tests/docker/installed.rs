//! The package on the machine, and what its agent says.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use executor_vm::Vm;
use testbed::{
    process,
    topology::{INTERNAL_NAME, UNRELATED_ADDRESS, UNRELATED_NAME},
};

use crate::checks::Checks;

/// Longest time until the agent answers without a problem: emulated, it may be silent for seconds.
const LIMIT: Duration = Duration::from_secs(120);

/// Installs the package and its routes, then the image that jobs run.
pub(crate) fn installs(checks: &mut Checks, vm: &Vm) {
    checks.check("versions", || {
        vm.ok("uname -r; systemctl --version | head -n 1; docker --version")
            .map(|lines| lines.replace('\n', ", "))
    });
    checks.check("the package installs and starts", || {
        vm.ok("mkdir -p /etc/redirector && cp /root/redirector.toml /etc/redirector/")?;
        vm.ok("dpkg --install --force-confold /root/redirector.deb")?;
        vm.ok("systemctl is-active redirector")
    });
    checks.check("`auto` attaches to one fixed parent", || attached_is(vm, &["system.slice"]));
    checks.check("`systemctl status` shows the status", || {
        let status = vm.ok("systemctl status --no-pager redirector | grep Status:")?;
        ensure!(status.contains("redirecting 1 route"), "it is {}", status.trim());
        Ok(status.trim().to_owned())
    });
    checks.check("Docker has an image of a job", || {
        let authority = format!("/etc/docker/certs.d/{INTERNAL_NAME}");
        vm.ok(&format!("mkdir -p {authority} && cp /root/ca.crt {authority}/"))?;
        vm.ok("tar --append --file /root/job.tar --directory /root fetch load")?;
        vm.ok("docker import /root/job.tar job")?;
        vm.ok("docker network create user").map(|_| String::new())
    });
}

/// Names without a route, asked in every way in which a route's name is.
pub(crate) fn serves_other_names(checks: &mut Checks, vm: &Vm) {
    let look_up = format!("getent ahostsv4 {UNRELATED_NAME}");
    for (name, options) in [
        ("a container of the default bridge", ""),
        ("a container of a user network", "--network user"),
        ("a client of the shim", "--dns 169.254.20.53"),
    ] {
        checks.check(&format!("{name} resolves another name"), || {
            let found = vm.ok(&format!("docker run --rm {options} job {look_up}"))?;
            ensure!(found.contains(&UNRELATED_ADDRESS.to_string()), "the answer is {found}");
            Ok(String::new())
        });
    }
    checks.check("/readyz is 200", || {
        let request = "exec 3<>/dev/tcp/127.0.0.1/9464; \
            printf 'GET /readyz HTTP/1.0\\r\\n\\r\\n' >&3; cat <&3";
        let answer = vm.ok(request)?;
        ensure!(answer.contains(" 200 "), "it is: {answer}");
        Ok(String::new())
    });
}

/// Whether the programs are attached to these cgroups and no others.
pub(crate) fn attached_is(vm: &Vm, cgroups: &[&str]) -> Result<String> {
    let mut status = String::new();
    process::until("a status without a problem", LIMIT, || {
        let done = vm.run("redirector status -o json")?;
        status = done.stdout;
        Ok(done.status.success())
    })
    .with_context(|| status.clone())?;
    let status: serde_json::Value =
        serde_json::from_str(&status).with_context(|| format!("not JSON: {status}"))?;
    let attachments = status["datapath"]["attachments"].as_array().context("no attachments")?;
    let mut attached: Vec<_> = attachments
        .iter()
        .filter_map(|at| at["cgroup"].as_str()?.strip_prefix("/sys/fs/cgroup/"))
        .collect();
    attached.sort_unstable();
    ensure!(attached == cgroups, "attached to {attached:?} instead of {cgroups:?}");
    Ok(attached.join(", "))
}

/// Whether the programs are attached to this cgroup, and have been to no other one since the agent
/// started.
pub(crate) fn attached_once_is(vm: &Vm, cgroup: &str) -> Result<String> {
    attached_is(vm, &[cgroup])?;
    let lines = vm.ok("journalctl --unit redirector --output cat --no-pager \
        _SYSTEMD_INVOCATION_ID=$(systemctl show --value --property InvocationID redirector) | \
        grep 'attached cgroup='")?;
    ensure!(lines.lines().count() == 1, "attached more than once: {lines}");
    Ok(format!("{cgroup}, once"))
}
