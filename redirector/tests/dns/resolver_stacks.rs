//! Whole look-ups by real resolvers, on an island where the shim has port 53: in a pod's
//! resolv.conf, with three search domains and `ndots:5`, and behind systemd-resolved.

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
/// The shim, and the upstream where clients ask it themselves.
const SHIM: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 1);
const UPSTREAM: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);
/// Longest time for a client; a JVM takes seconds to begin.
const LIMIT: Duration = Duration::from_secs(60);

/// Runs a test on an island; everything that it starts is there, too.
fn on_an_island(resolv: &ResolvConf, test: impl AsyncFnOnce(&IsolatedNetns) + Send) {
    let island = IsolatedNetns::new(resolv).expect("an island");
    island
        .run(|| {
            let runtime = tokio::runtime::Builder::new_multi_thread()
                .worker_threads(2)
                .enable_all()
                .build()
                .expect("a runtime");
            runtime.block_on(test(&island));
        })
        .expect("no panic");
}

fn port_53(address: Ipv4Addr) -> SocketAddr {
    (address, 53).into()
}

/// The upstream, which knows no name, and the shim in front of it.
async fn start() -> (ScriptedUpstream, RunningShim) {
    let upstream = ScriptedUpstream::at(port_53(UPSTREAM), |asked| {
        vec![Action::Send(reply(&asked.query, ResponseCode::NXDomain, &[]))]
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

/// What a client says, be it an error.
fn run(client: &[&str]) -> String {
    let mut command: Command = packages::tool(client[0]).expect("installed");
    command.args(&client[1..]).env("GODEBUG", "netdns=go");
    process::finish(command, LIMIT).expect("it runs").text()
}

/// How many queries the upstream had from a client whose nameserver is this one, and what the
/// client said.
fn ask(
    island: &IsolatedNetns,
    nameserver: Ipv4Addr,
    upstream: &ScriptedUpstream,
    client: &[&str],
) -> (usize, String) {
    island.set_resolv_conf(&ResolvConf::kubernetes(&nameserver.to_string())).expect("written");
    let before = upstream.queries().len();
    let said = run(client);
    (upstream.queries().len() - before, said)
}

/// Every look-up ends on the VIP, without the name itself going upstream, and makes no more queries
/// there than it would without the shim.
fn costs_nothing(clients: &[&[&str]]) {
    on_an_island(&ResolvConf::kubernetes(&SHIM.to_string()), async |island| {
        let (upstream, shim) = start().await;
        for client in clients {
            let (without, said) = ask(island, UPSTREAM, &upstream, client);
            assert!(!said.contains(VIP) && without > 0, "{client:?}: {without} queries; {said}");
            let first = upstream.queries().len();
            let (with, said) = ask(island, SHIM, &upstream, client);
            assert!(said.contains(VIP), "{client:?}: {said}");
            assert!(
                with <= without,
                "{client:?}: {with} queries upstream, {without} without the shim"
            );
            for asked in &upstream.queries()[first..] {
                let name = parsed(&asked.query).queries[0].name().to_string();
                assert!(
                    name.starts_with(NAME) && name.ends_with(".cluster.local."),
                    "{client:?} had {name} asked upstream"
                );
            }
            eprintln!("{}: {with} queries upstream, {without} without the shim", client[0]);
        }
        shim.stop().await;
    });
}

#[test]
fn glibc_and_dig_with_three_search_domains_end_on_the_vip() {
    let python = format!("import socket; print(socket.getaddrinfo('{NAME}', 443))");
    costs_nothing(&[
        &["getent", "ahosts", NAME],
        &["dig", "+search", "+short", NAME],
        &["python3", "-c", &python],
    ]);
}

#[test]
fn musl_with_three_search_domains_ends_on_the_vip() {
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
    costs_nothing(&[&[program.to_str().expect("a path"), NAME]]);
}

#[test]
fn node_by_glibc_and_by_c_ares_ends_on_the_vip() {
    let lookup = format!(
        "require('dns').lookup('{NAME}', {{ all: true }}, (e, found) => console.log(e, found))"
    );
    let resolve = format!("require('dns').resolve4('{NAME}', (e, found) => console.log(e, found))");
    costs_nothing(&[&["node", "-e", &lookup], &["node", "-e", &resolve]]);
}

/// skopeo is a Go program. Its connect to the VIP can't leave the island; the error names the
/// address that it found.
#[test]
fn go_with_three_search_domains_ends_on_the_vip() {
    let image = format!("docker://{NAME}/team/hello:1.0");
    costs_nothing(&[&["skopeo", "--insecure-policy", "inspect", "--no-creds", &image]]);
}

#[test]
fn a_jvm_with_three_search_domains_ends_on_the_vip() {
    let folder = tempfile::tempdir().expect("a folder");
    let source = folder.path().join("Lookup.java");
    let text = "public class Lookup { public static void main(String[] a) throws Exception { \
                for (var found : java.net.InetAddress.getAllByName(a[0])) System.out.println(found.getHostAddress()); } }";
    fs::write(&source, text).expect("written");
    costs_nothing(&[&["java", source.to_str().expect("a path"), NAME]]);
}

#[test]
fn the_systems_upstream_follows_resolv_conf_and_is_never_ourselves() {
    let other = Ipv4Addr::new(127, 0, 0, 3);
    let ourselves_and = |server: Ipv4Addr| ResolvConf {
        nameservers: vec![SHIM.to_string(), server.to_string()],
        ..ResolvConf::of("")
    };
    on_an_island(&ourselves_and(UPSTREAM), async |island| {
        let denies = |asked: &ReceivedQuery| {
            vec![Action::Send(reply(&asked.query, ResponseCode::NXDomain, &[]))]
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
        island.set_resolv_conf(&ourselves_and(other)).expect("written");
        tokio::time::sleep(Duration::from_millis(1500)).await;
        for _ in 0..5 {
            shim.ask(&elsewhere).await;
        }
        assert_eq!((first.queries().len(), second.queries().len()), (1, 5));
        let known: Vec<_> =
            shim.publisher.upstreams().into_iter().map(|upstream| upstream.address).collect();
        assert_eq!(known, [port_53(other)], "not the shim, though it is named first");
        assert_eq!(shim.publisher.counters().queries, 6, "none came back to us");
        shim.stop().await;
    });
}

/// What systemd-resolved writes last, for resolv.conf to be a link to.
const STUB: &str = "/run/systemd/resolve/stub-resolv.conf";

/// systemd-resolved on 127.0.0.53, with the shim as its only server. It ends with this value.
struct Resolved(Child);

impl Drop for Resolved {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Resolved {
    fn start() -> Self {
        // It leaves root behind for a user that only its installation makes.
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
        let stands = || {
            Ok(Path::new(STUB).exists() && std::net::TcpStream::connect("127.0.0.53:53").is_ok())
        };
        process::until(
            "systemd-resolved listens and has written its stub-resolv.conf",
            Duration::from_secs(20),
            stands,
        )
        .expect("in time");
        resolved
    }
}

#[test]
fn behind_systemd_resolved_every_lookup_ends_on_the_vip_and_other_names_are_the_upstreams() {
    on_an_island(&ResolvConf::of("127.0.0.53"), async |_| {
        let (upstream, shim) = start().await;
        let _resolved = Resolved::start();
        assert!(run(&["getent", "ahosts", NAME]).contains(VIP));
        assert_eq!(run(&["dig", "+tries=1", "+time=5", "+short", NAME, "A"]).trim(), VIP);
        assert_eq!(run(&["dig", "+tries=1", "+time=5", "+tcp", "+short", NAME, "A"]).trim(), VIP);
        let none = run(&["dig", "+tries=1", "+time=5", NAME, "AAAA"]);
        assert!(none.contains("status: NOERROR") && none.contains("ANSWER: 0"), "{none}");
        assert!(
            run(&["dig", "+tries=1", "+time=5", "elsewhere.example", "A"])
                .contains("status: NXDOMAIN")
        );
        let asked = upstream.queries();
        assert!(!asked.is_empty(), "other names get there");
        assert!(
            asked.iter().all(|asked| !parsed(&asked.query).queries[0]
                .name()
                .to_string()
                .contains("internal")),
            "no source leaks"
        );
        shim.stop().await;
    });
}

#[test]
fn a_systemd_resolved_that_asks_the_shim_in_turn_is_set_aside() {
    on_an_island(&ResolvConf::of("127.0.0.53"), async |_| {
        let _resolved = Resolved::start();
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
        assert!(run(&["getent", "ahosts", NAME]).contains(VIP), "names of ours need no upstream");
        shim.stop().await;
    });
}
