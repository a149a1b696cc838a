//! The steps of the demo. Each can be played alone, and restores what it changed.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use testbed::{
    clients::{LoadOptions, LoadProcess, arguments},
    customer::Customer,
    sample_artifacts,
    topology::{INTERNAL_NAME, UNRELATED_ADDRESS, UNRELATED_NAME},
};

use super::fixture::Fixture;
use super::transcript::{Prompt, StepLog};

/// One step.
pub(super) struct Step {
    /// Its name in `--only`.
    pub(super) key: &'static str,
    /// Its title in the transcript.
    pub(super) title: &'static str,
    /// Plays it.
    pub(super) play: fn(&mut Fixture, &mut StepLog<'_>) -> Result<()>,
}

/// All steps, in the order they are played.
pub(super) const STEPS: &[Step] = &[
    Step { key: "name", title: "The internal name resolves to one virtual address", play: name },
    Step {
        key: "tls",
        title: "TLS to the internal name, through the public load balancer",
        play: tls,
    },
    Step {
        key: "image",
        title: "A container image is pushed and pulled (skopeo, a Go client)",
        play: image,
    },
    Step { key: "package", title: "A Python package is installed (pip)", play: package },
    Step {
        key: "guest",
        title: "A guest, which no cgroup program sees, is redirected by packet",
        play: guest,
    },
    Step { key: "others", title: "Others are not redirected, and nothing leaks", play: others },
    Step {
        key: "failover",
        title: "A load balancer dies, and connects go to the other one",
        play: failover,
    },
    Step { key: "route", title: "A route change applies to the next connect", play: route },
    Step {
        key: "kill",
        title: "The agent is killed under a thousand connects a second",
        play: kill,
    },
];

fn name(fixture: &mut Fixture, log: &mut StepLog<'_>) -> Result<()> {
    let sandbox = fixture.executor.sandbox();
    let vip = fixture.vip()?;
    let answer =
        log.run(Prompt::Executor, sandbox, &format!("dig +noall +answer {INTERNAL_NAME}"))?.stdout;
    let addresses: Vec<&str> =
        answer.lines().filter_map(|line| line.split_whitespace().last()).collect();
    log.check(
        addresses == [vip.to_string()],
        &format!("one address, {vip}, from the pool 198.18.0.0/16"),
    );
    let other = log.run(
        Prompt::Executor,
        sandbox,
        &format!("dig {INTERNAL_NAME} AAAA | grep -E 'status:|ANSWER:'"),
    )?;
    log.check(
        other.stdout.contains("NOERROR") && other.stdout.contains("ANSWER: 0"),
        "no IPv6 address, and no error",
    );
    let foreign =
        log.run(Prompt::Executor, sandbox, &format!("getent hosts {UNRELATED_NAME}"))?.stdout;
    log.check(
        foreign.starts_with(&UNRELATED_ADDRESS.to_string()),
        "other names are resolved as before",
    );
    Ok(())
}

fn tls(fixture: &mut Fixture, log: &mut StepLog<'_>) -> Result<()> {
    let vip = fixture.vip_at(443)?;
    let format =
        r"getpeername %{remote_ip}:%{remote_port}, certificate verified: %{ssl_verify_result}\n";
    let done = log.run(
        Prompt::Executor,
        fixture.executor.sandbox(),
        &format!("curl -sS -w '{format}' https://{INTERNAL_NAME}/"),
    )?;
    log.check(
        done.stdout.contains(&format!("requested as {INTERNAL_NAME}")),
        "the registry answered under its internal name",
    );
    log.check(
        done.stdout.contains(&format!("getpeername {vip}, certificate verified: 0")),
        "getpeername returns the virtual address, and the certificate is valid for the name",
    );
    let grep = format!("grep -h {INTERNAL_NAME} lb?/haproxy.log | sort | tail -1");
    let seen = log.run(Prompt::Customer, fixture.rig.customer.sandbox(), &grep)?.stdout;
    let fits = seen.contains(&format!("admitted {}:", Customer::admitted_address()));
    log.check(fits, "the load balancer saw an allowlisted address and the internal name in TLS");
    Ok(())
}

fn image(fixture: &mut Fixture, log: &mut StepLog<'_>) -> Result<()> {
    let sandbox = fixture.executor.sandbox();
    let reference = format!("docker://{INTERNAL_NAME}/team/hello:1.0");
    let pushed = log.run(
        Prompt::Executor,
        sandbox,
        &format!("skopeo --insecure-policy copy -q oci:image:1.0 {reference}"),
    )?;
    log.check(pushed.status.success(), "pushed");
    let pulled = log.run(
        Prompt::Executor,
        sandbox,
        &format!("skopeo --insecure-policy copy -q {reference} oci:pulled:1.0"),
    )?;
    let identity =
        sample_artifacts::image_identity(&sandbox.home().join("pulled")).unwrap_or_default();
    log.check(
        pulled.status.success() && identity == fixture.image,
        &format!("pulled the same image: {:.19}…", fixture.image),
    );
    let uploads = fixture
        .registry
        .requests()
        .iter()
        .filter(|line| line.contains("PUT /v2/team/hello/manifests/1.0") && line.ends_with("201"))
        .count();
    log.check(uploads > 0, "the upload is in the registry's log");
    std::fs::remove_dir_all(sandbox.home().join("pulled"))
        .context("failed to remove the pulled image")
}

fn package(fixture: &mut Fixture, log: &mut StepLog<'_>) -> Result<()> {
    let (sandbox, (package, module)) = (fixture.executor.sandbox(), sample_artifacts::PACKAGE);
    let done = log.run(
        Prompt::Executor,
        sandbox,
        &format!(
            "pip install -q --index-url https://{INTERNAL_NAME}/simple --target site {package}"
        ),
    )?;
    log.check(done.status.success(), "installed");
    let output = log.run(
        Prompt::Executor,
        sandbox,
        &format!("PYTHONPATH=site python -c 'import {module}; print({module}.hello())'"),
    )?;
    log.check(output.stdout.trim() == sample_artifacts::PACKAGE_GREETING, "the package works");
    std::fs::remove_dir_all(sandbox.home().join("site"))
        .context("failed to remove the installed package")
}

fn guest(fixture: &mut Fixture, log: &mut StepLog<'_>) -> Result<()> {
    let done = log.run(
        Prompt::Guest,
        fixture.executor.outside(),
        &format!("curl -sS --max-time 10 https://{INTERNAL_NAME}/"),
    )?;
    log.check(
        done.stdout.contains(&format!("requested as {INTERNAL_NAME}")),
        "the same network, but no program on its cgroup: the registry answered",
    );
    Ok(())
}

fn others(fixture: &mut Fixture, log: &mut StepLog<'_>) -> Result<()> {
    let command = format!("curl -sS --max-time 10 http://{}/", fixture.vip_at(80)?);
    let done = log.run(Prompt::Node, fixture.rig.node.sandbox(), &command)?;
    let failed = done.status.code() == Some(7) && done.took < Duration::from_secs(1);
    log.check(
        failed,
        &format!(
            "a process of the node itself: refused after {} ms, not redirected",
            done.took.as_millis()
        ),
    );
    log.run(
        Prompt::Customer,
        fixture.rig.customer.sandbox(),
        "nft list counter ip rig leaked | grep packets",
    )?;
    let leaked = fixture.rig.customer.leaked_packets()?;
    log.check(leaked == 0, &format!("{leaked} packets for the pool have left the node"));
    let direct = log.run(
        Prompt::Executor,
        fixture.executor.sandbox(),
        "curl -sS -w '%{remote_ip}\\n' http://203.0.113.8:8080/",
    )?;
    log.check(
        direct.stdout == "lb2\n203.0.113.8\n",
        "connects to other addresses are not redirected",
    );
    Ok(())
}

/// Requests as in a shell script: each is a new process, a new DNS query and a new connect.
fn greet(times: usize) -> String {
    let one = format!("curl -sS http://{INTERNAL_NAME}/");
    if times == 1 {
        one
    } else {
        format!("for i in $(seq {times}); do {one} || echo failed; done 2>&1 | sort | uniq -c")
    }
}

fn failover(fixture: &mut Fixture, log: &mut StepLog<'_>) -> Result<()> {
    let (sandbox, first) = (fixture.executor.sandbox().clone(), fixture.balancers[0].address());
    let both = log.run(Prompt::Executor, &sandbox, &greet(20))?.stdout;
    log.check(
        both.contains("lb1") && both.contains("lb2") && !both.contains("failed"),
        "both load balancers serve connects",
    );
    let pid = fixture.balancers[0].pid().context("load balancer 1 does not run")?;
    log.run(
        Prompt::Customer,
        fixture.rig.customer.sandbox(),
        &format!("kill -KILL {pid}   # HAProxy at {first}"),
    )?;
    fixture.balancers[0].stop()?;
    let command = format!(
        "until curl -sS http://{INTERNAL_NAME}/ 2>&1 | grep 'Failed to connect'; do :; done"
    );
    let refused =
        log.run(Prompt::Executor, &sandbox, &format!("timeout 10 sh -c \"{command}\""))?;
    log.check(
        refused.status.success(),
        "one connect is refused; the kernel then ejects the load balancer",
    );
    let after = log.run(Prompt::Executor, &sandbox, &greet(20))?.stdout;
    log.check(after.split_whitespace().eq(["20", "lb2"]), "the next 20 connects succeed");
    log.check(fixture.is_ejected(first)?, &format!("{first} is ejected"));
    log.command(Prompt::Customer, "haproxy -db -f lb1/haproxy.cfg &");
    fixture.balancers[0].start_again()?;
    let started = Instant::now();
    fixture.wait_eligible(first, Duration::from_secs(15))?;
    let back = started.elapsed().as_secs_f64();
    let again = log.run(Prompt::Executor, &sandbox, &greet(20))?.stdout;
    log.check(
        again.contains("lb1") && !again.contains("failed"),
        &format!("a probe readmits it after {back:.1} s, and it serves again"),
    );
    Ok(())
}

fn route(fixture: &mut Fixture, log: &mut StepLog<'_>) -> Result<()> {
    let (node, sandbox) = (fixture.rig.node.sandbox().clone(), fixture.executor.sandbox().clone());
    for (address, expected) in [("203.0.113.8", "lb2"), ("203.0.113.7", "lb1")] {
        let done = log.run(
            Prompt::Node,
            &node,
            &format!("redirector route set {INTERNAL_NAME} --destination {address}"),
        )?;
        let next = log.run(Prompt::Executor, &sandbox, &greet(1))?.stdout;
        log.check(
            done.status.success() && next.trim() == expected,
            &format!("the next connect reaches {address}"),
        );
    }
    let mut right = 0;
    for round in 0..8 {
        let (address, expected) = [("203.0.113.8", "lb2"), ("203.0.113.7", "lb1")][round % 2];
        node.run(
            &format!("redirector route set {INTERNAL_NAME} --destination {address}"),
            Duration::from_secs(10),
        )?
        .success()?;
        right +=
            usize::from(sandbox.run(&greet(1), Duration::from_secs(10))?.stdout.trim() == expected);
    }
    log.check(
        right == 8,
        &format!("eight more changes: {right} of 8 next connects follow the route"),
    );
    let restored =
        log.run(Prompt::Node, &node, &format!("redirector route remove {INTERNAL_NAME}"))?;
    log.check(
        restored.status.success() && fixture.route()?["origin"] == "file",
        "without the override, the route of the file applies again",
    );
    Ok(())
}

fn kill(fixture: &mut Fixture, log: &mut StepLog<'_>) -> Result<()> {
    let target = fixture.vip_at(80)?;
    let banners = fixture.balancers.iter().map(|balancer| balancer.name()).collect();
    let options = LoadOptions {
        target,
        rate: 1000,
        seconds: 6.0,
        expect_peer: Some(target),
        expect_banner: banners,
    };
    log.command(Prompt::Executor, &format!("testbed-client {} &", arguments(&options).join(" ")));
    let load = LoadProcess::start(fixture.executor.sandbox(), &options)?;
    std::thread::sleep(Duration::from_millis(1500));

    log.run(
        Prompt::Node,
        fixture.rig.node.sandbox(),
        &format!("kill -KILL {}   # the agent", fixture.agent.pid()),
    )?;
    fixture.agent.sigkill()?;
    std::thread::sleep(Duration::from_millis(500));
    let status = log.run(Prompt::Node, fixture.rig.node.sandbox(), "redirector status")?;
    log.check(
        status.status.code() == Some(1),
        "without the agent, status reads the pinned state and reports the missing agent",
    );
    std::thread::sleep(Duration::from_millis(1000));

    log.command(Prompt::Node, "redirector run &");
    fixture.agent.restart()?;
    log.note(&format!("ready after {:.2} s", fixture.agent.ready_after().as_secs_f64()));
    let report = load.report()?;
    let failed: u64 = report.failed.values().sum();
    let shares: Vec<String> =
        report.banners.iter().map(|(name, count)| format!("{name} {count}")).collect();
    log.output(&format!(
        "{} attempted, {} connected, {failed} failed, {} with a wrong peer; {}\nconnect() took {} \
            µs (median), {} µs (99th percentile)",
        report.attempted,
        report.connected,
        report.wrong_peer,
        shares.join(", "),
        report.median_us,
        report.p99_us
    ));
    log.check(
        report.flawless(),
        "every connect was redirected, before, during and after the outage of the agent",
    );
    for (time, what) in &report.failures {
        log.note(&format!("at {time:.3} s: {what}"));
    }
    log.check(
        fixture.rig.customer.leaked_packets()? == 0,
        "no packet for a virtual address has left the node",
    );
    log.check(
        fixture.vip_at(80)? == target,
        &format!("the virtual address is still {}", target.ip()),
    );
    let after = log.run(Prompt::Node, fixture.rig.node.sandbox(), "redirector status")?;
    log.check(after.status.success(), "status reports no problem");
    Ok(())
}
