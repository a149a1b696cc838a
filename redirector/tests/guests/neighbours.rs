//! Programs of others on the same hooks: guests continue to work, or the commands show why not.

use std::os::fd::OwnedFd;

use serde_json::Value;
use testbed::foreign_filter::{CONTINUES, ENDS_THE_CHAIN, ForeignFilter, TcxOrder};
use testbed::topology::{INTERNAL_NAME, RESOLVER_ADDRESS};
use testbed::{Executor, process};

use crate::field::{Field, LIMIT, Way, binary, look_up};

/// The interface of the first pod.
const INTERFACE: &str = "pod1";

impl Field {
    fn json(&self, arguments: &[&str]) -> Value {
        self.rig.node.cli_json(binary(), arguments).unwrap()
    }

    fn on_node(&self, line: &str) -> String {
        self.rig.node.sandbox().run(line, LIMIT).unwrap().success().unwrap().stdout
    }

    /// What `status` says of an interface.
    fn interface(&self, name: &str) -> Value {
        let status = self.json(&["status"]);
        let all = status["datapath"]["packet"]["interfaces"].as_array().unwrap().clone();
        all.into_iter().find(|at| at["name"] == name).unwrap_or_else(|| panic!("{status}"))
    }

    /// The problem with this code in `status`.
    fn problem(&self, code: &str) -> Option<Value> {
        let status = self.json(&["status"]);
        let problems = status["problems"].as_array().unwrap().clone();
        problems.into_iter().find(|problem| problem["code"] == code)
    }

    /// The codes of what `explain` finds at an interface.
    fn explained(&self, interface: &str) -> Vec<String> {
        let explained = self.json(&["explain", INTERNAL_NAME, "--interface", interface]);
        let findings = explained["findings"].as_array().unwrap_or_else(|| panic!("{explained}"));
        findings.iter().filter_map(|at| at["code"].as_str().map(str::to_owned)).collect()
    }

    /// A row of `check`.
    fn checked(&self, row: &str) -> Value {
        let checks = self.json(&["check"]);
        let all = checks["checks"].as_array().unwrap_or_else(|| panic!("{checks}")).clone();
        all.into_iter().find(|check| check["name"] == row).unwrap()
    }

    fn foreign(&self, interface: &str, verdict: i32, ingress: bool, order: TcxOrder) -> OwnedFd {
        let link = self.on_node(&format!("ip -o link show {interface}"));
        let index = link.split(':').next().unwrap().parse().unwrap();
        let attach = || ForeignFilter::returning(verdict)?.attach_tcx(index, ingress, order);
        self.rig.node.sandbox().namespaces().run(attach).unwrap().unwrap()
    }

    #[track_caller]
    fn await_status(&self, what: &str, is_so: impl Fn(&Self) -> bool) {
        process::until(what, LIMIT, || Ok(is_so(self))).unwrap_or_else(|error| {
            panic!("{error}: {}\n{}", self.json(&["status"]), { self.log_tail() })
        });
    }

    #[track_caller]
    fn assert_answers(&self, guest: &Executor) {
        let report = look_up(guest, &self.lookups(RESOLVER_ADDRESS, 60, 1.0));
        assert!(report.flawless(), "{report:?}\n{}", self.log_tail());
    }
}

#[test]
fn programs_of_others_before_and_after_ours() {
    let mut field = Field::new();
    let guest = field.guest_pod("guest");
    // Those that were there first, and those that come after ours, leave guests alone.
    let _after =
        [true, false].map(|ingress| field.foreign(INTERFACE, CONTINUES, ingress, TcxOrder::Last));
    field.assert_reaches(&guest, Way::Packet);
    let row = field.checked("foreign_filters");
    assert!(row["detail"].as_str().unwrap().contains(INTERFACE), "{row}");
    // One that ends the chain in front of ours is overtaken.
    let _first = field.foreign(INTERFACE, ENDS_THE_CHAIN, true, TcxOrder::First);
    field.await_status("ours to be first again", |field| {
        field.interface(INTERFACE)["reattached"] == 1
    });
    // One that insists is named for as long as it is in front.
    let second = field.foreign(INTERFACE, CONTINUES, true, TcxOrder::First);
    field.await_status("the program to be named", |field| {
        field.problem("interface_preceded").is_some()
            || field.interface(INTERFACE)["reattached"] == 2
    });
    if let Some(problem) = field.problem("interface_preceded") {
        assert!(problem["message"].as_str().unwrap().contains(INTERFACE), "{problem}");
        assert!(problem["remedy"].is_string() && problem["degrades"] == false, "{problem}");
        assert!(field.explained(INTERFACE).contains(&"foreign_program".to_owned()));
    }
    field.assert_answers(&guest);
    drop(second);
    field.await_status("no program to be in front", |field| {
        field.problem("interface_preceded").is_none()
    });
    field.assert_reaches(&guest, Way::Packet);
}

/// Cilium's host routing takes the backends' answers past our egress program: a connect would never
/// be established. Its guests get names, and their connects an error at once.
#[test]
fn a_node_whose_replies_pass_our_egress_by() {
    let field = Field::new();
    let guest = field.guest_pod("guest");
    field.on_node("ip link add cilium_host type veth peer name cilium_net");
    let from_netdev = field.foreign("uplink", CONTINUES, true, TcxOrder::Last);
    field.await_status("guests to get names only", |field| {
        field.interface(INTERFACE)["connects"] == "none"
    });
    assert_eq!(field.interface(INTERFACE)["names"], "packet");
    field.assert_answers(&guest);
    let line = format!("curl -sS --max-time 5 http://{INTERNAL_NAME}:8080/");
    let seen = guest.run(&line, LIMIT).unwrap();
    assert!(!seen.status.success(), "{}", seen.text());
    let problem = field.problem("egress_bypassed").unwrap();
    let message = problem["message"].as_str().unwrap();
    assert!(message.contains("Cilium's program on uplink"), "{problem}");
    assert!(problem["remedy"].is_string(), "{problem}");
    assert!(field.explained(INTERFACE).contains(&"interface_not_served".to_owned()));
    let row = field.checked("interfaces");
    assert_eq!(row["outcome"], "warning", "{row}");
    assert!(row["detail"].as_str().unwrap().contains("guests get names only"), "{row}");
    // A process in an attached cgroup is redirected there as everywhere.
    let job = field.executor("job");
    let greeted = job.run(&line, LIMIT).unwrap().text();
    assert!(greeted.starts_with("lb"), "{greeted}");
    // Without it, guests are redirected again.
    drop(from_netdev);
    field.on_node("ip link delete cilium_host");
    field.await_status("guests to be redirected", |field| {
        field.interface(INTERFACE)["connects"] == "packet"
    });
    let greeted = guest.run(&line, LIMIT).unwrap().text();
    assert!(greeted.starts_with("lb"), "{greeted}");
    assert_eq!(field.rig.customer.leaked_packets().unwrap(), 0);
}
