//! The steps of the demo, each playable alone. Each one leaves the scene as it found it.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use testbed::{
    clients::LoadOptions,
    clients::{LoadProcess, arguments},
    customer::Customer,
    sample_artifacts,
    topology::INTERNAL_NAME,
    topology::{UNRELATED_ADDRESS, UNRELATED_NAME},
};

use super::scene::Scene;
use super::transcript::{Step, Who};

/// One step.
pub(super) struct Act {
    /// What `--only` calls it.
    pub(super) key: &'static str,
    /// What it shows.
    pub(super) title: &'static str,
    /// Plays it.
    pub(super) play: fn(&mut Scene, &mut Step<'_>) -> Result<()>,
}

/// All steps, in the order they are played.
pub(super) const ACTS: &[Act] = &[
    Act { key: "name", title: "The internal name has one stable virtual address", play: name },
    Act {
        key: "tls",
        title: "TLS to the internal name, through the public load balancer",
        play: tls,
    },
    Act {
        key: "image",
        title: "A container image is pushed and pulled (skopeo, a Go client)",
        play: image,
    },
    Act { key: "package", title: "A Python package is installed (pip)", play: package },
    Act {
        key: "outside",
        title: "A process outside the executor's cgroup is untouched, and nothing leaks",
        play: outside,
    },
    Act {
        key: "failover",
        title: "A load balancer dies, and connects go to the other one",
        play: failover,
    },
    Act { key: "route", title: "A changed route is live for the very next connect", play: route },
    Act {
        key: "kill",
        title: "The agent is killed under a thousand connects a second",
        play: kill,
    },
];

fn name(scene: &mut Scene, step: &mut Step<'_>) -> Result<()> {
    let sandbox = scene.executor.sandbox();
    let vip = scene.vip()?;
    let answer =
        step.run(Who::Executor, sandbox, &format!("dig +noall +answer {INTERNAL_NAME}"))?.stdout;
    let addresses: Vec<&str> =
        answer.lines().filter_map(|line| line.split_whitespace().last()).collect();
    step.prove(
        addresses == [vip.to_string()],
        &format!("one address, {vip}, from the pool 198.18.0.0/16"),
    );
    let other = step.run(
        Who::Executor,
        sandbox,
        &format!("dig {INTERNAL_NAME} AAAA | grep -E 'status:|ANSWER:'"),
    )?;
    step.prove(
        other.stdout.contains("NOERROR") && other.stdout.contains("ANSWER: 0"),
        "no IPv6 address, and no error either",
    );
    let foreign =
        step.run(Who::Executor, sandbox, &format!("getent hosts {UNRELATED_NAME}"))?.stdout;
    step.prove(
        foreign.starts_with(&UNRELATED_ADDRESS.to_string()),
        "any other name gets its own resolver's answer",
    );
    Ok(())
}

fn tls(scene: &mut Scene, step: &mut Step<'_>) -> Result<()> {
    let vip = scene.vip_at(443)?;
    let format =
        r"getpeername %{remote_ip}:%{remote_port}, certificate verified: %{ssl_verify_result}\n";
    let done = step.run(
        Who::Executor,
        scene.executor.sandbox(),
        &format!("curl -sS -w '{format}' https://{INTERNAL_NAME}/"),
    )?;
    step.prove(
        done.stdout.contains(&format!("asked for as {INTERNAL_NAME}")),
        "the registry answered, and was asked for by its internal name",
    );
    step.prove(
        done.stdout.contains(&format!("getpeername {vip}, certificate verified: 0")),
        "the client sees the virtual address it asked for, and a certificate that fits",
    );
    let log = format!("grep -h {INTERNAL_NAME} lb?/haproxy.log | sort | tail -1");
    let seen = step.run(Who::Customer, scene.rig.customer.sandbox(), &log)?.stdout;
    let fits = seen.contains(&format!("admitted {}:", Customer::admitted_address()));
    step.prove(
        fits,
        "the load balancer saw an allowlisted address and the internal name, and \
        passed TLS through",
    );
    Ok(())
}

fn image(scene: &mut Scene, step: &mut Step<'_>) -> Result<()> {
    let sandbox = scene.executor.sandbox();
    let reference = format!("docker://{INTERNAL_NAME}/team/hello:1.0");
    let pushed = step.run(
        Who::Executor,
        sandbox,
        &format!("skopeo --insecure-policy copy -q oci:image:1.0 {reference}"),
    )?;
    step.prove(pushed.status.success(), "pushed");
    let pulled = step.run(
        Who::Executor,
        sandbox,
        &format!("skopeo --insecure-policy copy -q {reference} oci:pulled:1.0"),
    )?;
    let identity =
        sample_artifacts::image_identity(&sandbox.home().join("pulled")).unwrap_or_default();
    step.prove(
        pulled.status.success() && identity == scene.image,
        &format!("pulled, and it is the same image: {:.19}…", scene.image),
    );
    let uploads = scene
        .registry
        .requests()
        .iter()
        .filter(|line| line.contains("PUT /v2/team/hello/manifests/1.0") && line.ends_with("201"))
        .count();
    step.prove(uploads > 0, "the registry's own log has the upload");
    std::fs::remove_dir_all(sandbox.home().join("pulled"))
        .context("failed to remove the pulled image")
}

fn package(scene: &mut Scene, step: &mut Step<'_>) -> Result<()> {
    let (sandbox, (package, module)) = (scene.executor.sandbox(), sample_artifacts::PACKAGE);
    let done = step.run(
        Who::Executor,
        sandbox,
        &format!(
            "pip install -q --index-url https://{INTERNAL_NAME}/simple --target site {package}"
        ),
    )?;
    step.prove(done.status.success(), "installed");
    let said = step.run(
        Who::Executor,
        sandbox,
        &format!("PYTHONPATH=site python -c 'import {module}; print({module}.hello())'"),
    )?;
    step.prove(said.stdout.trim() == sample_artifacts::PACKAGE_SAYS, "and it works");
    std::fs::remove_dir_all(sandbox.home().join("site"))
        .context("failed to remove the installed package")
}

fn outside(scene: &mut Scene, step: &mut Step<'_>) -> Result<()> {
    let command = format!("curl -sS --max-time 10 https://{INTERNAL_NAME}/");
    let done = step.run(Who::Outside, scene.executor.outside(), &command)?;
    let failed = done.status.code() == Some(7) && done.took < Duration::from_secs(1);
    step.prove(
        failed,
        &format!(
            "same network, other cgroup: not redirected, and told so after {} ms",
            done.took.as_millis()
        ),
    );
    step.run(
        Who::Customer,
        scene.rig.customer.sandbox(),
        "nft list counter ip rig leaked | grep packets",
    )?;
    let leaked = scene.rig.customer.leaked_packets()?;
    step.prove(
        leaked == 0,
        &format!("{leaked} packets for the pool have ever left the node: the leak guard holds"),
    );
    let direct = step.run(
        Who::Executor,
        scene.executor.sandbox(),
        "curl -sS -w '%{remote_ip}\\n' http://203.0.113.8:8080/",
    )?;
    step.prove(
        direct.stdout == "lb2\n203.0.113.8\n",
        "what the executor asks for by any other address goes there",
    );
    Ok(())
}

/// As a job's script would ask: a new process, a new query and a new connect each time.
fn greet(times: usize) -> String {
    let one = format!("curl -sS http://{INTERNAL_NAME}/");
    if times == 1 {
        one
    } else {
        format!("for i in $(seq {times}); do {one} || echo failed; done 2>&1 | sort | uniq -c")
    }
}

fn failover(scene: &mut Scene, step: &mut Step<'_>) -> Result<()> {
    let (sandbox, first) = (scene.executor.sandbox().clone(), scene.balancers[0].address());
    let both = step.run(Who::Executor, &sandbox, &greet(20))?.stdout;
    step.prove(
        both.contains("lb1") && both.contains("lb2") && !both.contains("failed"),
        "both load balancers serve",
    );
    let pid = scene.balancers[0].pid().context("load balancer 1 does not run")?;
    step.run(
        Who::Customer,
        scene.rig.customer.sandbox(),
        &format!("kill -KILL {pid}   # HAProxy at {first}"),
    )?;
    scene.balancers[0].stop()?;
    let command = format!(
        "until curl -sS http://{INTERNAL_NAME}/ 2>&1 | grep 'Failed to connect'; do :; done"
    );
    let unlucky = step.run(Who::Executor, &sandbox, &format!("timeout 10 sh -c \"{command}\""))?;
    step.prove(
        unlucky.status.success(),
        "one unlucky connect is refused, and its failure sets the \
        load balancer aside in the kernel",
    );
    let after = step.run(Who::Executor, &sandbox, &greet(20))?.stdout;
    step.prove(after.split_whitespace().eq(["20", "lb2"]), "the next 20 all succeed");
    step.prove(scene.is_set_aside(first)?, &format!("{first} is set aside"));
    step.typed(Who::Customer, "haproxy -db -f lb1/haproxy.cfg &");
    scene.balancers[0].start_again()?;
    let started = Instant::now();
    scene.wait_eligible(first, Duration::from_secs(15))?;
    let back = started.elapsed().as_secs_f64();
    let again = step.run(Who::Executor, &sandbox, &greet(20))?.stdout;
    step.prove(
        again.contains("lb1") && !again.contains("failed"),
        &format!("a probe takes it back, here after {back:.1} s, and it serves again"),
    );
    Ok(())
}

fn route(scene: &mut Scene, step: &mut Step<'_>) -> Result<()> {
    let (node, sandbox) = (scene.rig.node.sandbox().clone(), scene.executor.sandbox().clone());
    for (address, expected) in [("203.0.113.8", "lb2"), ("203.0.113.7", "lb1")] {
        let done = step.run(
            Who::Node,
            &node,
            &format!("redirector route set {INTERNAL_NAME} --destination {address}"),
        )?;
        let next = step.run(Who::Executor, &sandbox, &greet(1))?.stdout;
        step.prove(
            done.status.success() && next.trim() == expected,
            &format!("the next connect is at {address}"),
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
    step.prove(
        right == 8,
        &format!(
            "back and forth eight times more: {right} of 8 next connects are where the route points"
        ),
    );
    let restored =
        step.run(Who::Node, &node, &format!("redirector route remove {INTERNAL_NAME}"))?;
    step.prove(
        restored.status.success() && scene.route()?["origin"] == "file",
        "without the override, the file's route serves again",
    );
    Ok(())
}

fn kill(scene: &mut Scene, step: &mut Step<'_>) -> Result<()> {
    let target = scene.vip_at(80)?;
    let banners = scene.balancers.iter().map(|balancer| balancer.name()).collect();
    let options = LoadOptions {
        target,
        rate: 1000,
        seconds: 6.0,
        expect_peer: Some(target),
        expect_banner: banners,
    };
    step.typed(Who::Executor, &format!("testbed-client {} &", arguments(&options).join(" ")));
    let load = LoadProcess::start(scene.executor.sandbox(), &options)?;
    std::thread::sleep(Duration::from_millis(1500));

    step.run(
        Who::Node,
        scene.rig.node.sandbox(),
        &format!("kill -KILL {}   # the agent", scene.agent.pid()),
    )?;
    scene.agent.sigkill()?;
    std::thread::sleep(Duration::from_millis(500));
    let status = step.run(Who::Node, scene.rig.node.sandbox(), "redirector status")?;
    step.prove(
        status.status.code() == Some(1),
        "status works without the agent, from what is pinned in the kernel, and says what is \
            missing",
    );
    std::thread::sleep(Duration::from_millis(1000));

    step.typed(Who::Node, "redirector run &");
    scene.agent.restart()?;
    step.tell(&format!("ready after {:.2} s", scene.agent.ready_after().as_secs_f64()));
    let report = load.report()?;
    let failed: u64 = report.failed.values().sum();
    let shares: Vec<String> =
        report.banners.iter().map(|(name, count)| format!("{name} {count}")).collect();
    step.output(&format!(
        "{} attempted, {} connected, {failed} failed, {} with a wrong peer; {}\nconnect() took {} \
            µs (median), {} µs (99 of 100)",
        report.attempted,
        report.connected,
        report.wrong_peer,
        shares.join(", "),
        report.median_us,
        report.p99_us
    ));
    step.prove(
        report.flawless(),
        "before, while and after the agent was dead: every connect redirected, none failed",
    );
    for (time, what) in &report.failures {
        step.tell(&format!("at {time:.3} s: {what}"));
    }
    step.prove(
        scene.rig.customer.leaked_packets()? == 0,
        "no packet for a virtual address has left the node",
    );
    step.prove(
        scene.vip_at(80)? == target,
        &format!("the virtual address is {} as before", target.ip()),
    );
    let after = step.run(Who::Node, scene.rig.node.sandbox(), "redirector status")?;
    step.prove(after.status.success(), "all is well again");
    Ok(())
}
