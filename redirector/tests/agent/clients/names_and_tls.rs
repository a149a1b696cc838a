//! Real clients reach the registry by its internal name: each resolves it through the shim,
//! connects to the VIP, sees the VIP from getpeername, and presents the internal name in TLS.

use testbed::{client_programs::ClientPrograms, sample_artifacts, topology::INTERNAL_NAME};

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

/// Runs one of the test bed's clients in the executor; it must see the VIP, and a request succeeds.
#[track_caller]
fn assert_client(kind: &str) {
    let job = Job::new();
    let _registry = job.registry();
    let folder = job.executor.sandbox().home().join("clients");
    let programs = ClientPrograms::prepare(&folder).unwrap();
    let seen = job.shell(&programs.command(kind, INTERNAL_NAME, job.rig.customer.ca_path()));
    assert_eq!(seen, format!("{kind} {} 200\n", job.vip()));
    assert_seen_by_a_balancer(&job);
}

#[test]
fn python() {
    assert_client("python");
}

#[test]
fn node() {
    assert_client("node");
}

/// A JVM's sockets are dual-stack: it connects to `::ffff:VIP`.
#[test]
fn jvm() {
    assert_client("jvm");
}

/// musl's resolver queries from an unconnected socket and checks the answer's source. The static
/// client resolves, connects and relays; Python adds TLS without a socket of its own.
#[test]
fn a_static_musl_client() {
    assert_client("musl");
}

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
    let job = Job::only_cgroups();
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
