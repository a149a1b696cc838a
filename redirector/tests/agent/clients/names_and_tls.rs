//! Real clients reach the registry by its internal name: each resolves it through the shim,
//! connects to the VIP, sees the VIP from getpeername, and presents the internal name in TLS.

use std::fs;

use testbed::{process, sample_artifacts, topology::INTERNAL_NAME};

use crate::rig::{Job, LIMIT};

/// Asserts that every connection that a load balancer admitted carried the internal name and came
/// from an admitted address, and that no packet leaked.
#[track_caller]
fn assert_seen_by_a_balancer(job: &Job) {
    let admitted: Vec<_> = job.balancers.iter().flat_map(|balancer| balancer.admitted()).collect();
    assert!(!admitted.is_empty(), "no load balancer admitted a connection");
    for connection in admitted {
        assert_eq!(connection.server_name.as_deref(), Some(INTERNAL_NAME), "{connection:?}");
        assert_eq!(connection.source.ip().to_string(), "198.51.100.1", "{connection:?}");
    }
    assert_eq!(job.rig.customer.leaked_packets().unwrap(), 0);
}

fn client_file(job: &Job, name: &str, text: &str) -> String {
    let path = job.executor.sandbox().home().join(name);
    fs::write(&path, text).unwrap();
    path.display().to_string()
}

#[test]
fn curl() {
    let job = Job::new();
    let _registry = job.registry();
    let seen = job.shell(&format!(
        "curl -sS --fail -o /dev/null -w '%{{remote_ip}}:%{{remote_port}} %{{http_code}} \
            %{{ssl_verify_result}}' https://{INTERNAL_NAME}/"
    ));
    assert_eq!(seen, format!("{}:443 200 0", job.vip()));
    assert_seen_by_a_balancer(&job);
}

#[test]
fn python() {
    let job = Job::new();
    let _registry = job.registry();
    let script = client_file(
        &job,
        "client.py",
        &format!(
            "
import socket, ssl, urllib.request
plain = socket.create_connection(('{INTERNAL_NAME}', 443), 10)
s = ssl.create_default_context().wrap_socket(plain, server_hostname='{INTERNAL_NAME}')
print(s.getpeername()[0]); s.close()
print(urllib.request.urlopen('https://{INTERNAL_NAME}/').status)
"
        ),
    );
    assert_eq!(job.shell(&format!("/usr/bin/python3 {script}")), format!("{}\n200\n", job.vip()));
    assert_seen_by_a_balancer(&job);
}

#[test]
fn node() {
    let job = Job::new();
    let _registry = job.registry();
    let script = client_file(
        &job,
        "client.js",
        &format!(
            "
require('https').get({{ host: '{INTERNAL_NAME}', path: '/', agent: false }}, r => {{
  console.log(r.socket.remoteAddress, r.statusCode); r.resume();
}}).on('error', e => {{ console.log(e.code); process.exit(1) }});
"
        ),
    );
    let seen = job.shell(&format!(
        "NODE_EXTRA_CA_CERTS={} node {script}",
        job.rig.customer.ca_path().display()
    ));
    assert_eq!(seen, format!("{} 200\n", job.vip()));
    assert_seen_by_a_balancer(&job);
}

