//! Scenarios of attaching: what `redirector check` says of this kernel, another version's pins,
//! cgroups that go.

use std::fs;
use std::net::TcpStream;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use redirector::config::CgroupSpec;
use redirector::datapath::{self, Outcome, Version};
use redirector::route::OnNoBackend::Refuse;
use redirector_common::names;

use crate::bed::{Bed, ONE, attached_as, open, settings};
use crate::machine;
use crate::scenarios::{at, kernel};

/// Each line of `redirector check` is what this kernel and these privileges come to: what fails or
/// warns, in order, with words of it.
pub(crate) fn check(_: &mut Bed) -> Result<()> {
    let checks =
        datapath::preflight(&settings()?, &[CgroupSpec::Pattern(machine::ATTACHED.to_owned())]);
    let told: Vec<_> = checks.iter().filter(|check| check.outcome != Outcome::Ok).collect();
    let lacks = |since: (u32, u32)| kernel() < since;
    let mut expected = Vec::new();
    if lacks((6, 1)) {
        expected.push(("refusal", Outcome::Warning, "EPERM"));
    }
    if lacks((6, 0)) {
        expected.push(("keepalive", Outcome::Warning, "keepalive on every socket"));
    }
    // This machine serves no DNS.
    expected.push(("CAP_NET_BIND_SERVICE", Outcome::Failed, "missing"));
    let same = told.len() == expected.len()
        && told.iter().zip(&expected).all(|(check, (name, outcome, words))| {
            check.name == *name
                && check.outcome == *outcome
                && check.detail.contains(words)
                && check.remedy.is_some()
        });
    ensure!(same, "expected {expected:?}, told {told:?}");
    for (name, words) in [
        ("programs", if lacks((5, 16)) { " load" } else { "the verifier looked at" }),
        ("memlock", if lacks((5, 11)) { "unlimited" } else { "cgroup's memory" }),
        ("foreign_programs", "no other program"),
        ("cgroup2", machine::ATTACHED),
    ] {
        let check = checks
            .iter()
            .find(|check| check.name == name)
            .with_context(|| format!("no line {name}"))?;
        ensure!(check.detail.contains(words), "{name}: `{words}` is not said: {}", check.detail);
    }
    Ok(())
}

/// A younger version with larger tables takes routes, counters and links over while connects go on.
pub(crate) fn take_over(bed: &mut Bed) -> Result<()> {
    bed.put(15, &[], &[ONE], Refuse)?;
    let before = bed.datapath.plan();
    let own = Version::own();
    let younger = Version { abi: own.abi + 1, extra_entries: vec![(names::SLOTS, 64)], ..own };
    let made = crate::scenarios::under_load(15, || {
        bed.datapath = attached_as(&younger)?;
        Ok(())
    })?;
    ensure!(bed.datapath.plan() == before, "the plan is not what it was");
    let counters = bed.datapath.route_counters(15)?;
    ensure!(counters.established == made && made > 0, "{made} connects, counted {counters:?}");
    let pins: Vec<_> =
        fs::read_dir(settings()?.bpffs)?.flatten().map(|entry| entry.file_name()).collect();
    ensure!(pins == [format!("v{}", younger.abi).as_str()], "{pins:?}");
    Ok(())
}

/// A connection that outlives its cgroup is counted to its end, and then nothing of the cgroup is
/// left.
pub(crate) fn cgroup_goes(bed: &mut Bed) -> Result<()> {
    const SHORT: &str = "/sys/fs/cgroup/jobs/short";
    bed.put(16, &[], &[ONE], Refuse)?;
    fs::create_dir(SHORT).context("failed to make a cgroup")?;
    let both = [
        CgroupSpec::Pattern(machine::ATTACHED.to_owned()),
        CgroupSpec::Pattern("jobs/*".to_owned()),
    ];
    let attach = |bed: &mut Bed| -> Result<usize> {
        Ok(bed.datapath.attach(&datapath::cgroups(&both)?)?.len())
    };
    ensure!(attach(bed)? == 2, "not attached");
    let stream = connected_in(SHORT)?;
    fs::remove_dir(SHORT).context("failed to remove a cgroup")?;
    ensure!(
        (attach(bed)?, bed.datapath.draining()) == (1, 1),
        "{:?}, {} fade",
        bed.datapath.attachments(),
        bed.datapath.draining()
    );
    drop(stream);
    let deadline = Instant::now() + Duration::from_secs(8);
    while bed.datapath.draining() > 0 {
        ensure!(
            Instant::now() < deadline,
            "the kernel has not let go of a removed cgroup after 8 s"
        );
        std::thread::sleep(Duration::from_millis(50));
        attach(bed)?;
    }
    let counters = bed.datapath.route_counters(16)?;
    ensure!((counters.established, counters.closed) == (1, 1), "{counters:?}");
    Ok(())
}

/// A connection whose socket was made in `cgroup`, which this process has left again.
fn connected_in(cgroup: &str) -> Result<TcpStream> {
    let enter = |cgroup: &str| {
        fs::write(format!("{cgroup}/cgroup.procs"), "0")
            .with_context(|| format!("failed to enter {cgroup}"))
    };
    enter(cgroup)?;
    let stream = open(at(16));
    enter(machine::POD)?;
    Ok(stream?)
}
