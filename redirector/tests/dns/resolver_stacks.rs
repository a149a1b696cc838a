//! Complete look-ups by real resolvers in a network namespace where the shim has port 53: with the
//! resolv.conf of a pod (three search domains, `ndots:5`), and behind systemd-resolved.

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr},
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};

use hickory_proto::{op::ResponseCode, rr::RecordType};
use redirector::{config::Upstream, dns::ShimSettings};
use testbed::{
    IsolatedNetns, ResolvConf,
    lookup_programs::{LookupPrograms, Resolver},
    packages, process,
};

use crate::{
    message::{bytes, parsed, query, reply},
    running_shim::{RunningShim, settings},
    scripted_upstream::{Action, ReceivedQuery, ScriptedUpstream},
};

pub(crate) const NAME: &str = "artifactory.internal.company.net";
pub(crate) const VIP: &str = "198.18.0.1";
/// The address of the shim.
pub(crate) const SHIM: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 1);
/// The address of the upstream.
pub(crate) const UPSTREAM: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);
/// Longest time for a client; a JVM takes seconds to start.
const LIMIT: Duration = Duration::from_secs(60);

/// Runs a test, with everything that it starts, in a network namespace of its own.
pub(crate) fn in_a_netns(resolv: &ResolvConf, test: impl AsyncFnOnce(&IsolatedNetns) + Send) {
    let netns = IsolatedNetns::new(resolv).expect("a namespace");
    netns
        .run(|| {
            let runtime = tokio::runtime::Builder::new_multi_thread()
                .worker_threads(2)
                .enable_all()
                .build()
                .expect("a runtime");
            runtime.block_on(test(&netns));
        })
        .expect("no panic");
}

pub(crate) fn port_53(address: Ipv4Addr) -> SocketAddr {
    (address, 53).into()
}

/// The upstream, which knows no name, and the shim in front of it.
async fn start() -> (ScriptedUpstream, RunningShim) {
    let upstream = ScriptedUpstream::at(port_53(UPSTREAM), |received| {
        vec![Action::Send(reply(&received.query, ResponseCode::NXDomain, &[]))]
    })
    .await;
    let shim = RunningShim::start_with(ShimSettings {
        listen: vec![port_53(SHIM)],
        ..settings(&[upstream.address])
    })
    .await;
    while shim.publisher.awaited_upstream().is_some() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    (upstream, shim)
}

/// The output of a line of shell, also if it fails.
pub(crate) fn run(line: &str) -> String {
    let mut shell = Command::new("/bin/sh");
    shell.args(["-c", line]);
    process::finish(shell, LIMIT).expect("it runs").text()
}

/// The programs of [`Resolver::ALL`], in a folder of their own.
pub(crate) fn lookup_programs() -> (LookupPrograms, tempfile::TempDir) {
    let folder = tempfile::tempdir().expect("a folder");
    (LookupPrograms::prepare(folder.path()).expect("compiled"), folder)
}

/// The number of queries that reach the upstream when a client uses this nameserver, and the
/// client's output.
fn ask(
    netns: &IsolatedNetns,
    nameserver: Ipv4Addr,
    upstream: &ScriptedUpstream,
    client: &str,
) -> (usize, String) {
    netns.set_resolv_conf(&ResolvConf::kubernetes(&nameserver.to_string())).expect("written");
    let before = upstream.queries().len();
    let output = run(client);
    (upstream.queries().len() - before, output)
}

/// Checks that every look-up returns the VIP, does not leak the name to the upstream, and causes no
/// more queries there than without the shim.
#[test]
fn every_resolver_with_three_search_domains_gets_the_vip() {
    let (programs, _folder) = lookup_programs();
    let mut clients = Resolver::ALL.map(|resolver| programs.line(resolver, NAME)).to_vec();
    clients.push(format!("dig +search +short {NAME}"));
    in_a_netns(&ResolvConf::kubernetes(&SHIM.to_string()), async |netns| {
        let (upstream, shim) = start().await;
        for client in &clients {
            let (without, output) = ask(netns, UPSTREAM, &upstream, client);
            assert!(!output.contains(VIP) && without > 0, "{client}: {without} queries; {output}");
            let first = upstream.queries().len();
            let (with, output) = ask(netns, SHIM, &upstream, client);
            assert!(output.contains(VIP), "{client}: {output}");
            assert!(
                with <= without,
                "{client}: {with} queries upstream, {without} without the shim"
            );
            for received in &upstream.queries()[first..] {
                let name = parsed(&received.query).queries[0].name().to_string();
                assert!(
                    name.starts_with(NAME) && name.ends_with(".cluster.local."),
                    "{client} leaked {name} to the upstream"
                );
            }
            eprintln!("{client}: {with} queries upstream, {without} without the shim");
        }
        shim.stop().await;
    });
}

