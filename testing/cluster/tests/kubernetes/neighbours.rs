//! What connects and asks beside ordinary pods: steps of a Docker in a pod, and resolvers.

use serde_json::json;
use testbed::{
    packages,
    process::until,
    topology::{DNS_ADDRESS, INTERNAL_NAME, PUBLIC_NAME},
    workspace,
};

use crate::{
    pods::{container, fetch, host, job, pod, spec},
    stage::{LIMIT, Stage},
};

const SYSTEM: [&str; 2] = ["-n", "kube-system"];
const RESOLVER: &str = "resolver";
/// As an executor's pod runs it; a step is a container of the machine's programs.
const DOCKER: &str = r#"
mkdir -p /tmp/bin /tmp/step/usr /tmp/step/etc /tmp/step/tmp
ln -s /usr/sbin/xtables-nft-multi /tmp/bin/iptables
for folder in bin lib lib64 sbin; do ln -s usr/$folder /tmp/step/; done
export DOCKER_HOST=unix:///tmp/docker.sock HOME=/tmp
files=$(ulimit -Hn)
dockerd --host $DOCKER_HOST --data-root /tmp/docker --storage-driver vfs \
    --bip 172.17.0.1/16 --exec-opt native.cgroupdriver=cgroupfs \
    --default-ulimit nofile=$files:$files >/tmp/log 2>&1 &
for attempt in {1..300}; do docker version >/dev/null 2>&1 && break; sleep 0.2; done
tar -C /tmp/step -c . | docker import - step:1 || { tail /tmp/log; exit 1; }
for step in 1 2; do
    docker run --rm --volume /usr:/usr:ro step:1 /usr/bin/bash -c "$FETCH" || exit 1
done
"#;
const UNBOUND: &str = "server:
 username: \"\"
 directory: /tmp
 chroot: \"\"
 pidfile: \"\"
 use-syslog: no
 interface: 0.0.0.0
 access-control: 0.0.0.0/0 allow
 module-config: iterator
forward-zone:
 name: .
 forward-addr: ";

/// Docker in a privileged pod makes its cgroups beside those of pods, at `/docker`.
pub(crate) fn redirects_steps_of_dind(stage: &Stage) {
    let mut dind = container("dind", DOCKER);
    let tools = workspace::tools_dir();
    let folder = |package: &str| packages::unpacked_home(package).display().to_string();
    let (docker, containerd) = (folder("docker.io"), folder("containerd"));
    dind["securityContext"] = json!({"privileged": true});
    dind["env"] = json!([
        {"name": "FETCH", "value": fetch()},
        {"name": "PATH", "value": format!(
            "/tmp/bin:{docker}/usr/bin:{docker}/usr/sbin:{containerd}/usr/bin:/usr/sbin:/usr/bin"
        )},
    ]);
    let mounts = dind["volumeMounts"].as_array_mut().unwrap();
    mounts.push(json!({"name": "cgroups", "mountPath": "/sys/fs/cgroup"}));
    mounts.push(json!({"name": "tools", "mountPath": tools, "readOnly": true}));
    let mut spec = spec(vec![dind]);
    let volumes = spec["volumes"].as_array_mut().unwrap();
    volumes.extend([host("cgroups", "/sys/fs/cgroup".as_ref()), host("tools", &tools)]);
    stage.kubectl().apply(&job("dind", &spec).to_string()).unwrap();
    stage.assert_succeeds("dind");
    let status = stage.exec(&["status"]).stdout;
    assert!(status.lines().any(|line| line.ends_with("/docker")), "{status}");
}

/// A resolver in kube-system that got a virtual address would pass it on to clients elsewhere. Its
/// clients in pods are still redirected.
pub(crate) fn leaves_resolvers_out(stage: &Stage) {
    let line = format!("printf %s '{UNBOUND}{DNS_ADDRESS}' >/tmp/c; exec unbound -d -c /tmp/c");
    let resolver = pod(RESOLVER, "kube-system", &spec(vec![container("main", &line)]));
    stage.kubectl().apply(&resolver.to_string()).unwrap();
    let wait = ["wait", "--for=condition=Ready", "--timeout=90s", "pod", RESOLVER];
    stage.kubectl().ok(&[&SYSTEM[..], &wait].concat()).unwrap();
    let serves = || Ok(ask(stage, PUBLIC_NAME).contains("203.0.113."));
    until("the resolver serves", LIMIT, serves).unwrap();
    // Before the API server knows its address, it may have got one.
    let is_left_out = || Ok(!ask(stage, INTERNAL_NAME).contains("198.18."));
    until("the resolver is left out", LIMIT, is_left_out).unwrap();
    let get = [&["pod", RESOLVER][..], &SYSTEM].concat();
    let pod = stage.kubectl().get(&get).unwrap();
    let mut client = spec(vec![container("main", &fetch())]);
    client["dnsPolicy"] = json!("None");
    client["dnsConfig"] = json!({"nameservers": [pod["status"]["podIP"]]});
    stage.kubectl().apply(&job("asks-the-resolver", &client).to_string()).unwrap();
    stage.assert_succeeds("asks-the-resolver");
    assert!(is_left_out().unwrap(), "the resolver has heard of it");
}

/// What the resolver answers to itself.
fn ask(stage: &Stage, name: &str) -> String {
    let dig = ["exec", RESOLVER, "--", "dig", "+short", "+tries=1", "@127.0.0.1", name];
    stage.kubectl().run(&[&SYSTEM[..], &dig].concat()).unwrap().text()
}
