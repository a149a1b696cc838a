//! Docker under systemd: every way in which a job, a build or dockerd itself connects.

use testbed::{debian_package::package, topology::INTERNAL_NAME};

use crate::machine::Machine;

/// As docs/executor-vms.md states.
#[test]
fn every_layout_of_docker_is_redirected() {
    let machine = &Machine::boot();
    let _registry = machine.rig.customer.registry().unwrap();
    install(machine);
    machine.ok("docker network create user");
    for network in ["bridge", "user"] {
        machine.ok(&format!("docker run --rm --network {network} job bash /root/fetch"));
    }
    machine.write("/root/Dockerfile", "FROM job\nRUN [\"bash\", \"/root/fetch\"]\n");
    machine.ok("docker build --no-cache - </root/Dockerfile");
    machine.ok("DOCKER_BUILDKIT=1 docker build --no-cache - </root/Dockerfile");
    machine.ok("docker run --rm --network host job bash /root/fetch");
    let image = format!("{INTERNAL_NAME}/team/job:1.0");
    machine.ok(&format!("docker tag job {image} && docker push {image}"));
    machine.ok(&format!("docker rmi job {image} && docker pull {image}"));
    // The test bed's node has pods, too.
    assert_eq!(attached(machine), ["kubepods", "system.slice"]);
}

/// Where the programs are attached.
fn attached(machine: &Machine) -> Vec<String> {
    let status = machine.ok("redirector status -o json");
    let status: serde_json::Value = serde_json::from_str(&status).unwrap();
    let attachments = status["datapath"]["attachments"].as_array().unwrap();
    let cgroups = attachments.iter().map(|at| at["cgroup"].as_str().unwrap());
    let mut names: Vec<_> =
        cgroups.map(|path| path.trim_start_matches("/sys/fs/cgroup/").to_owned()).collect();
    names.sort_unstable();
    names
}

/// The package, Docker, and an image with a shell.
fn install(machine: &Machine) {
    machine.ok("mkdir --parents /etc/redirector /etc/docker");
    let routes = testbed::agent::documented_config().unwrap();
    machine.write("/etc/redirector/redirector.toml", &routes);
    assert!(machine.install(&package().unwrap()).status.success());
    machine.assert_active();
    // Root may lack CAP_SYS_RESOURCE, which Docker's own limits need.
    let files: u64 = machine.ok("ulimit -Hn").parse().unwrap_or(1 << 20);
    let files = serde_json::json!({"Name": "nofile", "Soft": files, "Hard": files});
    let daemon = serde_json::json!({"storage-driver": "vfs", "default-ulimits": {"nofile": files}});
    machine.write("/etc/docker/daemon.json", &daemon.to_string());
    let authority = format!("/etc/docker/certs.d/{INTERNAL_NAME}");
    machine.ok(&format!("mkdir --parents {authority}"));
    machine.write(&format!("{authority}/ca.crt"), machine.rig.customer.ca_pem());
    // The machine's cgroups are in a namespace, in which the programs at its uplink do not know
    // whose a query is: the host's own look-ups read a file here, of which dockerd keeps a copy for
    // five seconds.
    let vip = machine.vip(INTERNAL_NAME);
    machine.ok(&format!("echo '{vip} {INTERNAL_NAME}' >>/etc/hosts"));
    machine.ok("systemctl start docker");
    // A container's first look-up may come before its interface has our programs.
    let fetch = format!(
        "tries=0\nuntil exec 3<>/dev/tcp/{INTERNAL_NAME}/8080 || [ $((tries += 1)) = 30 ]; do \
            sleep 0.1; done\nprintf 'GET / HTTP/1.0\\r\\n\\r\\n' >&3\n\
            answer=$(cat <&3)\n[[ $answer == *lb[12]* ]]\n"
    );
    machine.write("/root/fetch", &fetch);
    // A shell with glibc's resolver, and nothing else.
    machine.ok("tar --create --dereference --directory / bin/bash bin/cat bin/sleep root/fetch \
        lib64/ld-linux-x86-64.so.2 $(ldd /bin/bash | grep -o '/lib/[^ ]*') | docker import - job");
}
