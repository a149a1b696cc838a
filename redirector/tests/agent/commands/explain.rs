//! `redirector explain`: the path of a connect, and what would prevent it.

use testbed::{ExecutorOptions, ResolvConf, process::until, topology::INTERNAL_NAME};

use crate::{
    rig::{Job, LIMIT},
    stage::{CONFIG, ONLY_CGROUPS, Sleeper, ask, assert_cause},
};

#[test]
fn a_redirected_connect_is_explained_by_name_and_address() {
    let job = Job::with_config(CONFIG);
    let vip = job.vip();
    let sleeper = Sleeper::start(&job.executor, &[]);
    for arguments in [
        &["explain", INTERNAL_NAME][..],
        &["explain", &vip],
        &["explain", INTERNAL_NAME, "--pid", &sleeper.pid()],
    ] {
        let (json, finished) = ask(&job, arguments);
        assert_eq!(finished.status.code(), Some(0), "{}", finished.text());
        assert_eq!(json["vip"], vip);
        assert_eq!(json["backends"].as_array().unwrap().len(), 2, "{json}");
        assert!(json["verdict"].as_str().unwrap().contains("one of 2 eligible backends"), "{json}");
    }
    let people = job.cli(&["explain", &format!("{INTERNAL_NAME}:8443"), "--pid", &sleeper.pid()]);
    for words in [
        "8443 becomes 8080",
        "203.0.113.7:8080",
        "kubepods/podjob is covered by",
        "nameserver 169.254.20.53",
    ] {
        assert!(people.stdout.contains(words), "{words}: {}", people.text());
    }
}

#[test]
fn causes_that_prevent_a_connect_are_named() {
    let mut job = Job::with_config(CONFIG);
    let vip = job.vip();
    let explain = |job: &Job, rest: &[&str], code: &str, words: &[&str]| {
        assert_cause(job, &[&["explain"], rest].concat(), code, words)
    };
    explain(
        &job,
        &["artifactory.intern.company.net"],
        "no_route",
        &["did you mean artifactory.internal.company.net?"],
    );
    explain(&job, &["198.18.77.7"], "vip_without_route", &["refused at once"]);
    explain(&job, &["203.0.113.7"], "not_virtual", &["load balancer's own address", INTERNAL_NAME]);
    explain(&job, &["192.0.2.1:80"], "not_virtual", &["not a virtual address"]);
    explain(&job, &[&format!("{vip}:22")], "port_not_listed", &["port 22"]);
    explain(
        &job,
        &["nowhere.internal.company.net"],
        "no_backends",
        &["nowhere.public.company.net", "refused at once"],
    );

    let other = |job: &Job, name: &str, cgroup: &str, nameserver: &str| {
        let options = ExecutorOptions {
            resolv: ResolvConf::of(nameserver),
            cgroup: Some(cgroup.into()),
            ..ExecutorOptions::pod(name)
        };
        job.rig.executor(options).unwrap()
    };
    let coredns = other(&job, "coredns", "kubepods/coredns", "10.96.0.10");
    let sleeper = Sleeper::start(&job.executor, &[("https_proxy", "http://proxy:3128")]);
    let proxy = "https_proxy=http://proxy:3128";
    explain(&job, &[INTERNAL_NAME, "--pid", &sleeper.pid()], "proxy", &[proxy]);
    // Another nameserver works as well as the shim while it is intercepted.
    let sleeper = Sleeper::start(&coredns, &[]);
    let explained = job.cli(&["explain", INTERNAL_NAME, "--pid", &sleeper.pid()]);
    assert!(
        explained.status.success()
            && explained.stdout.contains("nameserver 10.96.0.10 (intercepted)"),
        "{}",
        explained.text()
    );
    let sleeper = Sleeper::with_name("qemu-system-x86", &job.executor, &[]);
    explain(&job, &[INTERNAL_NAME, "--pid", &sleeper.pid()], "guest_kernel", &["QEMU"]);
    let missing = job.cli(&["explain", INTERNAL_NAME, "--pid", "4194303"]);
    assert_eq!(missing.status.code(), Some(1));
    assert!(missing.stderr.contains("there is no process 4194303"), "{}", missing.text());

    job.agent.sigkill().unwrap();
    explain(&job, &[INTERNAL_NAME], "agent_dead", &["redirector run"]);

    let job = Job::with_config(&format!(
        "{ONLY_CGROUPS}{CONFIG}[dns]\nintercept = \"sockets\"\nintercept_resolvers = \
            [\"10.96.0.11\"]\n"
    ));
    for (name, cgroup, nameserver, code, words) in [
        ("loopback", "kubepods/loopback", "127.0.0.53", "loopback_resolver", "127.0.0.53"),
        ("stray", "system.slice/stray", "169.254.20.53", "wrong_cgroup", "system.slice/stray"),
    ] {
        let sleeper = Sleeper::start(&other(&job, name, cgroup, nameserver), &[]);
        explain(&job, &[INTERNAL_NAME, "--pid", &sleeper.pid()], code, &[words]);
    }
    let options =
        ExecutorOptions { resolv: ResolvConf::of("10.96.0.10"), ..ExecutorOptions::pod("coredns") };
    let sleeper = Sleeper::start(&job.rig.executor(options).unwrap(), &[]);
    explain(
        &job,
        &[INTERNAL_NAME, "--pid", &sleeper.pid()],
        "other_resolver",
        &["10.96.0.10", "not in dns.intercept"],
    );
}

