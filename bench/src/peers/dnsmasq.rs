//! DNS only: dnsmasq answers the load balancer's addresses, and clients connect to them.

use std::{
    fmt::Write as _,
    fs,
    net::{Ipv4Addr, SocketAddrV4},
    path::PathBuf,
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result};
use rustix::process::Signal;
use testbed::{Executor, Sandbox, dnsmasq, packages, service::Service};

use super::{
    peer::{BACKENDS, Peer, RESTART_DELAY, Routes},
    site::Site,
};
use crate::{
    lookup::{self, name},
    worker,
};

const RESOLVER: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::LOCALHOST, 53);
/// Longest time until it answers for the last name.
const START: Duration = Duration::from_secs(30);

/// A client with a DNS server of its own.
pub(crate) struct Dnsmasq {
    port: u16,
    core: usize,
    addresses: Vec<Vec<Ipv4Addr>>,
    service: Option<Service>,
    executor: Executor,
}

impl Dnsmasq {
    /// A client without a server yet, in an executor of this name.
    pub(crate) fn new(site: &Site, name: &str) -> Result<Self> {
        let (port, core) = (site.port, site.core);
        let executor = site.executor(name)?;
        Ok(Self { port, core, addresses: Vec::new(), service: None, executor })
    }

    fn file(&self, name: &str) -> PathBuf {
        self.executor.outside().home().join(name)
    }

    fn write_hosts(&self) -> Result<()> {
        let mut text = String::new();
        for (number, addresses) in (0..).zip(&self.addresses) {
            for address in addresses {
                let _ = writeln!(text, "{address} {}", name(number));
            }
        }
        let path = self.file("hosts");
        fs::write(&path, text).with_context(|| format!("failed to write {}", path.display()))
    }

    fn start(&self) -> Result<Service> {
        let sandbox = self.executor.outside();
        let mut command = sandbox.command(packages::path_of("dnsmasq")?);
        command.args(dnsmasq::OPTIONS).args(["--listen-address=127.0.0.1", "--bind-interfaces"]);
        command.arg(format!("--addn-hosts={}", self.file("hosts").display()));
        worker::pin(&mut command, self.core);
        let mut service = Service::start("dnsmasq", &self.file("dnsmasq.log"), command)?;
        let last = name(self.addresses.len().saturating_sub(1) as u32);
        service.wait_ready(START, || {
            sandbox.namespaces().run(|| {
                lookup::addresses(RESOLVER, &last, Duration::from_millis(500))
                    .is_ok_and(|addresses| !addresses.is_empty())
            })
        })?;
        Ok(service)
    }
}

impl Peer for Dnsmasq {
    fn label(&self) -> &'static str {
        "DNS only (dnsmasq)"
    }

    fn sandbox(&self) -> &Sandbox {
        self.executor.sandbox()
    }

    /// A restart.
    fn load(&mut self, routes: Routes) -> Result<()> {
        self.service = None;
        self.addresses = vec![routes.backends.to_vec(); routes.count as usize];
        self.write_hosts()?;
        self.service = Some(self.start()?);
        Ok(())
    }

    fn target(&self, number: u32) -> Result<SocketAddrV4> {
        let addresses = self.addresses.get(number as usize).context("there is no such route")?;
        Ok(SocketAddrV4::new(addresses[0], self.port))
    }

    fn spread(&self) -> u32 {
        self.addresses.len() as u32
    }

    fn first_target(&self) -> SocketAddrV4 {
        SocketAddrV4::new(BACKENDS[0], self.port)
    }

    fn resolver(&self) -> Option<SocketAddrV4> {
        Some(RESOLVER)
    }

    fn is_dns_only(&self) -> bool {
        true
    }

    /// It reads its hosts again on SIGHUP.
    fn change(&mut self, number: u32, backend: Ipv4Addr) -> Result<()> {
        let route = self.addresses.get_mut(number as usize).context("there is no such route")?;
        *route = vec![backend];
        self.write_hosts()?;
        self.service.as_ref().context("dnsmasq does not run")?.signal(Signal::HUP)
    }

    /// It is restarted.
    fn upgrade(&mut self) -> Result<()> {
        self.service.as_mut().context("dnsmasq does not run")?.terminate(START)?;
        self.service = Some(self.start()?);
        Ok(())
    }

    fn crash(&mut self) -> Result<()> {
        self.service.as_mut().context("dnsmasq does not run")?.kill()?;
        thread::sleep(RESTART_DELAY);
        self.service = Some(self.start()?);
        Ok(())
    }

    fn pids(&self) -> Vec<u32> {
        self.service.iter().map(Service::pid).collect()
    }
}
