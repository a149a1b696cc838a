//! The customer's site: its servers in public and inside.

mod abrupt_server;
mod acceptor;
mod banner_server;
mod certificates;
mod dns_server;
mod echo_server;
mod load_balancer;
mod registry;
pub mod resolver;
mod site;

pub use abrupt_server::{AbruptServer, Ending};
pub use banner_server::BannerServer;
pub use certificates::Certificates;
pub use dns_server::DnsServer;
pub use echo_server::EchoServer;
pub use load_balancer::{Admitted, LoadBalancer};
pub use registry::Registry;
pub use resolver::Resolver;
pub use site::{Customer, Obstacle};
