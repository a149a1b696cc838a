//! Neighbours on the network of the node query the shim.

use testbed::topology::{INTERNAL_NAME, NODE_ADDRESS};

use crate::{
    dns::interception::{CONFIG, ONE, address, is_vip, pod},
    rig::{Job, LIMIT},
};

/// The code of the answer to a neighbour with this address, or nothing.
fn answer_to(job: &Job, neighbour: &str, port: u16) -> String {
    let query = format!(
        "dig +time=2 +tries=1 -b {neighbour} -p {port} @{NODE_ADDRESS} {INTERNAL_NAME} A | \
            grep -o 'status: [A-Z]*'"
    );
    job.rig.customer.sandbox().run(&query, LIMIT).unwrap().stdout.trim().to_owned()
}

#[test]
fn pods_that_start_soon_after_one_another_are_answered_at_once() {
    let job = Job::with_config(CONFIG);
    // Only the first query of a pod shows the shim its interface.
    for number in 0..24 {
        let pod = pod(&job, &format!("new{number}"), ONE);
        let vip = address(&pod, INTERNAL_NAME);
        assert!(is_vip(&vip), "{number}: {vip:?}\n{}", job.agent.log_tail());
    }
    assert_eq!(job.json(&["status"])["dns"]["counters"]["denied_clients"], 0);
}

#[test]
fn neighbours_with_private_addresses_are_refused() {
    let listen = format!("[dns]\nlisten = [\"{NODE_ADDRESS}:53\", \"169.254.20.53:53\"]\n");
    let job = Job::with_config(&CONFIG.replace("[dns]\n", &listen));
    let addresses = "ip address add 10.9.0.7/24 dev public && ip address add 198.51.100.77/24 \
        dev public && ip address add 169.254.7.7/16 dev public";
    job.rig.customer.sandbox().run(addresses, LIMIT).unwrap().success().unwrap();
    // Port 334 is that of the first intercepted resolver.
    for (neighbour, port) in
        [("10.9.0.7", 53), ("198.51.100.77", 53), ("169.254.7.7", 53), ("10.9.0.7", 334)]
    {
        assert_eq!(answer_to(&job, neighbour, port), "status: REFUSED", "{neighbour} {port}");
    }
    assert!(is_vip(&job.vip()), "the shim answers a pod\n{}", job.agent.log_tail());
    // Pods that were unknown a moment ago.
    let pods = ["one", "two", "three"].map(|name| {
        let pod = pod(&job, name, ONE);
        assert!(is_vip(&address(&pod, INTERNAL_NAME)), "so does interception");
        pod
    });
    let status = job.json(&["status"]);
    assert_eq!(status["dns"]["counters"]["denied_clients"], 4, "{status}");
    let problems = status["problems"].as_array().unwrap();
    let refused = problems.iter().find(|problem| problem["code"] == "dns_clients_refused").unwrap();
    assert!(
        refused["message"].as_str().unwrap().ends_with("4, refused; the last came from 10.9.0.7")
            && refused["degrades"] == false,
        "{refused}"
    );
    let checked = job.json(&["check"]);
    let rows = checked["checks"].as_array().unwrap();
    let row = rows.iter().find(|row| row["name"] == "dns_clients").unwrap();
    let expected = "the shim answers this host, clients behind: pod1, pod2, pod3, pod4";
    assert_eq!(row["detail"], expected);
    drop(pods);
}
