//! The packet programs on interfaces that come and go while the agent runs.

use std::{
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use redirector::datapath::{self, InterfaceAttachment, InterfaceRole};
use redirector_common::abi;
use testbed::process;

use crate::rig::{Job, LIMIT};

/// The documented directory of pins.
const BPFFS: &str = "/sys/fs/bpf/redirector";

/// A guest's interface has its programs after this time: the contract.
const ATTACH_LIMIT: Duration = Duration::from_millis(50);

impl Job {
    /// Runs `action` in the node's namespaces.
    fn within<T: Send>(&self, action: impl FnOnce() -> T + Send) -> T {
        self.rig.node.sandbox().namespaces().run(action).unwrap()
    }

    fn interfaces(&self) -> Vec<InterfaceAttachment> {
        self.within(|| datapath::inspect(Path::new(BPFFS)).unwrap().expect("pins").interfaces)
    }

    fn role_of(&self, name: &str) -> Option<InterfaceRole> {
        let all = self.interfaces();
        all.iter().find(|at| at.name.as_deref() == Some(name)).map(|at| at.role)
    }

    fn await_roles(&self, expected: &[(&str, Option<InterfaceRole>)]) {
        let as_expected = || expected.iter().all(|(name, role)| self.role_of(name) == *role);
        process::until("the interfaces to have their programs", LIMIT, || Ok(as_expected()))
            .unwrap_or_else(|error| {
                panic!("{error:#}: {:?}\n{}", self.interfaces(), self.agent.log_tail())
            });
    }

    /// The commands that make guests' interfaces, `veth` and the number.
    fn veths(&self, numbers: std::ops::Range<u32>) -> String {
        let namespace = self.executor.sandbox().namespaces().net_path();
        let line = |n: u32| {
            format!(
                "link add veth{n} index {} type veth peer name peer{n} netns {namespace}",
                7000 + n
            )
        };
        numbers.map(line).collect::<Vec<_>>().join("\n")
    }
}

/// The pin of the program that is attached last.
fn last_pin(n: u32) -> PathBuf {
    let dir = format!("{BPFFS}/v{}/interfaces/{}", abi::ABI, 7000 + n);
    Path::new(&dir).join(redirector_common::names::INGRESS)
}

/// How long an interface has to wait for its last program.
fn time_until_attached(job: &Job, n: u32) -> Duration {
    let command = job.veths(n..n + 1);
    let pin = last_pin(n);
    job.within(|| {
        let status = std::process::Command::new("ip").args(command.split(' ')).status().unwrap();
        assert!(status.success());
        let started = Instant::now();
        while !pin.exists() {
            assert!(started.elapsed() < LIMIT, "not attached");
            std::thread::sleep(Duration::from_micros(200));
        }
        started.elapsed()
    })
}

#[test]
fn roles_follow_from_the_kind_and_the_default_route() {
    let job = Job::new();
    let (guest, host) = (Some(InterfaceRole::Guest), Some(InterfaceRole::Host));
    job.await_roles(&[("lo", host), ("uplink", host), ("pod1", guest)]);
    job.on_node("ip link add br7 type bridge; ip tuntap add dev tap7 mode tap");
    job.on_node("ip tuntap add dev tun7 mode tun; ip link set tap7 master br7");
    job.await_roles(&[("br7", host), ("tap7", guest), ("tun7", None)]);
    // A port that leaves its bridge is not gone.
    job.on_node("ip link set tap7 nomaster");
    std::thread::sleep(Duration::from_millis(500));
    job.await_roles(&[("tap7", guest)]);
    // A pair that is set up here, as a container runtime does, until one end moves.
    job.on_node("ip link add near type veth peer name far");
    job.await_roles(&[("near", host), ("far", host)]);
    let namespace = job.executor.sandbox().namespaces().net_path();
    job.on_node(&format!("ip link set far netns {namespace}"));
    job.await_roles(&[("near", guest), ("far", None)]);
    job.on_node("ip link delete near");
    job.await_roles(&[("near", None)]);
}

#[test]
fn an_interface_that_appears_is_attached_within_50_ms() {
    let job = Job::new();
    job.await_roles(&[("pod1", Some(InterfaceRole::Guest))]);
    let mut times: Vec<_> = (0..7).map(|n| time_until_attached(&job, n)).collect();
    times.sort();
    println!("attached after {times:?}");
    // Beside other tests, some wait for a processor.
    assert!(times[0] < ATTACH_LIMIT, "{times:?}");
}

#[test]
fn two_hundred_at_once_are_attached_and_the_agent_stays_alive() {
    const COUNT: u32 = 200;
    let job = Job::new();
    job.await_roles(&[("pod1", Some(InterfaceRole::Guest))]);
    let commands = job.veths(0..COUNT);
    let started = Instant::now();
    job.on_node(&format!("ip -batch - <<'END'\n{commands}\nEND"));
    let made = started.elapsed();
    let mut longest_reply = Duration::ZERO;
    let all_attached = || {
        let asked = Instant::now();
        job.cli(&["route", "list"]).success()?;
        longest_reply = longest_reply.max(asked.elapsed());
        Ok(job.within(|| (0..COUNT).all(|n| last_pin(n).exists())))
    };
    process::until("every interface to have its programs", 2 * LIMIT, all_attached).unwrap();
    let attached = started.elapsed();
    println!("made in {made:?}, attached after {attached:?}, longest reply {longest_reply:?}");
    assert!(longest_reply < Duration::from_secs(5), "{longest_reply:?}");
    let indices = job.interfaces().iter().filter(|at| at.programs.len() == 2).count();
    assert!(indices > COUNT as usize, "{indices}");
}

#[test]
fn a_restart_adopts_and_releases_what_went_meanwhile() {
    let mut job = Job::new();
    job.on_node(&format!("ip -batch - <<'END'\n{}\nEND", job.veths(0..2)));
    let guest = Some(InterfaceRole::Guest);
    job.await_roles(&[("veth0", guest), ("veth1", guest)]);
    job.agent.sigkill().unwrap();
    assert_eq!(job.role_of("veth0"), guest);
    job.on_node("ip link delete veth0");
    job.on_node(&format!("ip -batch - <<'END'\n{}\nEND", job.veths(2..3)));
    job.agent.restart().unwrap();
    job.await_roles(&[("veth0", None), ("veth1", guest), ("veth2", guest)]);
    let gone = last_pin(0);
    assert!(!job.within(|| gone.parent().unwrap().exists()));
}

#[test]
fn the_configuration_decides_and_a_reload_applies_it() {
    let documented = testbed::agent::documented_config().unwrap();
    let with = |value: &str| {
        let changed =
            documented.replace("interfaces = [\"auto\"]", &format!("interfaces = {value}"));
        assert_ne!(changed, documented);
        changed
    };
    let mut job = Job::with_config(&with("\"off\""));
    assert!(job.interfaces().is_empty(), "{:?}", job.interfaces());
    let (guest, host) = (Some(InterfaceRole::Guest), Some(InterfaceRole::Host));
    // More than one step can release.
    job.on_node(
        "ip link add one type veth peer name two; \
         for n in 1 2 3 4 5 6; do ip link add many$n type veth peer name peer$n; done",
    );
    job.agent.write_config(&with("[\"one\", \"many*\", \"!uplink\"]")).unwrap();
    job.agent.sighup().unwrap();
    job.await_roles(&[
        ("one", guest),
        ("two", host),
        ("many1", guest),
        ("many6", guest),
        ("uplink", None),
        ("pod1", None),
        ("lo", host),
    ]);
    job.agent.write_config(&with("\"off\"")).unwrap();
    job.agent.sighup().unwrap();
    process::until("the interfaces to be released", LIMIT, || Ok(job.interfaces().is_empty()))
        .unwrap_or_else(|error| panic!("{error:#}: {:?}", job.interfaces()));
}

/// The programs of a guest's interface would serve the network beyond the uplink.
#[test]
fn an_uplink_stays_the_hosts_without_free_descriptors() {
    let job = Job::new();
    let (guest, host) = (Some(InterfaceRole::Guest), Some(InterfaceRole::Host));
    job.await_roles(&[("uplink", host), ("pod1", guest)]);
    // All of these are in use.
    job.limit_descriptors(10);
    job.on_node("ip link set uplink mtu 1400");
    process::until("the agent to ask in vain", LIMIT, || Ok(job.agent.log().contains("uplinks")))
        .unwrap();
    assert_eq!((job.role_of("uplink"), job.role_of("pod1")), (host, guest));
    job.limit_descriptors(1024);
    job.on_node(&format!("ip -batch - <<'END'\n{}\nEND", job.veths(0..1)));
    job.await_roles(&[("veth0", guest), ("uplink", host), ("pod1", guest)]);
}

#[test]
fn unload_removes_the_programs_of_interfaces() {
    let mut job = Job::new();
    job.await_roles(&[("pod1", Some(InterfaceRole::Guest))]);
    job.agent.sigterm().unwrap();
    assert!(!job.interfaces().is_empty());
    let done = job.cli(&["unload"]).success().unwrap();
    assert!(done.stdout.contains("packet programs from"), "{}", done.stdout);
    let left = job.within(|| {
        let indices = 1..20;
        let listed =
            |index| testbed::foreign_filter::tcx_programs(index, false).unwrap_or_default();
        indices.flat_map(listed).collect::<Vec<_>>()
    });
    assert!(left.is_empty() && !job.within(|| Path::new(BPFFS).exists()), "{left:?}");
}
