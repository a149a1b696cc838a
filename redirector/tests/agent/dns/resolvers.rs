//! Common resolver libraries in a pod whose nameserver is not the shim: with interception each
//! finds the VIP, and the addresses of other names.
//!
//! c-ares and musl drop an answer that does not come from the server they queried; Go, glibc, Java
//! and Python query from connected sockets.

use testbed::{
    Executor, packages, process,
    topology::{INTERNAL_NAME, UNRELATED_ADDRESS, UNRELATED_NAME},
};

use crate::{
    dns::interception::{CONFIG, ONE, is_vip, pod},
    rig::{Job, LIMIT},
};

/// A pod whose resolver can use only one transport, UDP or TCP: packets of the other are dropped.
struct SingleTransportPod {
    job: Job,
    executor: Executor,
}

impl SingleTransportPod {
    fn over(transport: &str) -> Self {
        let job = Job::with_config(CONFIG);
        let executor = pod(&job, "stranger", ONE);
        if transport == "tcp" {
            executor
                .sandbox()
                .write("/etc/resolv.conf", &format!("nameserver {ONE}\noptions use-vc\n"))
                .unwrap();
        }
        let other = if transport == "tcp" { "udp" } else { "tcp" };
        // Go connects to the address it finds, which must fail at once.
        let line = format!(
            "ip route add unreachable {UNRELATED_ADDRESS} && \
             nft 'add table ip t; \
             add chain ip t o {{ type filter hook output priority 0; }}; \
             add rule ip t o {other} dport {{ 53, 334-341 }} reject'"
        );
        executor.run(&line, LIMIT).unwrap().success().unwrap();
        Self { job, executor }
    }

    /// Runs a shell command with `NAME` as a placeholder: it must print the VIP, and the address of
    /// the unrelated name.
    fn assert_resolves(&self, client: &str) {
        let output =
            |name: &str| self.executor.run(&client.replace("NAME", name), LIMIT).unwrap().text();
        let (ours, other) = (output(INTERNAL_NAME), output(UNRELATED_NAME));
        let words = ours.split(|letter: char| !letter.is_ascii_digit() && letter != '.');
        assert!(words.into_iter().any(is_vip), "{client}: {ours}\n{}", self.job.agent.log_tail());
        assert!(
            other.contains(&UNRELATED_ADDRESS.to_string()),
            "{client}: {other}\n{}",
            self.job.agent.log_tail()
        );
    }

    /// How many queries were intercepted.
    fn intercepted(&self) -> u64 {
        self.job.json(&["status"])["dns"]["interception"]["resolvers"][0]["intercepted"]
            .as_u64()
            .unwrap_or(0)
    }

    /// The same for each client, whose queries must all be intercepted.
    fn assert_each_resolves(&self, clients: &[&str]) {
        for client in clients {
            let before = self.intercepted();
            self.assert_resolves(client);
            assert!(
                self.intercepted() >= before + 2,
                "{client}: {} intercepted, {before} before",
                self.intercepted()
            );
        }
    }
}

const GLIBC: &str = "getent ahostsv4 NAME";
const PYTHON: &str = "python3 -c \"import socket; print(socket.getaddrinfo('NAME', 443))\"";
const NODE: &str =
    "node -e \"require('dns').lookup('NAME', { all: true }, (e, found) => console.log(e, found))\"";
const C_ARES: &str =
    "node -e \"require('dns').resolve4('NAME', (e, found) => console.log(e, found))\"";
/// skopeo is a Go program; its error names the address that it found. Nothing listens on port 1.
const GO: &str =
    "GODEBUG=netdns=go skopeo --insecure-policy inspect --no-creds docker://NAME:1/team/hello:1.0";

#[test]
fn glibc_c_ares_and_go_over_udp() {
    SingleTransportPod::over("udp").assert_each_resolves(&[GLIBC, PYTHON, NODE, C_ARES, GO]);
}

#[test]
fn glibc_c_ares_and_go_over_tcp() {
    SingleTransportPod::over("tcp").assert_each_resolves(&[GLIBC, PYTHON, NODE, C_ARES, GO]);
}

#[test]
fn musl_with_an_unconnected_socket() {
    let pod = SingleTransportPod::over("udp");
    let home = pod.executor.sandbox().home();
    let (source, client) = (home.join("ask.c"), home.join("ask"));
    pod.executor.sandbox().write(&source, ASK).unwrap();
    let mut compiler = packages::tool("musl-gcc").unwrap();
    compiler.args(["-static", "-O1", "-o"]).arg(&client).arg(&source);
    process::finish(compiler, LIMIT).unwrap().success().unwrap();
    pod.assert_each_resolves(&[&format!("{} NAME", client.display())]);
}

const ASK: &str = r#"
#include <arpa/inet.h>
#include <netdb.h>
#include <stdio.h>
int main(int argc, char **argv) {
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_family = AF_INET}, *found;
    int error = getaddrinfo(argv[1], "443", &hints, &found);
    puts(error ? gai_strerror(error) : inet_ntoa(((struct sockaddr_in *)found->ai_addr)->sin_addr));
    return 0;
}
"#;

#[test]
fn a_jvm() {
    let pod = SingleTransportPod::over("udp");
    let source = pod.executor.sandbox().home().join("Lookup.java");
    let text = "public class Lookup { public static void main(String[] a) throws Exception { \
                for (var found : java.net.InetAddress.getAllByName(a[0])) \
                System.out.println(found.getHostAddress()); } }";
    pod.executor.sandbox().write(&source, text).unwrap();
    pod.assert_each_resolves(&[&format!("java {} NAME", source.display())]);
}