/// A resolver on loopback in the job's own cgroup has its queries intercepted as the job's are.
#[test]
fn a_resolver_on_loopback_counts_by_its_cgroup() {
    let config = format!(
        "{ONLY_CGROUPS}{CONFIG}[dns]\nintercept = \"sockets\"\nintercept_resolvers = \
            [\"203.0.113.53\"]\n"
    );
    let job = Job::with_config(&config);
    let resolv = ResolvConf::of("127.0.0.1");
    let executor =
        job.rig.executor(ExecutorOptions { resolv, ..ExecutorOptions::pod("own") }).unwrap();
    let sleeper = Sleeper::start(&executor, &[]);
    let pid = sleeper.pid();
    let run = |sandbox: &testbed::Sandbox| {
        let line = "dnsmasq --no-daemon --conf-file=/dev/null --no-resolv --no-hosts --user=root \
            --listen-address=127.0.0.1 --bind-interfaces --server=203.0.113.53";
        sandbox.run(&format!("{line} >dnsmasq.log 2>&1 & echo $! >pid"), LIMIT).unwrap();
    };
    let is_bound = || Ok(executor.run("ss -Hlun sport = 53 | grep -q .", LIMIT)?.status.success());
    let explain = ["explain", INTERNAL_NAME, "--pid", &pid];
    let verify = ["verify", INTERNAL_NAME, "--pid", &pid, "--until", "connect", "--timeout", "3"];
    run(executor.sandbox());
    until("the job's resolver", LIMIT, || {
        let line = format!("getent ahostsv4 {INTERNAL_NAME}");
        Ok(executor.run(&line, LIMIT)?.stdout.starts_with("198.18."))
    })
    .unwrap();
    let words = ["dnsmasq (pid", "podown, which is attached"];
    assert_cause(&job, &explain, "loopback_resolver", &words);
    let (json, finished) = ask(&job, &verify);
    assert!(finished.status.success(), "{}", finished.text());
    assert_eq!(json["vantage"]["process"]["local_resolver"]["command"], "dnsmasq");

    // The same resolver in another cgroup is not covered.
    executor.run("kill $(cat pid)", LIMIT).unwrap().success().unwrap();
    until("the resolver's end", LIMIT, || Ok(!is_bound()?)).unwrap();
    run(executor.outside());
    until("the other resolver", LIMIT, is_bound).unwrap();
    let words = ["dnsmasq (pid", "system.slice/other.service"];
    assert_cause(&job, &explain, "loopback_resolver", &words);
    assert_cause(&job, &verify, "loopback_resolver", &words);
    let (json, _) = ask(&job, &explain);
    assert_eq!(json["redirected"], false, "{json}");
}

#[test]
fn ejection_of_all_backends_is_named() {
    let mut job = Job::with_config(CONFIG);
    for balancer in &mut job.balancers {
        balancer.stop().unwrap();
    }
    let sleeper = Sleeper::start(&job.executor, &[]);
    let explained = |arguments: &[&str], words: &str| {
        until(words, LIMIT, || {
            let page = format!("curl -s --max-time 2 https://{INTERNAL_NAME}/");
            let _ = job.executor.run(&page, LIMIT).unwrap();
            Ok(job.cli(&[&["explain", INTERNAL_NAME], arguments].concat()).text().contains(words))
        })
        .unwrap();
    };
    explained(&["--pid", &sleeper.pid()], "all 2 backends are ejected");
    // The prober finds the same within seconds.
    explained(&[], "all 2 backends are ejected after");
    assert_cause(
        &job,
        &["explain", INTERNAL_NAME],
        "all_ejected",
        &["all 2 backends", "allowlist"],
    );
}

#[test]
fn problems_of_the_agent_are_named() {
    let job = Job::with_config(&format!("[attach]\ncgroups = [\"nobodys/*\"]\n{CONFIG}"));
    assert_cause(
        &job,
        &["explain", INTERNAL_NAME],
        "not_attached",
        &["attached to no cgroup", "attach.cgroups"],
    );

    let job = Job::with_config(CONFIG);
    // The kernel rejects writes to a frozen map: the agent lives, but cannot write its heartbeat.
    let pin = format!(
        "/sys/fs/bpf/redirector/v{}/maps/{}",
        redirector_common::abi::ABI,
        redirector_common::names::AGENT
    );
    job.rig
        .node
        .sandbox()
        .run(&format!("bpftool map freeze pinned {pin}"), crate::rig::LIMIT)
        .unwrap()
        .success()
        .unwrap();
    std::thread::sleep(std::time::Duration::from_millis(2500));
    assert_cause(
        &job,
        &["explain", INTERNAL_NAME],
        "stale_heartbeat",
        &["last heartbeat", "agent's log"],
    );

    let job = Job::with_config(CONFIG);
    job.rig
        .node
        .sandbox()
        .run(&format!("kill -STOP {}", job.agent.pid()), crate::rig::LIMIT)
        .unwrap()
        .success()
        .unwrap();
    assert_cause(
        &job,
        &["explain", INTERNAL_NAME],
        "agent_silent",
        &["no agent answers", "restart the agent"],
    );
    job.rig
        .node
        .sandbox()
        .run(&format!("kill -CONT {}", job.agent.pid()), crate::rig::LIMIT)
        .unwrap()
        .success()
        .unwrap();
}
