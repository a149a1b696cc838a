//! `redirector verify` from an executor: success is reported as such, and each staged failure with
//! its cause.

use testbed::{ExecutorOptions, ResolvConf, topology::INTERNAL_NAME};

use crate::{
    rig::Job,
    stage::{CONFIG, ONLY_CGROUPS, Plain, Server, Sleeper, Tls, ask, assert_cause},
};

#[test]
fn success_from_a_cgroup_and_from_a_process() {
    let job = Job::with_config(CONFIG);
    let _registry = job.registry();
    let ca = job.rig.customer.ca_path().display().to_string();
    let (json, finished) = ask(&job, &["verify", INTERNAL_NAME, "--ca", &ca]);
    assert_eq!(finished.status.code(), Some(0), "{}", finished.text());
    let steps: Vec<_> = json["steps"]
        .as_array()
        .unwrap()
        .iter()
        .map(|step| (step["step"].as_str().unwrap(), step["outcome"].as_str().unwrap()))
        .collect();
    assert_eq!(steps, [("dns", "ok"), ("connect", "ok"), ("tls", "ok"), ("http", "ok")], "{json}");
    assert_eq!(json["certificate"]["names"][0], INTERNAL_NAME);
    assert_eq!(json["source"]["node"], "198.51.100.1");
    assert_eq!(
        json["command"],
        format!(
            "curl --connect-to {INTERNAL_NAME}:443:artifactory.public.company.net:443 \
                https://{INTERNAL_NAME}"
        )
    );
    // As a process of the job: with its trust store and its network.
    let sleeper = Sleeper::start(&job.executor, &[]);
    let (json, finished) = ask(&job, &["verify", INTERNAL_NAME, "--pid", &sleeper.pid()]);
    assert_eq!(finished.status.code(), Some(0), "{}", finished.text());
    assert_eq!(json["vantage"]["process"]["host_network"], false);
    assert!(json["source"]["executor"].as_str().unwrap().starts_with("10.61."), "{json}");
    let people = job.cli(&["verify", INTERNAL_NAME, "--pid", &sleeper.pid()]);
    for words in ["works from here", "curl --connect-to", "running in", "200"] {
        assert!(people.stdout.contains(words), "{words}: {}", people.text());
    }
    // Nothing remains.
    let left = job
        .rig
        .node
        .sandbox()
        .run("find /sys/fs/cgroup -name 'redirector-verify*'", crate::rig::LIMIT)
        .unwrap();
    assert_eq!(left.stdout, "");
}

/// As in the agent's pod: the host's cgroups are read-only there, and its own one is attached.
#[test]
fn where_cgroups_are_read_only_an_attached_own_one_will_do() {
    let job = Job::with_config(CONFIG);
    let _registry = job.registry();
    let verify = |cgroup: &str| {
        job.rig.node.sandbox().run(
            &format!(
                "mkdir -p /sys/fs/cgroup/{cgroup} && echo 0 >/sys/fs/cgroup/{cgroup}/cgroup.procs \
                    && exec unshare -m sh -c 'mount -o remount,bind,ro /sys/fs/cgroup && exec {} \
                    verify {INTERNAL_NAME} --ca {} -o json'",
                crate::rig::binary().display(),
                job.rig.customer.ca_path().display(),
            ),
            crate::rig::LIMIT,
        )
    };
    let inside = verify("kubepods/burstable/podagent").unwrap().success().unwrap();
    let json: serde_json::Value = serde_json::from_str(&inside.stdout).unwrap();
    assert_eq!(json["ok"], true, "{json}");
    assert_eq!(json["vantage"]["cgroup"], "/sys/fs/cgroup/kubepods/burstable/podagent");
    let outside = verify("other").unwrap();
    assert_eq!(outside.status.code(), Some(3), "{}", outside.text());
    assert!(outside.text().contains("run this as root on the node"), "{}", outside.text());
}

