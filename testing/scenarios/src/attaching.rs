//! Scenarios of attaching: the results of `redirector check` on this kernel, the pins of another
//! version, removed cgroups.

use std::{
    fs,
    net::TcpStream,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use redirector::{
    config::CgroupSpec,
    datapath::{self, Outcome, Settings, Version},
    route::OnNoBackend::Refuse,
};
use redirector_common::names;

use crate::{
    fixture::{
        Fixture, ONE, attached_as, attached_with, greeting, kernel_version, open, settings,
        under_load, vip_target,
    },
    init,
};

/// The first kernel whose verifier accepts the programs that log without CAP_PERFMON.
const LOG_WITHOUT_PERFMON: (u32, u32) = (6, 17);
/// The VIP of [`debug_log`].
const LOG_INDEX: u32 = 17;

/// `redirector check` reports exactly what this kernel and these privileges lack, in order.
pub(crate) fn check(_: &mut Fixture) -> Result<()> {
    let checks =
        datapath::preflight(&settings()?, &[CgroupSpec::Pattern(init::ATTACHED.to_owned())]);
    let findings: Vec<_> = checks.iter().filter(|check| check.outcome != Outcome::Ok).collect();
    let lacks = |since: (u32, u32)| kernel_version() < since;
    let mut expected = Vec::new();
    if lacks((6, 1)) {
        expected.push(("refusal", Outcome::Warning, "EPERM"));
    }
    if lacks((6, 0)) {
        expected.push(("keepalive", Outcome::Warning, "keepalive on every socket"));
    }
    if lacks((6, 6)) {
        expected.push(("tcx", Outcome::Warning, "filters of the clsact qdisc"));
    }
    // This machine serves no DNS.
    expected.push(("CAP_NET_BIND_SERVICE", Outcome::Failed, "missing"));
    let same = findings.len() == expected.len()
        && findings.iter().zip(&expected).all(|(check, (name, outcome, words))| {
            check.name == *name
                && check.outcome == *outcome
                && check.detail.contains(words)
                && check.remedy.is_some()
        });
    ensure!(same, "expected {expected:?}, got {findings:?}");
    for (name, words) in [
        ("programs", if lacks((5, 16)) { " load" } else { "the verifier processed" }),
        ("memlock", if lacks((5, 11)) { "unlimited" } else { "cgroup's memory" }),
        ("foreign_programs", "no other program"),
        ("cgroup2", init::ATTACHED),
    ] {
        let check = checks
            .iter()
            .find(|check| check.name == name)
            .with_context(|| format!("no line {name}"))?;
        ensure!(check.detail.contains(words), "{name}: `{words}` is not in: {}", check.detail);
    }
    Ok(())
}

/// The programs that log replace the plain ones during connects where this kernel accepts them
/// without CAP_PERFMON. Elsewhere `redirector check` names the capability, and the plain programs
/// keep redirecting.
pub(crate) fn debug_log(fixture: &mut Fixture) -> Result<()> {
    let logging = Settings { debug_log: true, ..settings()? };
    let accepted = kernel_version() >= LOG_WITHOUT_PERFMON;
    let row = datapath::preflight(&logging, &[CgroupSpec::Pattern(init::ATTACHED.to_owned())])
        .into_iter()
        .find(|check| check.name == "debug_log")
        .context("no line debug_log")?;
    let expected = if accepted { "load" } else { "CAP_PERFMON" };
    ensure!((row.outcome == Outcome::Ok) == accepted && row.detail.contains(expected), "{row:?}");
    fixture.put(LOG_INDEX, &[], &[ONE], Refuse)?;
    let made = under_load(LOG_INDEX, || {
        fixture.datapath = attached_with(&logging, &Version::own())?;
        ensure!(fixture.datapath.take_decision_log().is_some() == accepted, "not these programs");
        fixture.datapath = attached_with(&settings()?, &Version::own())?;
        Ok(())
    })?;
    let counters = fixture.datapath.route_counters(LOG_INDEX)?;
    ensure!(counters.established == made && made > 0, "{made} connects, counted {counters:?}");
    Ok(())
}

/// A newer version with larger tables takes over routes, counters and links during connects.
pub(crate) fn upgrade(fixture: &mut Fixture) -> Result<()> {
    fixture.put(15, &[], &[ONE], Refuse)?;
    let before = fixture.datapath.plan();
    let own = Version::own();
    let newer = Version { abi: own.abi + 1, extra_entries: vec![(names::SLOTS, 64)], ..own };
    let connects = under_load(15, || {
        fixture.datapath = attached_as(&newer)?;
        Ok(())
    })?;
    ensure!(fixture.datapath.plan() == before, "the plan has changed");
    let counters = fixture.datapath.route_counters(15)?;
    ensure!(
        counters.established == connects && connects > 0,
        "{connects} connects, counted {counters:?}"
    );
    let pins: Vec<_> =
        fs::read_dir(settings()?.bpffs)?.flatten().map(|entry| entry.file_name()).collect();
    ensure!(pins == [format!("v{}", newer.abi).as_str()], "{pins:?}");
    Ok(())
}

/// Links that another process detached, and pins that it removed, are restored by the agent, which
/// holds them.
pub(crate) fn restored(fixture: &mut Fixture) -> Result<()> {
    fixture.put(18, &[], &[ONE], Refuse)?;
    datapath::unload(&settings()?.bpffs)?;
    ensure!(fixture.datapath.heal()?.len() >= 2, "links and maps are not missing");
    greeting(vip_target(18)).context("after the links were detached")?;
    fs::remove_dir_all(&settings()?.bpffs).context("failed to remove the pins")?;
    greeting(vip_target(18)).context("without pins")?;
    let healed = fixture.datapath.heal()?;
    ensure!(healed.iter().all(|what| what.contains("pins")) && healed.len() >= 2, "{healed:?}");
    ensure!(fixture.datapath.heal()?.is_empty(), "not restored");
    greeting(vip_target(18)).context("with restored pins")?;
    let counters = fixture.datapath.route_counters(18)?;
    ensure!(counters.established == 3, "{counters:?}");
    Ok(())
}

/// A connection that outlives its cgroup is counted until it closes; then the links are gone.
pub(crate) fn removed_cgroup(fixture: &mut Fixture) -> Result<()> {
    const SHORT: &str = "/sys/fs/cgroup/jobs/short";
    fixture.put(16, &[], &[ONE], Refuse)?;
    fs::create_dir(SHORT).context("failed to make a cgroup")?;
    let both =
        [CgroupSpec::Pattern(init::ATTACHED.to_owned()), CgroupSpec::Pattern("jobs/*".to_owned())];
    let attach = |fixture: &mut Fixture| -> Result<usize> {
        Ok(fixture.datapath.attach(&datapath::cgroups(&both)?)?.len())
    };
    ensure!(attach(fixture)? == 2, "not attached");
    let stream = connected_in(SHORT)?;
    fs::remove_dir(SHORT).context("failed to remove a cgroup")?;
    ensure!(
        (attach(fixture)?, fixture.datapath.draining()) == (1, 1),
        "{:?}, {} draining",
        fixture.datapath.attachments(),
        fixture.datapath.draining()
    );
    drop(stream);
    let deadline = Instant::now() + Duration::from_secs(8);
    while fixture.datapath.draining() > 0 {
        ensure!(Instant::now() < deadline, "a removed cgroup still drains after 8 s");
        std::thread::sleep(Duration::from_millis(50));
        attach(fixture)?;
    }
    let counters = fixture.datapath.route_counters(16)?;
    ensure!((counters.established, counters.closed) == (1, 1), "{counters:?}");
    Ok(())
}

/// A connection whose socket was created in `cgroup`, which this process has left again.
fn connected_in(cgroup: &str) -> Result<TcpStream> {
    let enter = |cgroup: &str| {
        fs::write(format!("{cgroup}/cgroup.procs"), "0")
            .with_context(|| format!("failed to enter {cgroup}"))
    };
    enter(cgroup)?;
    let stream = open(vip_target(16));
    enter(init::POD)?;
    Ok(stream?)
}
