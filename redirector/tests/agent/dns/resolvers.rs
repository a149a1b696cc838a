//! The resolvers that people have, in a pod whose nameserver is not the shim: with interception
//! each finds the VIP, and other names' own addresses.
//!
//! c-ares drops an answer that does not come from the server that it asked, musl as well; Go,
//! glibc, Java and Python ask from connected sockets.

use testbed::{
    Executor, packages, process,
    topology::{INTERNAL_NAME, UNRELATED_ADDRESS, UNRELATED_NAME},
};

use crate::{
    dns::interception::{CONFIG, ONE, is_vip, pod},
    rig::{Job, LIMIT},
};

/// A pod whose resolver asks over UDP or, where that is possible, over TCP only: packets of the
/// other kind don't leave it.
struct Asking {
    job: Job,
    executor: Executor,
}

impl Asking {
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
        // What Go finds it connects to, which is to fail at once.
        let line = format!(
            "ip route add unreachable {UNRELATED_ADDRESS} && \
             nft 'add table ip t; add chain ip t o {{ type filter hook output priority 0; }}; add rule ip t o {other} dport {{ 53, 5310-5341 }} reject'"
        );
        executor.run(&line, LIMIT).unwrap().success().unwrap();
        Self { job, executor }
    }

    /// The client's line of shell, with `NAME` for the name, must say the VIP and the unrelated
    /// name's own address.
    fn tell_right(&self, client: &str) {
        let said =
            |name: &str| self.executor.run(&client.replace("NAME", name), LIMIT).unwrap().text();
        let (ours, other) = (said(INTERNAL_NAME), said(UNRELATED_NAME));
        let words = ours.split(|letter: char| !letter.is_ascii_digit() && letter != '.');
        assert!(words.into_iter().any(is_vip), "{client}: {ours}\n{}", self.job.agent.log_tail());
        assert!(
            other.contains(&UNRELATED_ADDRESS.to_string()),
            "{client}: {other}\n{}",
            self.job.agent.log_tail()
        );
    }

    /// How many queries were taken to the shim.
    fn taken(&self) -> u64 {
        self.job.json(&["status"])["dns"]["interception"]["resolvers"][0]["intercepted"]
            .as_u64()
            .unwrap_or(0)
    }

    /// The same of each client, all of whose queries go by the shim.
    fn each_tells_right(&self, clients: &[&str]) {
        for client in clients {
            let before = self.taken();
            self.tell_right(client);
            assert!(
                self.taken() >= before + 2,
                "{client}: {} taken, {before} before",
                self.taken()
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
/// skopeo is a Go program; the error names the address that it found. Nobody listens on port 1.
const GO: &str =
    "GODEBUG=netdns=go skopeo --insecure-policy inspect --no-creds docker://NAME:1/team/hello:1.0";

#[test]
fn glibc_c_ares_go_and_those_that_use_them_over_udp() {
    Asking::over("udp").each_tells_right(&[GLIBC, PYTHON, NODE, C_ARES, GO]);
}

#[test]
fn glibc_c_ares_go_and_those_that_use_them_over_tcp() {
    Asking::over("tcp").each_tells_right(&[GLIBC, PYTHON, NODE, C_ARES, GO]);
}

#[test]
fn musl_whose_socket_is_not_connected() {
    let asking = Asking::over("udp");
    let home = asking.executor.sandbox().home();
    let (source, client) = (home.join("ask.c"), home.join("ask"));
    asking.executor.sandbox().write(&source, ASK).unwrap();
    let mut compiler = packages::tool("musl-gcc").unwrap();
    compiler.args(["-static", "-O1", "-o"]).arg(&client).arg(&source);
    process::finish(compiler, LIMIT).unwrap().success().unwrap();
    asking.each_tells_right(&[&format!("{} NAME", client.display())]);
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
    let asking = Asking::over("udp");
    let source = asking.executor.sandbox().home().join("Lookup.java");
    let text = "public class Lookup { public static void main(String[] a) throws Exception { \
                for (var found : java.net.InetAddress.getAllByName(a[0])) System.out.println(found.getHostAddress()); } }";
    asking.executor.sandbox().write(&source, text).unwrap();
    asking.each_tells_right(&[&format!("java {} NAME", source.display())]);
}
