//! The address plan of a rig: the names and addresses of node and customer.

use std::net::Ipv4Addr;

/// The registry's internal name: the route's source.
pub const INTERNAL_NAME: &str = "artifactory.internal.company.net";
/// The load balancers' public name: the route's destination.
pub const PUBLIC_NAME: &str = "artifactory.public.company.net";
/// The public network of the customer.
pub const CUSTOMER_NETWORK: &str = "203.0.113.0/24";
/// The customer's end of the link: where the node's default route leads, and ends.
pub const CUSTOMER_GATEWAY: &str = "203.0.113.1";
/// The customer's public DNS server, and the node's resolver.
pub const DNS_ADDRESS: &str = "203.0.113.53";
/// A resolver that knows none of the mapped names, and writes down what it is asked.
pub const RESOLVER_ADDRESS: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 54);
/// The load balancers' addresses.
pub const LOAD_BALANCERS: [Ipv4Addr; 2] =
    [Ipv4Addr::new(203, 0, 113, 7), Ipv4Addr::new(203, 0, 113, 8)];
/// Where the registry listens inside.
pub const REGISTRY_ADDRESS: &str = "10.20.0.10";
/// The node's static source address, which the load balancers admit.
pub const NODE_ADDRESS: &str = "198.51.100.1";
/// The node's second static source address.
pub const NODE_ADDRESS_2: &str = "198.51.100.2";
/// A public name that has nothing to do with the customer.
pub const UNRELATED_NAME: &str = "www.example.test";
/// Its address.
pub const UNRELATED_ADDRESS: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 80);
