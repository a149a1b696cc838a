//! A public pass-through load balancer: HAProxy in TCP mode, which admits two source addresses and
//! logs the source of each connection.

use std::fmt::Write as _;
use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};
use rustix::process::Signal;

use super::banner_server::BannerServer;
use crate::isolation::sandbox::Sandbox;
use crate::packages;
use crate::service::Service;
use crate::topology::{LOAD_BALANCERS, NODE_ADDRESS, NODE_ADDRESS_2, REGISTRY_ADDRESS};

/// Longest time until HAProxy accepts connections.
const LIMIT: Duration = Duration::from_secs(60);

/// A load balancer, running or stopped.
#[derive(Debug)]
pub struct LoadBalancer {
    number: usize,
    sandbox: Sandbox,
    folder: PathBuf,
    service: Option<Service>,
    banner: BannerServer,
}

/// One connection that a load balancer admitted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Admitted {
    /// Where it came from.
    pub source: SocketAddr,
    /// The load balancer's port.
    pub port: u16,
    /// The server name that the client presented in TLS; `None` without TLS.
    pub server_name: Option<String>,
}

impl LoadBalancer {
    pub(crate) fn start(sandbox: &Sandbox, number: usize) -> Result<Self> {
        let folder = sandbox.folder(&format!("lb{number}"))?;
        let behind = SocketAddr::from(([127, 0, 0, 1], 18_080 + u16::try_from(number)?));
        let banner = BannerServer::start(sandbox.namespaces(), behind, &format!("lb{number}"))?;
        let mut balancer = Self { number, sandbox: sandbox.clone(), folder, service: None, banner };
        balancer.start_again()?;
        Ok(balancer)
    }

    /// Its public address.
    pub fn address(&self) -> Ipv4Addr {
        LOAD_BALANCERS[self.number - 1]
    }

    /// `lb1` or `lb2`, its banner on ports 80 and 8080.
    pub fn name(&self) -> String {
        format!("lb{}", self.number)
    }

    /// Its pid; `None` when it is stopped.
    pub fn pid(&self) -> Option<u32> {
        self.service.as_ref().map(Service::pid)
    }

    /// Kills it: connects are refused from now on, and its connections are reset.
    pub fn stop(&mut self) -> Result<()> {
        if let Some(mut service) = self.service.take() {
            service.kill()?;
        }
        Ok(())
    }

    /// Sends a signal, such as SIGSTOP. It is no error when it is stopped.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        self.service.as_ref().map_or(Ok(()), |service| service.signal(signal))
    }

    /// Starts it again, unless it runs.
    pub fn start_again(&mut self) -> Result<()> {
        if self.service.is_some() {
            return Ok(());
        }
        let config = self.folder.join("haproxy.cfg");
        fs::write(&config, self.configuration())
            .with_context(|| format!("failed to write {}", config.display()))?;
        let mut command = self.sandbox.command(packages::path_of("haproxy")?);
        command.arg("-db").arg("-f").arg(&config);
        let mut service = Service::start(
            &format!("haproxy lb{}", self.number),
            &self.folder.join("haproxy.log"),
            command,
        )?;
        let tls = SocketAddr::from((self.address(), 443));
        service.wait_ready(LIMIT, || self.sandbox.accepts_connections(tls))?;
        self.service = Some(service);
        Ok(())
    }

    /// The connections it has admitted so far, in order. Those to ports 80 and 8080 are only
    /// counted: see [`LoadBalancer::greeted`].
    pub fn admitted(&self) -> Vec<Admitted> {
        let log = fs::read_to_string(self.folder.join("haproxy.log")).unwrap_or_default();
        log.lines()
            .filter_map(parse)
            .filter(|connection| connection.source.ip().to_string().starts_with("198.51.100."))
            .collect()
    }

    /// Connections on ports 80 and 8080 that were served.
    pub fn greeted(&self) -> u64 {
        self.banner.served()
    }

    /// Connections that it has rejected because of their source address.
    pub fn denied(&self) -> Result<u64> {
        let mut socket = UnixStream::connect(self.folder.join("stats"))
            .context("failed to reach HAProxy's statistics")?;
        socket.set_read_timeout(Some(Duration::from_secs(5)))?;
        socket
            .write_all(b"show stat -1 1 -1\n")
            .context("failed to ask HAProxy for its statistics")?;
        let mut table = String::new();
        socket.read_to_string(&mut table).context("failed to read HAProxy's statistics")?;
        let mut lines = table.lines();
        let columns = lines.next().unwrap_or_default().trim_start_matches("# ");
        let column = columns
            .split(',')
            .position(|name| name == "dcon")
            .context("HAProxy's statistics have no column dcon")?;
        Ok(lines.filter_map(|line| line.split(',').nth(column)?.parse::<u64>().ok()).sum())
    }

    fn configuration(&self) -> String {
        let (address, number, folder) = (self.address(), self.number, self.folder.display());
        let mut text = format!(
            "global\n  maxconn 4000\n  log stdout format raw local0\n\
             \u{20} stats socket {folder}/stats mode 600\n\
             defaults\n  mode tcp\n  log global\n  option dontlognull\n  option logasap\n\
             \u{20} backlog 4096\n\
             \u{20} timeout connect 3s\n  timeout client 60s\n  timeout server 60s\n"
        );
        for (name, listen, behind) in [
            ("tls", format!("{address}:443"), format!("{REGISTRY_ADDRESS}:443")),
            ("plain", format!("{address}:80,{address}:8080"), self.banner.address().to_string()),
        ] {
            let _ = write!(
                text,
                "frontend {name}\n  bind {listen}\n\
                 \u{20} tcp-request connection reject \
                 unless {{ src {NODE_ADDRESS} {NODE_ADDRESS_2} }}\n\
                 \u{20} default_backend {name}\n"
            );
            if name == "tls" {
                text.push_str(
                    "  tcp-request inspect-delay 3s\n\
                     \u{20} tcp-request content capture req.ssl_sni len 80\n\
                     \u{20} tcp-request content accept if { req.ssl_hello_type 1 }\n\
                     \u{20} log-format \"%Ts.%ms admitted %ci:%cp port=%fp \
                     name=%[capture.req.hdr(0)]\"\n",
                );
            } else {
                text.push_str("  no log\n");
            }
            let _ = write!(text, "backend {name}\n  server lb{number}-{name} {behind}\n");
        }
        text
    }
}

/// Parses a line of the log format above.
fn parse(line: &str) -> Option<Admitted> {
    let mut words = line.split_once(" admitted ")?.1.split(' ');
    let source = words.next()?.parse().ok()?;
    let port = words.next()?.strip_prefix("port=")?.parse().ok()?;
    let name = words.next()?.strip_prefix("name=")?;
    Some(Admitted { source, port, server_name: (name != "-").then(|| name.to_owned()) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_line_names_source_port_and_server_name() {
        let line = parse(
            "1795000000.001 admitted 198.51.100.1:40000 port=443 \
            name=artifactory.internal.company.net",
        )
        .unwrap();
        assert_eq!((line.source.to_string().as_str(), line.port), ("198.51.100.1:40000", 443));
        assert_eq!(line.server_name.as_deref(), Some("artifactory.internal.company.net"));
        assert_eq!(
            parse("1795000000.001 admitted 198.51.100.1:40000 port=443 name=-")
                .unwrap()
                .server_name,
            None
        );
        assert_eq!(parse("[NOTICE] haproxy version is 2.6"), None);
    }
}
