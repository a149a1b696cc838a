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
use testbed::{IsolatedNetns, ResolvConf, packages, process};

use crate::{
    message::{bytes, parsed, query, reply},
    running_shim::{RunningShim, settings},
    scripted_upstream::{Action, ReceivedQuery, ScriptedUpstream},
};

const NAME: &str = "artifactory.internal.company.net";
const VIP: &str = "198.18.0.1";
/// The address of the shim.
const SHIM: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 1);
/// The address of the upstream.
const UPSTREAM: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);
/// Longest time for a client; a JVM takes seconds to start.
const LIMIT: Duration = Duration::from_secs(60);

/// Runs a test, with everything that it starts, in a network namespace of its own.
fn in_a_netns(resolv: &ResolvConf, test: impl AsyncFnOnce(&IsolatedNetns) + Send) {
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

fn port_53(address: Ipv4Addr) -> SocketAddr {
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

/// The output of a client, also if it fails.
fn run(client: &[&str]) -> String {
    let mut command: Command = packages::tool(client[0]).expect("installed");
    command.args(&client[1..]).env("GODEBUG", "netdns=go");
    process::finish(command, LIMIT).expect("it runs").text()
}

/// The number of queries that reach the upstream when a client uses this nameserver, and the
/// client's output.
fn ask(
    netns: &IsolatedNetns,
    nameserver: Ipv4Addr,
    upstream: &ScriptedUpstream,
    client: &[&str],
) -> (usize, String) {
    netns.set_resolv_conf(&ResolvConf::kubernetes(&nameserver.to_string())).expect("written");
    let before = upstream.queries().len();
    let output = run(client);
    (upstream.queries().len() - before, output)
}

/// Checks that every look-up returns the VIP, does not leak the name to the upstream, and causes no
/// more queries there than without the shim.
fn check_lookups(clients: &[&[&str]]) {
    in_a_netns(&ResolvConf::kubernetes(&SHIM.to_string()), async |netns| {
        let (upstream, shim) = start().await;
        for client in clients {
            let (without, output) = ask(netns, UPSTREAM, &upstream, client);
            assert!(
                !output.contains(VIP) && without > 0,
                "{client:?}: {without} queries; {output}"
            );
            let first = upstream.queries().len();
            let (with, output) = ask(netns, SHIM, &upstream, client);
            assert!(output.contains(VIP), "{client:?}: {output}");
            assert!(
                with <= without,
                "{client:?}: {with} queries upstream, {without} without the shim"
            );
            for received in &upstream.queries()[first..] {
                let name = parsed(&received.query).queries[0].name().to_string();
                assert!(
                    name.starts_with(NAME) && name.ends_with(".cluster.local."),
                    "{client:?} leaked {name} to the upstream"
                );
            }
            eprintln!("{}: {with} queries upstream, {without} without the shim", client[0]);
        }
        shim.stop().await;
    });
}

#[test]
fn glibc_and_dig_with_three_search_domains_get_the_vip() {
    let python = format!("import socket; print(socket.getaddrinfo('{NAME}', 443))");
    check_lookups(&[
        &["getent", "ahosts", NAME],
        &["dig", "+search", "+short", NAME],
        &["python3", "-c", &python],
    ]);
}

#[test]
fn musl_with_three_search_domains_gets_the_vip() {
    const SOURCE: &str = r#"
#include <arpa/inet.h>
#include <netdb.h>
#include <stdio.h>
#include <sys/socket.h>
int main(int argc, char **argv) {
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM}, *found;
    int error = getaddrinfo(argv[1], "443", &hints, &found);
    if (error) { printf("%s\n", gai_strerror(error)); return 1; }
    printf("%s\n", inet_ntoa(((struct sockaddr_in *)found->ai_addr)->sin_addr));
    return 0;
}
"#;
    let folder = tempfile::tempdir().expect("a folder");
    let (source, program) = (folder.path().join("lookup.c"), folder.path().join("lookup"));
    fs::write(&source, SOURCE).expect("written");
    let mut compiler = packages::tool("musl-gcc").expect("installed");
    compiler.args(["-static", "-O1", "-o"]).arg(&program).arg(&source);
    process::finish(compiler, LIMIT).expect("it runs").success().expect("compiled");
    check_lookups(&[&[program.to_str().expect("a path"), NAME]]);
}

#[test]
fn node_by_glibc_and_by_c_ares_gets_the_vip() {
    let lookup = format!(
        "require('dns').lookup('{NAME}', {{ all: true }}, (e, found) => console.log(e, found))"
    );
    let resolve = format!("require('dns').resolve4('{NAME}', (e, found) => console.log(e, found))");
    check_lookups(&[&["node", "-e", &lookup], &["node", "-e", &resolve]]);
}

/// skopeo is a Go program. Its connect to the VIP fails in the namespace; the error contains the
/// address.
#[test]
fn go_with_three_search_domains_gets_the_vip() {
    let image = format!("docker://{NAME}/team/hello:1.0");
    check_lookups(&[&["skopeo", "--insecure-policy", "inspect", "--no-creds", &image]]);
}

#[test]
fn a_jvm_with_three_search_domains_gets_the_vip() {
    let folder = tempfile::tempdir().expect("a folder");
    let source = folder.path().join("Lookup.java");
    let text = "public class Lookup { public static void main(String[] a) throws Exception { \
                for (var found : java.net.InetAddress.getAllByName(a[0])) \
                System.out.println(found.getHostAddress()); } }";
    fs::write(&source, text).expect("written");
    check_lookups(&[&["java", source.to_str().expect("a path"), NAME]]);
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
        assert!(run(&["getent", "ahosts", NAME]).contains(VIP));
        assert_eq!(run(&["dig", "+tries=1", "+time=5", "+short", NAME, "A"]).trim(), VIP);
        assert_eq!(run(&["dig", "+tries=1", "+time=5", "+tcp", "+short", NAME, "A"]).trim(), VIP);
        let none = run(&["dig", "+tries=1", "+time=5", NAME, "AAAA"]);
        assert!(none.contains("status: NOERROR") && none.contains("ANSWER: 0"), "{none}");
        assert!(
            run(&["dig", "+tries=1", "+time=5", "elsewhere.example", "A"])
                .contains("status: NXDOMAIN")
        );
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
        assert!(
            run(&["dig", "+tries=1", "+time=5", "elsewhere.example", "A"]).contains("SERVFAIL")
        );
        assert!(run(&["getent", "ahosts", NAME]).contains(VIP), "sources need no upstream");
        shim.stop().await;
    });
}
