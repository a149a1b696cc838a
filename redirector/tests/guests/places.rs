//! What an operator sees from a guest's place: `verify`, and the flows of its interface.

use testbed::service::Service;
use testbed::topology::{INTERNAL_NAME, RESOLVER_ADDRESS};
use testbed::{Executor, process};

use crate::field::{Field, LIMIT, binary};

/// A process in the guest's namespace, by which `verify` finds it.
fn process_in(guest: &Executor) -> Service {
    let mut command = guest.command("sleep");
    command.arg("600");
    Service::start("sleep", &guest.sandbox().home().join("sleep.log"), command).unwrap()
}

/// Guests of other tests have interfaces with the same indices.
#[test]
fn verify_acts_from_a_guests_place() {
    let field = Field::with_registry();
    let guest = field.guest_pod("guest");
    let _process = process_in(&guest);
    let (ca, resolver) = (field.rig.customer.ca_path(), RESOLVER_ADDRESS.to_string());
    let netns = guest.sandbox().namespaces().net_path();
    let ca = ca.to_str().unwrap();
    let from = ["verify", INTERNAL_NAME, "--ca", ca, "--nameserver", &resolver];
    for place in [["--interface", "pod1"], ["--netns", &netns]] {
        let seen = field.rig.node.cli_json(binary(), &[&from[..], &place].concat()).unwrap();
        assert_eq!(seen["ok"], true, "{seen}");
        assert_eq!(seen["vantage"]["guest"]["nameservers"][0], resolver.as_str(), "{seen}");
        let steps: Vec<_> = seen["steps"].as_array().unwrap().iter().collect();
        assert!(steps.len() >= 4 && steps.iter().all(|at| at["outcome"] == "ok"), "{seen}");
        let resolved = steps[0]["detail"].as_str().unwrap();
        assert!(resolved.contains(&field.vip(INTERNAL_NAME).to_string()), "{seen}");
    }
    assert_eq!(field.resolver.times_asked(INTERNAL_NAME), 0);
    // Its connects were redirected by packet, and end.
    let expected = serde_json::json!({"open": 0, "half_open": 0, "refused": 0, "limit": 16384});
    let mut status = serde_json::Value::Null;
    let has_ended = || {
        status = field.rig.node.cli_json(binary(), &["status"])?;
        let interfaces = status["datapath"]["packet"]["interfaces"].as_array().unwrap();
        Ok(interfaces.iter().any(|at| at["name"] == "pod1" && at["flows"] == expected))
    };
    process::until("the connections to end", LIMIT, has_ended)
        .unwrap_or_else(|error| panic!("{error}: {status}"));
    let routes = status["routes"].as_array().unwrap();
    let route = routes.iter().find(|route| route["source"] == INTERNAL_NAME).unwrap();
    assert_eq!(route["counters"]["established"], 2, "{route}");
}

#[test]
fn verify_names_what_is_wrong_at_a_guests_place() {
    let mut field = Field::new();
    let guest = field.guest_pod("guest");
    field.balancers.iter_mut().for_each(|balancer| balancer.stop().unwrap());
    let _process = process_in(&guest);
    let node = &field.rig.node;
    let (target, resolver) = (format!("{INTERNAL_NAME}:8080"), RESOLVER_ADDRESS.to_string());
    let asked = ["verify", &target, "--interface", "pod1", "--nameserver", &resolver];
    let seen = node.cli_json(binary(), &[&asked[..], &["--until", "connect"]].concat()).unwrap();
    let code = &seen["findings"][0]["code"];
    assert_eq!((&seen["ok"], code), (&false.into(), &"backend_refused".into()), "{seen}");
    // The guest of a virtual machine can't be entered.
    node.sandbox().run("ip tuntap add dev tap9 mode tap", LIMIT).unwrap().success().unwrap();
    let seen = node.cli(binary(), &["verify", &target, "--interface", "tap9"]).unwrap();
    assert!(!seen.status.success());
    assert!(seen.text().contains("a virtual machine is behind tap9"), "{}", seen.text());
}
