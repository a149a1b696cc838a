//! What happens to the agent and to the machine.

use std::{thread, time::Duration};

use anyhow::{Result, ensure};
use executor_vm::Vm;
use testbed::process;

use crate::{
    checks::Checks,
    installed::{attached_is, attached_once_is},
    load::Load,
};

/// Longest time until systemd has started the agent again; its watchdog waits for half a minute.
const LIMIT: Duration = Duration::from_secs(240);

/// A command keeps the machine busy that the agent starts on.
const POLL: Duration = Duration::from_secs(1);

/// Under load: a restart, a kill, an agent that hangs, an upgrade.
pub(crate) fn serves_throughout(checks: &mut Checks, vm: &Vm) {
    let mut load = None;
    checks.check("clients in two containers connect", || {
        load = Some(Load::start(vm)?);
        Ok(String::new())
    });
    let Some(load) = load else { return };
    checks.check("systemctl restart redirector", || {
        load.survives(|| vm.ok("systemctl restart redirector").map(drop))
    });
    checks.check("kill -9 of the agent", || load.survives(|| is_restarted_after(vm, "KILL")));
    checks.check("an agent that hangs (SIGSTOP), which the watchdog ends", || {
        let result = load.survives(|| is_restarted_after(vm, "STOP"))?;
        vm.ok("journalctl --unit redirector --boot --no-pager | grep 'Watchdog timeout'")?;
        Ok(result)
    });
    checks.check("an upgrade of the package", || {
        let version = || vm.ok("dpkg-query --show --showformat '${Version}' redirector");
        let before = version()?;
        let result = load.survives(|| vm.ok("dpkg --install /root/later.deb").map(drop))?;
        let after = version()?;
        ensure!(before != after, "still version {before}");
        Ok(format!("{before} to {after}, {result}"))
    });
    checks.check("after all that, the same parent is attached", || {
        load.stop()?;
        attached_is(vm, &["system.slice"])
    });
}

/// Sends a signal; systemd must start another agent, which serves.
fn is_restarted_after(vm: &Vm, signal: &str) -> Result<()> {
    let restarts = || vm.ok("systemctl show --value --property NRestarts redirector");
    let before = restarts()?;
    vm.ok(&format!("systemctl kill --kill-whom main --signal {signal} redirector"))?;
    process::until("another agent", LIMIT, || {
        thread::sleep(POLL);
        Ok(restarts()? != before && vm.run("systemctl is-active redirector")?.status.success())
    })
}

/// Boots with systemd-resolved, which was off before. A container with a restart policy looks the
/// name up at once.
pub(crate) fn starts_first_at_boot(checks: &mut Checks, vm: &Vm) {
    let mut is_up = false;
    checks.check("the machine boots again, with systemd-resolved", || {
        vm.ok("docker run --detach --name always --restart always --env TRIES=1 job \
            bash -c 'bash /fetch; sleep 100000'")?;
        vm.ok("systemctl --quiet enable systemd-resolved && \
            ln --force --symbolic ../run/systemd/resolve/stub-resolv.conf /etc/resolv.conf")?;
        vm.reboot()?;
        is_up = true;
        vm.ok("readlink --canonicalize /etc/resolv.conf")
    });
    assert!(is_up, "the machine did not boot again");
    checks.check("the agent starts before Docker", || {
        let active = |unit| -> Result<u64> {
            let property = "ActiveEnterTimestampMonotonic";
            let begun = "ExecMainStartTimestampMonotonic";
            let property = if unit == "docker" { begun } else { property };
            Ok(vm.ok(&format!("systemctl show --value --property {property} {unit}"))?.parse()?)
        };
        let (agent, docker) = (active("redirector")?, active("docker")?);
        ensure!(agent <= docker, "Docker started {} ms earlier", (agent - docker) / 1000);
        Ok(format!("by {} ms", (docker - agent) / 1000))
    });
    checks.check("a container with a restart policy is redirected at its first try", || {
        let fetched = || vm.ok("docker logs always 2>&1 | grep -c -e fetched: -e 'no connection'");
        process::until("the container's second start", LIMIT, || Ok(fetched()?.trim() == "2"))?;
        let line = vm.ok("docker logs --tail 1 always")?;
        ensure!(line.contains("fetched: "), "{line}");
        Ok(line.trim_start_matches("fetched: ").to_owned())
    });
    checks.check("since its start, one parent has been attached", || {
        attached_once_is(vm, "system.slice")
    });
}
