//! Port 0 of `dns.listen`, where most ports are in use.

use redirector::dns::bind;
use testbed::ResolvConf;
use tokio::net::TcpListener;

use crate::{
    resolver_stacks::in_a_netns,
    running_shim::{settings, unused},
};

#[test]
fn port_0_selects_one_that_is_free_for_udp_and_tcp() {
    in_a_netns(&ResolvConf::of("127.0.0.1"), async |_| {
        let range = "/proc/sys/net/ipv4/ip_local_port_range";
        std::fs::write(range, "40000 40007").expect("written");
        let (mut used, mut taken) = (Vec::new(), Vec::new());
        for port in [40_000, 40_001, 40_002] {
            taken.push(TcpListener::bind(("127.0.0.1", port)).await.expect("free"));
        }
        for _ in 0..20 {
            let bound = bind(&settings(&[unused()])).await.expect("bound");
            used.push(bound.local_addrs()[0].port());
        }
        assert!(used.iter().all(|port| (40_003..40_008).contains(port)), "{used:?}");
    });
}
