//! Each kind of guest: names, TLS by the internal name, and another backend when one fails.

use testbed::client_programs::ClientPrograms;
use testbed::guests::{
    GVisor, Macvlan, MicroVm, MicroVmHost, MicroVmOptions, NestedDocker, PodmanContainer, Wiring,
};
use testbed::service::Service;
use testbed::topology::{INTERNAL_NAME, RESOLVER_ADDRESS, UNRELATED_NAME};
use testbed::{ResolvConf, dnsmasq, packages, process};

use crate::field::{Field, LIMIT, Way, bare_vm, look_up, resolv};

#[test]
fn a_pod_whose_sockets_no_cgroup_program_sees() {
    let mut field = Field::with_registry();
    let guest = field.guest_pod("guest");
    field.assert_serves(&guest, Way::Packet);
}

#[test]
fn a_pod_in_an_attached_cgroup() {
    let mut field = Field::with_registry();
    let executor = field.executor("job");
    field.assert_serves(&executor, Way::Cgroup);
}

#[test]
fn gvisor() {
    let mut field = Field::with_registry();
    let guest = GVisor::start(field.guest_pod("gvisor")).unwrap();
    field.assert_serves(&guest, Way::Packet);
}

#[test]
fn containers_of_a_docker_in_a_privileged_pod() {
    let mut field = Field::with_registry();
    let guest = NestedDocker::start(&field.rig, 200, &RESOLVER_ADDRESS.to_string()).unwrap();
    field.assert_serves(&guest, Way::Packet);
}

#[test]
fn a_container_on_podmans_bridge() {
    let mut field = Field::with_registry();
    let guest = PodmanContainer::start(&field.rig, &RESOLVER_ADDRESS.to_string()).unwrap();
    field.assert_serves(&guest, Way::Packet);
}

/// The platform's iptables rules bar guests from the host: the answers in place need no exception.
#[test]
fn a_micro_vm_behind_the_platforms_iptables_rules() {
    let mut field = Field::with_registry();
    let programs = ClientPrograms::prepare(&field.rig.files().join("clients")).unwrap();
    let host = MicroVmHost::new(&field.rig.node).unwrap();
    let options = MicroVmOptions {
        ca_pem: field.rig.customer.ca_pem().to_owned(),
        programs: vec![("usr/bin/relay".to_owned(), programs.relay())],
        ..bare_vm()
    };
    let guest = field.with_programs(MicroVm::start(&host, &options).unwrap());
    let vip = field.vip(INTERNAL_NAME);
    // glibc's resolver and curl's TLS, then musl's resolver in a static program.
    let line = format!(
        "getent ahostsv4 {INTERNAL_NAME}; curl -sS --fail --cacert /etc/ca.pem -o /dev/null \
         -w 'curl %{{remote_ip}} %{{http_code}}\\n' https://{INTERNAL_NAME}/; \
         relay {INTERNAL_NAME} 8080"
    );
    let seen = field.run(&guest, &line);
    let resolved = format!("STREAM {INTERNAL_NAME}");
    for expected in [resolved, format!("curl {vip} 200"), format!("{vip}:8080")] {
        assert!(seen.contains(&expected), "no `{expected}` in: {seen}");
    }
    field.assert_reaches(&guest, Way::Packet);
    assert_eq!(host.packets_to_host().unwrap(), 0, "the guest reached for the host");
}

/// Kata's own programs need a processor with virtualization. This is the way of its frames.
#[test]
fn a_micro_vm_wired_as_kata_wires_it() {
    let mut field = Field::new();
    let host = MicroVmHost::new(&field.rig.node).unwrap();
    let options = MicroVmOptions { wiring: Wiring::Mirror, ..bare_vm() };
    let guest = field.with_programs(MicroVm::start(&host, &options).unwrap());
    field.assert_reaches(&guest, Way::Packet);
    assert_eq!(host.packets_to_host().unwrap(), 0, "the guest reached for the host");
}

/// Its packets pass no interface of its own on the node: names are answered at the uplink.
#[test]
fn a_macvlan_pod() {
    let mut field = Field::with_registry();
    let guest = Macvlan::new(&field.rig, &resolv()).unwrap();
    field.assert_serves(&guest, Way::Cgroup);
}

#[test]
fn a_process_of_the_hosts_network() {
    let mut field = Field::with_registry();
    let process = field.host_executor("host", resolv());
    field.assert_serves(&process, Way::Cgroup);
}

/// A process of the host's network that no attached cgroup holds keeps its resolver's answers.
#[test]
fn a_process_outside_the_attached_cgroups_is_left_alone() {
    let field = Field::new();
    let outside = field.host_executor("host", resolv());
    let mapped = format!("dig +short +time=5 +tries=1 @{RESOLVER_ADDRESS} {INTERNAL_NAME}");
    let answer = outside.outside().run(&mapped, LIMIT).unwrap().text();
    assert_eq!(answer, "");
    assert_eq!(field.resolver.times_asked(INTERNAL_NAME), 1);
    let inside = outside.run(&mapped, LIMIT).unwrap().text();
    assert_eq!(inside.trim(), field.vip(INTERNAL_NAME).to_string());
    assert_eq!(field.resolver.times_asked(INTERNAL_NAME), 1);
}

#[test]
fn a_process_that_asks_a_stub_resolver_on_lo() {
    let stub = "127.0.0.53";
    let mut field = Field::with_registry();
    let process = field.host_executor("host", ResolvConf::of(stub));
    let outside = process.beside("system.slice/dnsmasq.service").unwrap();
    let mut command = outside.command(packages::path_of("dnsmasq").unwrap());
    command.args(dnsmasq::OPTIONS);
    command.args(["--listen-address=127.0.0.53", "--bind-interfaces"]);
    command.args(["--cache-size=0", &format!("--server={RESOLVER_ADDRESS}")]);
    let log = outside.home().join("dnsmasq.log");
    let _dnsmasq = Service::start("dnsmasq", &log, command).unwrap();
    let unrelated = format!("getent ahostsv4 {UNRELATED_NAME}");
    process::until("dnsmasq to answer", LIMIT, || {
        Ok(process.run(&unrelated, LIMIT)?.stdout.starts_with("192.0.2."))
    })
    .unwrap();
    let mut options = field.lookups(stub.parse().unwrap(), 60, 1.0);
    // dnsmasq's answers are its own.
    options.unrelated.clear();
    let report = look_up(&process, &options);
    assert!(report.flawless(), "{report:?}\n{}", field.log_tail());
    field.assert_serves(&process, Way::Cgroup);
}