#[test]
fn the_system_upstream_follows_resolv_conf_without_us() {
    let other = Ipv4Addr::new(127, 0, 0, 3);
    let shim_and = |server: Ipv4Addr| ResolvConf {
        nameservers: vec![SHIM.to_string(), server.to_string()],
        ..ResolvConf::of("")
    };
    in_a_netns(&shim_and(UPSTREAM), async |netns| {
        let denies = |received: &ReceivedQuery| {
            vec![Action::Send(reply(&received.query, ResponseCode::NXDomain, &[]))]
        };
        let (first, second) = (
            ScriptedUpstream::at(port_53(UPSTREAM), denies).await,
            ScriptedUpstream::at(port_53(other), denies).await,
        );
        let upstreams = vec![Upstream::System];
        let shim = RunningShim::start_with(ShimSettings {
            listen: vec![port_53(SHIM)],
            upstreams,
            ..settings(&[])
        })
        .await;
        let elsewhere = bytes(&query("elsewhere.example", RecordType::A));
        shim.ask(&elsewhere).await;
        assert_eq!((first.queries().len(), second.queries().len()), (1, 0));
        netns.set_resolv_conf(&shim_and(other)).expect("written");
        tokio::time::sleep(Duration::from_millis(1500)).await;
        for _ in 0..5 {
            shim.ask(&elsewhere).await;
        }
        assert_eq!((first.queries().len(), second.queries().len()), (1, 5));
        let servers: Vec<_> =
            shim.publisher.upstreams().into_iter().map(|upstream| upstream.address).collect();
        assert_eq!(servers, [port_53(other)], "not the shim, though it comes first");
        assert_eq!(shim.publisher.counters().queries, 6, "no query came back to the shim");
        shim.stop().await;
    });
}

/// The file that systemd-resolved writes last; resolv.conf links to it.
const STUB: &str = "/run/systemd/resolve/stub-resolv.conf";

/// systemd-resolved on 127.0.0.53, with the shim as its only server. Dropping it stops the process.
struct SystemdResolved(Child);

impl Drop for SystemdResolved {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl SystemdResolved {
    fn start() -> Self {
        // It switches to a user that only its package creates.
        let users = fs::read_to_string("/etc/passwd").expect("users");
        if !users.contains("systemd-resolve:") {
            fs::write("/etc/passwd", users + "systemd-resolve:x:0:0::/:/usr/sbin/nologin\n")
                .expect("written");
        }
        for folder in ["/run/systemd/resolve", "/run/systemd/resolved.conf.d"] {
            fs::create_dir_all(folder).expect("made");
        }
        let settings = format!("[Resolve]\nDNS={SHIM}\nDomains=~.\nLLMNR=no\nMulticastDNS=no\n");
        fs::write("/run/systemd/resolved.conf.d/test.conf", settings).expect("written");
        let program = packages::unpacked("lib/systemd/systemd-resolved").expect("unpacked");
        let mut command = Command::new(program);
        process::die_with_parent(&mut command);
        let child = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("started");
        let resolved = Self(child);
        // It may listen before it has written its file.
        let is_ready = || {
            Ok(Path::new(STUB).exists() && std::net::TcpStream::connect("127.0.0.53:53").is_ok())
        };
        process::until(
            "systemd-resolved listens and has written its stub-resolv.conf",
            Duration::from_secs(20),
            is_ready,
        )
        .expect("in time");
        resolved
    }
}

#[test]
fn systemd_resolved_in_front_returns_the_vip() {
    in_a_netns(&ResolvConf::of("127.0.0.53"), async |_| {
        let (upstream, shim) = start().await;
        let _resolved = SystemdResolved::start();
        assert!(run(&format!("getent ahosts {NAME}")).contains(VIP));
        assert_eq!(run(&format!("dig +tries=1 +time=5 +short {NAME} A")).trim(), VIP);
        assert_eq!(run(&format!("dig +tries=1 +time=5 +tcp +short {NAME} A")).trim(), VIP);
        let none = run(&format!("dig +tries=1 +time=5 {NAME} AAAA"));
        assert!(none.contains("status: NOERROR") && none.contains("ANSWER: 0"), "{none}");
        assert!(run("dig +tries=1 +time=5 elsewhere.example A").contains("status: NXDOMAIN"));
        let received = upstream.queries();
        assert!(!received.is_empty(), "other names are forwarded");
        assert!(
            received.iter().all(|received| !parsed(&received.query).queries[0]
                .name()
                .to_string()
                .contains("internal")),
            "no source leaks"
        );
        shim.stop().await;
    });
}

#[test]
fn a_systemd_resolved_that_loops_is_ejected() {
    in_a_netns(&ResolvConf::of("127.0.0.53"), async |_| {
        let _resolved = SystemdResolved::start();
        let looping = port_53(Ipv4Addr::new(127, 0, 0, 53));
        let shim = RunningShim::start_with(ShimSettings {
            listen: vec![port_53(SHIM)],
            ..settings(&[looping])
        })
        .await;
        let deadline = std::time::Instant::now() + Duration::from_secs(20);
        while !shim.publisher.upstreams()[0].loops {
            assert!(std::time::Instant::now() < deadline, "{:?}", shim.publisher.upstreams());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        assert!(run("dig +tries=1 +time=5 elsewhere.example A").contains("SERVFAIL"));
        assert!(run(&format!("getent ahosts {NAME}")).contains(VIP), "sources need no upstream");
        shim.stop().await;
    });
}
