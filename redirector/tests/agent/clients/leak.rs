//! The guard route: a connect to a VIP that no hook redirects fails at once, and no packet leaves
//! the node.

use std::time::Instant;

use testbed::{Sandbox, process::Finished};

use crate::rig::{Job, LIMIT};

fn connect(sandbox: &Sandbox, vip: &str) -> (Finished, u128) {
    let began = Instant::now();
    let finished =
        sandbox.run(&format!("curl -sS --connect-timeout 10 http://{vip}:443/"), LIMIT).unwrap();
    (finished, began.elapsed().as_millis())
}

#[test]
fn without_a_hook_a_connect_to_a_vip_fails_at_once() {
    let job = Job::only_cgroups();
    let vip = job.vip();
    // From a pod's network and from the node's, over TCP and UDP.
    for sandbox in [job.executor.outside(), job.rig.node.sandbox()] {
        let (finished, milliseconds) = connect(sandbox, &vip);
        assert_eq!(finished.status.code(), Some(7), "{}", finished.text());
        assert!(milliseconds < 2000, "took {milliseconds} ms");
        sandbox.run(&format!("echo x > /dev/udp/{vip}/443"), LIMIT).unwrap();
    }
    assert_eq!(job.rig.customer.leaked_packets().unwrap(), 0);
}

/// Rules of a container network (EKS has one for each pod), a VPN's table, and a broader route.
#[test]
fn no_other_routing_rule_leaks_the_pool() {
    let config = testbed::agent::documented_config().unwrap();
    let config = config.replace("interfaces = [\"auto\"]", "interfaces = \"off\"");
    let job = Job::prepared(&config, |rig| {
        let rules = "set -- $(ip -4 route show default) && \
             ip route add 198.18.0.0/15 via $3 dev $5 && \
             ip route add default via $3 dev $5 table 2 && \
             ip rule add pref 5 to 198.18.0.0/15 lookup 2 && \
             ip route add 198.18.0.0/15 via $3 dev $5 table 51820 && \
             ip rule add pref 1 not fwmark 0xca6c lookup 51820";
        rig.node.sandbox().run(rules, LIMIT).unwrap().success().unwrap();
    });
    let vip = job.vip();
    for sandbox in [job.executor.outside(), job.rig.node.sandbox()] {
        let (finished, milliseconds) = connect(sandbox, &vip);
        assert_eq!(finished.status.code(), Some(7), "{}", finished.text());
        assert!(milliseconds < 2000, "took {milliseconds} ms");
    }
    assert_eq!(job.rig.customer.leaked_packets().unwrap(), 0);
    let check = job.cli(&["check"]);
    assert!(check.stdout.contains("no route of this host overlaps it"), "{}", check.text());
}

#[test]
fn the_guard_outlives_the_agent_until_unload() {
    let mut job = Job::new();
    let routes = |job: &Job| {
        job.rig
            .node
            .sandbox()
            .run("ip rule; ip route show table all type unreachable", LIMIT)
            .unwrap()
            .stdout
    };
    let is_guarded = |job: &Job| routes(job).matches("198.18.0.0/16").count() == 2;
    assert!(is_guarded(&job), "{}", routes(&job));
    job.agent.sigkill().unwrap();
    assert!(is_guarded(&job), "{}", routes(&job));
    let unloaded = job.cli(&["unload"]);
    assert!(unloaded.status.success(), "{}", unloaded.text());
    assert!(!routes(&job).contains("198.18."), "{}", routes(&job));
    let addresses = job.rig.node.sandbox().run("ip -o addr show lo", LIMIT).unwrap().stdout;
    assert!(!addresses.contains("169.254.20.53"), "{addresses}");
}