/// A JVM's sockets are dual-stack: it connects to `::ffff:VIP`.
#[test]
fn jvm() {
    let job = Job::new();
    let _registry = job.registry();
    let class = client_file(
        &job,
        "Client.java",
        &format!(
            "
import java.io.*; import java.net.*; import java.security.*;
import java.security.cert.*; import javax.net.ssl.*;
public class Client {{
  public static void main(String[] a) throws Exception {{
    KeyStore store = KeyStore.getInstance(KeyStore.getDefaultType()); store.load(null, null);
    CertificateFactory certificates = CertificateFactory.getInstance(\"X.509\");
    try (InputStream in = new FileInputStream(a[0])) {{
      store.setCertificateEntry(\"ca\", certificates.generateCertificate(in));
    }}
    String algorithm = TrustManagerFactory.getDefaultAlgorithm();
    TrustManagerFactory trust = TrustManagerFactory.getInstance(algorithm); trust.init(store);
    SSLContext tls = SSLContext.getInstance(\"TLS\");
    tls.init(null, trust.getTrustManagers(), null);
    try (SSLSocket s = (SSLSocket) tls.getSocketFactory().createSocket(\"{INTERNAL_NAME}\", 443)) {{
      s.startHandshake(); System.out.println(s.getInetAddress().getHostAddress());
    }}
    URL url = new URL(\"https://{INTERNAL_NAME}/\");
    HttpsURLConnection http = (HttpsURLConnection) url.openConnection();
    http.setSSLSocketFactory(tls.getSocketFactory());
    System.out.println(http.getResponseCode());
  }}
}}
"
        ),
    );
    let seen = job.shell(&format!("java {class} {}", job.rig.customer.ca_path().display()));
    assert_eq!(seen, format!("{}\n200\n", job.vip()));
    assert_seen_by_a_balancer(&job);
}

/// musl's resolver queries from an unconnected socket and checks the answer's source. The static
/// client resolves, connects and relays; Python adds TLS without a socket of its own.
#[test]
fn a_static_musl_client() {
    let job = Job::new();
    let _registry = job.registry();
    let source = client_file(&job, "relay.c", RELAY);
    let relay = job.executor.sandbox().home().join("relay");
    let mut compiler = testbed::packages::tool("musl-gcc").unwrap();
    compiler.args(["-static", "-O1", "-o"]).arg(&relay).arg(&source);
    process::finish(compiler, LIMIT).unwrap().success().unwrap();
    let script = client_file(
        &job,
        "tls.py",
        &format!(
            "
import ssl, subprocess
PIPE = subprocess.PIPE
p = subprocess.Popen(['{relay}', '{INTERNAL_NAME}', '443'], stdin=PIPE, stdout=PIPE, stderr=PIPE)
print(p.stderr.readline().decode().strip())
incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
tls = ssl.create_default_context().wrap_bio(incoming, outgoing, server_hostname='{INTERNAL_NAME}')
def step(call):
    while True:
        try: return call()
        except ssl.SSLWantReadError:
            p.stdin.write(outgoing.read()); p.stdin.flush()
            data = p.stdout.read1(65536)
            assert data, 'the connection ended'
            incoming.write(data)
step(tls.do_handshake)
tls.write(b'GET / HTTP/1.0\\r\\nHost: {INTERNAL_NAME}\\r\\n\\r\\n')
print(step(lambda: tls.read(12)).decode())
p.kill()
",
            relay = relay.display()
        ),
    );
    let seen = job.shell(&format!("/usr/bin/python3 {script}"));
    let lines: Vec<&str> = seen.lines().collect();
    assert_eq!(lines[0], format!("{}:443", job.vip()), "{seen}");
    assert!(lines[1].starts_with("HTTP/1.") && lines[1].ends_with("200"), "{seen}");
    assert_seen_by_a_balancer(&job);
}

/// Resolves, connects, prints its peer on standard error, and relays between standard input and
/// output and the socket.
const RELAY: &str = r#"
#include <arpa/inet.h>
#include <netdb.h>
#include <poll.h>
#include <stdio.h>
#include <sys/socket.h>
#include <unistd.h>
int main(int argc, char **argv) {
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM}, *found;
    int error = getaddrinfo(argv[1], argv[2], &hints, &found);
    if (error) { fprintf(stderr, "%s\n", gai_strerror(error)); return 1; }
    int s = socket(found->ai_family, SOCK_STREAM, 0);
    if (connect(s, found->ai_addr, found->ai_addrlen)) { perror("connect"); return 1; }
    struct sockaddr_in peer; socklen_t length = sizeof peer;
    getpeername(s, (struct sockaddr *)&peer, &length);
    fprintf(stderr, "%s:%d\n", inet_ntoa(peer.sin_addr), ntohs(peer.sin_port));
    struct pollfd ends[2] = {{.fd = 0, .events = POLLIN}, {.fd = s, .events = POLLIN}};
    char buffer[65536];
    while (poll(ends, 2, 30000) > 0)
        for (int i = 0; i < 2; i++)
            if (ends[i].revents) {
                ssize_t n = read(ends[i].fd, buffer, sizeof buffer);
                if (n <= 0 || write(i ? 1 : s, buffer, n) != n) return 0;
            }
    return 0;
}
"#;

/// skopeo is a Go program, with Go's own resolver and dialer.
#[test]
fn skopeo_pushes_and_pulls_an_image() {
    let job = Job::new();
    let registry = job.registry();
    let home = job.executor.sandbox().home();
    let pushed = sample_artifacts::image(&home.join("image")).unwrap();
    job.shell(&format!(
        "skopeo --insecure-policy copy oci:image:1.0 docker://{INTERNAL_NAME}/team/hello:1.0"
    ));
    job.shell(&format!(
        "skopeo --insecure-policy copy docker://{INTERNAL_NAME}/team/hello:1.0 oci:pulled:1.0"
    ));
    assert_eq!(sample_artifacts::image_identity(&home.join("pulled")).unwrap(), pushed);
    assert!(
        registry.requests().iter().all(|line| line.starts_with(INTERNAL_NAME)),
        "{:?}",
        registry.requests()
    );
    assert_seen_by_a_balancer(&job);
}

#[test]
fn pip_installs_a_package() {
    let job = Job::new();
    let _registry = job.registry();
    job.shell(&format!(
        "pip install --index-url https://{INTERNAL_NAME}/simple --target site {}",
        sample_artifacts::PACKAGE.0
    ));
    assert_eq!(
        job.shell("PYTHONPATH=site python -c 'import hello_company; print(hello_company.hello())'")
            .trim(),
        sample_artifacts::PACKAGE_GREETING
    );
    assert_seen_by_a_balancer(&job);
}

#[test]
fn a_process_outside_the_cgroup_is_not_redirected() {
    let job = Job::new();
    let _registry = job.registry();
    let outside = job
        .executor
        .outside()
        .run(&format!("curl -sS --connect-timeout 5 https://{INTERNAL_NAME}/"), LIMIT)
        .unwrap();
    assert_eq!(outside.status.code(), Some(7), "{}", outside.text());
    let unrelated =
        job.shell(&format!("getent ahostsv4 {} | head -n 1", testbed::topology::UNRELATED_NAME));
    assert!(
        unrelated.starts_with(&testbed::topology::UNRELATED_ADDRESS.to_string()),
        "{unrelated}"
    );
    let direct = job.shell("curl -sS --max-time 5 http://203.0.113.7:8080/");
    assert_eq!(direct, "lb1\n");
}