#[test]
fn causes_in_route_dns_and_connect() {
    let job = Job::with_config(CONFIG);
    let quick = ["--timeout", "3"];
    let verify = |rest: &[&'static str]| [&["verify"][..], rest, &quick].concat();
    assert_cause(
        &job,
        &verify(&["artifactory.internal.company.nett"]),
        "no_route",
        &["did you mean artifactory.internal.company.net?"],
    );
    assert_cause(
        &job,
        &verify(&["artifactory.internal.company.net:22"]),
        "port_not_listed",
        &["port 22", "443, 80, 8443:8080"],
    );
    assert_cause(
        &job,
        &verify(&["nowhere.internal.company.net"]),
        "no_backends",
        &["nowhere.public.company.net"],
    );
    assert_cause(
        &job,
        &verify(&["refusing.internal.company.net"]),
        "backend_refused",
        &["203.0.113.1:443", "198.51.100.1"],
    );
    job.rig
        .node
        .sandbox()
        .run("ip route add unreachable 203.0.113.99", crate::rig::LIMIT)
        .unwrap()
        .success()
        .unwrap();
    assert_cause(
        &job,
        &verify(&["unreachable.internal.company.net"]),
        "backend_unreachable",
        &["203.0.113.99:443", "routes and firewall"],
    );
    job.rig.customer.silence([203, 0, 113, 8].into()).unwrap();
    let words =
        ["203.0.113.8:443", "timed out", "expected source address 198.51.100.2", "198.51.100.1"];
    assert_cause(&job, &verify(&["silent.internal.company.net"]), "backend_timeout", &words);
    job.rig.customer.silence([203, 0, 113, 7].into()).unwrap();
    let words = ["egress address on the load balancer's allowlist?", "198.51.100.1"];
    assert_cause(&job, &verify(&[INTERNAL_NAME]), "backend_timeout", &words);
    assert_cause(
        &job,
        &verify(&[INTERNAL_NAME, "--cgroup", "system.slice"]),
        "wrong_cgroup",
        &["system.slice", "attach.cgroups"],
    );
}

#[test]
fn causes_in_the_executor_itself() {
    let job = Job::with_config(&format!("{ONLY_CGROUPS}{CONFIG}[dns]\nintercept = \"off\"\n"));
    let other = |name: &str, nameserver: &str| {
        let resolv = ResolvConf::of(nameserver);
        job.rig.executor(ExecutorOptions { resolv, ..ExecutorOptions::pod(name) }).unwrap()
    };
    let verify = |pid: &str, code: &str, words: &[&str]| {
        assert_cause(
            &job,
            &["verify", INTERNAL_NAME, "--pid", pid, "--timeout", "3", "--until", "connect"],
            code,
            words,
        );
    };
    let loopback = other("loopback", "127.0.0.11");
    let sleeper = Sleeper::start(&loopback, &[]);
    verify(&sleeper.pid(), "loopback_resolver", &["127.0.0.11", "loopback"]);
    loopback.sandbox().write("/etc/hosts", &format!("192.0.2.9 {INTERNAL_NAME}\n")).unwrap();
    verify(&sleeper.pid(), "hosts_entry", &["192.0.2.9", "/etc/hosts"]);
    loopback.sandbox().write("/etc/hosts", "").unwrap();
    loopback.sandbox().write("/etc/resolv.conf", "search a.b\n").unwrap();
    verify(&sleeper.pid(), "no_nameserver", &["no nameserver"]);

    // A resolver other than the shim: one that does not know the name, and one that does not exist.
    for (name, nameserver, words) in [
        ("foreign", "203.0.113.53", "answers REFUSED"),
        ("nobody", "203.0.113.56", "does not answer"),
    ] {
        let stranger = other(name, nameserver);
        let sleeper = Sleeper::start(&stranger, &[]);
        verify(&sleeper.pid(), "not_the_shim", &[nameserver, words, "169.254.20.53"]);
    }

    let sleeper =
        Sleeper::start(&job.executor, &[("HTTPS_PROXY", "http://proxy.company.net:3128")]);
    verify(&sleeper.pid(), "proxy", &["HTTPS_PROXY=http://proxy.company.net:3128", "NO_PROXY"]);
    let sleeper = Sleeper::start(
        &job.executor,
        &[("HTTPS_PROXY", "http://proxy.company.net:3128"), ("NO_PROXY", ".company.net")],
    );
    let (_, finished) =
        ask(&job, &["verify", INTERNAL_NAME, "--pid", &sleeper.pid(), "--until", "connect"]);
    assert_eq!(finished.status.code(), Some(0), "{}", finished.text());
    let sleeper = Sleeper::with_name("firecracker", &job.executor, &[]);
    verify(&sleeper.pid(), "guest_kernel", &["Firecracker", "--interface"]);
    let stray = job
        .rig
        .executor(ExecutorOptions {
            cgroup: Some("system.slice/stray".into()),
            ..ExecutorOptions::pod("stray")
        })
        .unwrap();
    let sleeper = Sleeper::start(&stray, &[]);
    verify(&sleeper.pid(), "wrong_cgroup", &["system.slice/stray"]);
}

#[test]
fn causes_in_tls_and_http() {
    let job = Job::with_config(CONFIG);
    let check = |ca: Option<&str>, code: &str, words: &[&str]| {
        let ca = ca.map(|ca| vec!["--ca", ca]).unwrap_or_default();
        // HAProxy tries a refusing server four times, a second apart, before it closes the client's
        // connection.
        let timeout = if code == "closed_early" { "6" } else { "3" };
        let arguments = [vec!["verify", INTERNAL_NAME, "--timeout", timeout], ca].concat();
        assert_cause(&job, &arguments, code, words);
    };
    // Without a server the load balancers accept the connection and close it.
    check(None, "closed_early", &["allowlist", "198.51.100.1"]);
    let plain = |does: Plain, code: &str, words: &[&str]| {
        let _server = Server::plain(&job, does);
        check(None, code, words);
    };
    plain(Plain::Closes, "closed_early", &["healthy server"]);
    plain(Plain::Silent, "silent_after_connect", &["MTU"]);
    plain(Plain::Sends("SSH-2.0-OpenSSH_9.2\r\n"), "not_tls", &["it speaks SSH", "ssh://"]);
    plain(Plain::Sends("220 smtp.company.net ESMTP\r\n"), "not_tls", &["220 smtp", "--plain"]);
    let tls = |tls: Tls, trusted: bool, code: &str, words: &[&str]| {
        let (_server, ca) = Server::tls(&job, tls);
        check(trusted.then(|| ca.to_str().unwrap()), code, words);
    };
    tls(
        Tls::of(INTERNAL_NAME),
        false,
        "unknown_issuer",
        &["staged authority", "tls.external.certificates", "--ca"],
    );
    tls(
        Tls::of("artifactory.public.company.net"),
        true,
        "wrong_name",
        &["is for artifactory.public.company.net, not for artifactory.internal"],
    );
    tls(
        Tls { expired: true, ..Tls::of(INTERNAL_NAME) },
        true,
        "certificate_expired",
        &["2021-01-01"],
    );
    tls(
        Tls { wants_client: true, ..Tls::of(INTERNAL_NAME) },
        true,
        "client_certificate",
        &["certificate and key"],
    );
    let answers = |answer: Option<&'static str>, code: &str, words: &[&str]| {
        tls(Tls { answer, ..Tls::of(INTERNAL_NAME) }, true, code, words)
    };
    answers(
        Some("HTTP/1.1 401 Unauthorized\r\n\r\n"),
        "credentials_wanted",
        &["the path works", "create the executor's secret"],
    );
    answers(Some("HTTP/1.1 403 Forbidden\r\n\r\n"), "forbidden", &["the path works"]);
    answers(
        Some("HTTP/1.1 407 Proxy Authentication Required\r\n\r\n"),
        "proxy_answered",
        &["proxy"],
    );
    answers(Some("HTTP/1.1 500 Internal Server Error\r\n\r\n"), "server_error", &["500"]);
    answers(
        Some("HTTP/1.1 503 Service Unavailable\r\n\r\n"),
        "server_down",
        &["503", "no healthy server"],
    );
    answers(Some("HTTP/1.1 421 Misdirected Request\r\n\r\n"), "misdirected", &["internal name"]);
    answers(Some("220 smtp.company.net ESMTP\r\n"), "not_http", &["220 smtp"]);
    answers(None, "silent_after_connect", &["the request"]);
}

#[test]
fn causes_in_the_agent() {
    // Names that are answered by packet need no agent.
    let mut job = Job::with_config(CONFIG);
    job.agent.sigkill().unwrap();
    let (_, finished) = ask(&job, &["verify", INTERNAL_NAME, "--until", "connect"]);
    assert_eq!(finished.status.code(), Some(0), "{}", finished.text());

    let mut job = Job::with_config(&format!("{ONLY_CGROUPS}{CONFIG}[dns]\nintercept = \"off\"\n"));
    job.agent.sigkill().unwrap();
    assert_cause(
        &job,
        &["verify", INTERNAL_NAME, "--timeout", "3"],
        "agent_dead",
        &["no agent runs", "169.254.20.53"],
    );
    let unloaded = job.cli(&["unload"]);
    assert!(unloaded.status.success(), "{}", unloaded.text());
    let absent = job.cli(&["verify", INTERNAL_NAME]);
    assert_eq!(absent.status.code(), Some(4), "{}", absent.text());
}
