//! A forwarder on the node that forwards back to the agent.

use std::{
    process::Child,
    time::{Duration, Instant},
};

use testbed::{Rig, dnsmasq, packages, topology::DNS_ADDRESS};

use crate::rig::Job;

const CONFIG: &str = "\
[dns]
upstreams = [\"127.0.0.1:5399\"]
[[routes]]
source = \"artifactory.internal.company.net\"
destination = \"artifactory.public.company.net\"
";

/// dnsmasq on the node; killed when dropped.
struct Dnsmasq(Child);

impl Dnsmasq {
    fn forwarding_to(rig: &Rig, server: &str) -> Self {
        Self::with_servers(rig, &[server])
    }

    fn with_servers(rig: &Rig, servers: &[&str]) -> Self {
        let mut command = rig.node.command(packages::path_of("dnsmasq").unwrap());
        command
            .args(dnsmasq::OPTIONS)
            .args(["--listen-address=127.0.0.1", "--bind-interfaces", "--port=5399"])
            .args(servers.iter().map(|server| format!("--server={server}")));
        Self(command.spawn().unwrap())
    }
}

impl Drop for Dnsmasq {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn until(what: &str, mut yes: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !yes() {
        assert!(Instant::now() < deadline, "still not {what} after 30 s");
        std::thread::sleep(Duration::from_millis(100));
    }
}

#[test]
fn a_looping_dnsmasq_is_ejected_until_it_is_fixed() {
    let mut dnsmasq = None;
    let job =
        Job::prepared(CONFIG, |rig| dnsmasq = Some(Dnsmasq::forwarding_to(rig, "169.254.20.53")));
    let readyz = || {
        job.rig
            .node
            .sandbox()
            .run("curl -s http://127.0.0.1:9464/readyz", Duration::from_secs(10))
            .unwrap()
            .stdout
    };
    until("ejected", || job.json(&["status"])["dns"]["upstreams"][0]["loops"] == true);
    let status = job.cli(&["status"]);
    assert_eq!(status.status.code(), Some(1));
    let lines = [
        "upstreams  127.0.0.1:5399 (ejected: it forwards to us)",
        "the DNS upstream 127.0.0.1:5399 forwards queries back to us: it is ejected",
        "let it forward to the real server, or set dns.upstreams to that server",
    ];
    assert!(lines.iter().all(|line| status.stdout.contains(line)), "{}", status.text());
    until("unready", || {
        readyz().contains("every DNS upstream forwards back to us (127.0.0.1:5399)")
    });
    assert!(
        job.agent.log().contains("the upstream forwards queries back to us"),
        "{}",
        job.agent.log_tail()
    );
    drop(dnsmasq.take());
    let _fixed = Dnsmasq::forwarding_to(&job.rig, DNS_ADDRESS);
    until("used again", || job.json(&["status"])["dns"]["upstreams"][0]["loops"] == false);
    until("ready", || !readyz().contains("forwards back to us"));
    assert!(job.agent.log().contains("the upstream no longer loops"), "{}", job.agent.log_tail());
}

#[test]
fn a_zone_that_is_forwarded_back_is_reported() {
    let mut dnsmasq = None;
    let servers = [DNS_ADDRESS, "/internal.company.net/169.254.20.53"];
    let job = Job::prepared(CONFIG, |rig| dnsmasq = Some(Dnsmasq::with_servers(rig, &servers)));
    let upstream = || job.json(&["status"])["dns"]["upstreams"][0].clone();
    until("found", || upstream()["looping_zones"] == serde_json::json!(["internal.company.net"]));
    assert_eq!(upstream()["loops"], false);
    let status = job.cli(&["status"]);
    assert_eq!(status.status.code(), Some(1));
    let lines = [
        "upstreams  127.0.0.1:5399 (it forwards internal.company.net to us)",
        "the DNS upstream 127.0.0.1:5399 forwards queries for internal.company.net back to us: \
            names there without a route get SERVFAIL",
        "let it forward internal.company.net to the real server",
    ];
    assert!(lines.iter().all(|line| status.stdout.contains(line)), "{}", status.text());
    drop(dnsmasq.take());
    let _fixed = Dnsmasq::forwarding_to(&job.rig, DNS_ADDRESS);
    until("used again", || upstream()["looping_zones"].is_null());
    assert!(job.agent.log().contains("the zone no longer loops"), "{}", job.agent.log_tail());
}
