//! The customer's public DNS server: nsd, authoritative for the public name and for an unrelated
//! zone.

use std::fmt::Write as _;
use std::fs;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use rustix::process::Signal;

use crate::isolation::sandbox::Sandbox;
use crate::service::Service;
use crate::topology::{DNS_ADDRESS, PUBLIC_NAME, UNRELATED_ADDRESS};
use crate::{packages, process};

/// Time to live of every record, in seconds; a test may set another one for the public name.
const TTL: u32 = 2;
/// Longest time until nsd answers, or has reloaded a zone.
const LIMIT: Duration = Duration::from_secs(60);
/// The marker of a server that does not answer.
const NO_ANSWER: &str = "no answer";

/// A running nsd.
#[derive(Debug)]
pub struct DnsServer {
    service: Service,
    sandbox: Sandbox,
    zone: PathBuf,
    ttl: u32,
}

impl DnsServer {
    pub(crate) fn start(sandbox: &Sandbox, addresses: &[Ipv4Addr]) -> Result<Self> {
        let folder = sandbox.folder("dns")?;
        let (zone, config) = (folder.join("public.company.net.zone"), folder.join("nsd.conf"));
        write(&zone, &public_zone(addresses, TTL))?;
        write(&folder.join("example.test.zone"), &unrelated_zone())?;
        write(&config, &configuration(&folder))?;
        let service = spawn(sandbox, &folder)?;
        let mut server = Self { service, sandbox: sandbox.clone(), zone, ttl: TTL };
        let sandbox = sandbox.clone();
        server.service.wait_ready(LIMIT, || Ok(ask(&sandbox)? == sorted(addresses)))?;
        Ok(server)
    }

    /// Makes the public name resolve to `addresses` (none: an empty answer). Returns once the
    /// server does.
    pub fn set_addresses(&mut self, addresses: &[Ipv4Addr]) -> Result<()> {
        write(&self.zone, &public_zone(addresses, self.ttl))?;
        self.service.signal(Signal::HUP)?;
        let (sandbox, wanted) = (self.sandbox.clone(), sorted(addresses));
        self.service.wait_ready(LIMIT, || Ok(ask(&sandbox)? == wanted))
    }

    /// Starts it again after [`DnsServer::stop`], and waits until it answers.
    pub fn start_again(&mut self) -> Result<()> {
        self.service = spawn(&self.sandbox, &self.sandbox.folder("dns")?)?;
        let sandbox = self.sandbox.clone();
        self.service.wait_ready(LIMIT, || Ok(ask(&sandbox)? != [NO_ANSWER]))
    }

    /// Sends a signal, such as SIGSTOP.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        self.service.signal(signal)
    }

    /// Sets the public name's time to live in seconds, from the next change of its addresses on.
    pub fn set_ttl(&mut self, ttl: u32) {
        self.ttl = ttl;
    }

    /// Stops it: resolvers get no answer from now on.
    pub fn stop(&mut self) -> Result<()> {
        self.service.kill()
    }

    /// Its log.
    pub fn log(&self) -> String {
        self.service.log()
    }
}

fn spawn(sandbox: &Sandbox, folder: &Path) -> Result<Service> {
    let mut command = sandbox.command(packages::path_of("nsd")?);
    command.arg("-d").arg("-c").arg(folder.join("nsd.conf"));
    Service::start("nsd", &folder.join("nsd.log"), command)
}

/// Switches off response rate limiting, the default of Debian's build, which would slow the tests.
fn configuration(folder: &Path) -> String {
    let folder = folder.display();
    format!(
        "server:\n\
         \u{20} ip-address: {DNS_ADDRESS}\n\
         \u{20} server-count: 1\n\
         \u{20} username: \"\"\n\
         \u{20} zonesdir: \"{folder}\"\n\
         \u{20} database: \"\"\n\
         \u{20} pidfile: \"\"\n\
         \u{20} xfrdfile: \"\"\n\
         \u{20} xfrdir: \"{folder}\"\n\
         \u{20} zonelistfile: \"{folder}/zone.list\"\n\
         \u{20} rrl-ratelimit: 0\n\
         \u{20} rrl-whitelist-ratelimit: 0\n\
         remote-control:\n\
         \u{20} control-enable: no\n\
         zone:\n\
         \u{20} name: public.company.net\n\
         \u{20} zonefile: public.company.net.zone\n\
         zone:\n\
         \u{20} name: example.test\n\
         \u{20} zonefile: example.test.zone\n"
    )
}

fn public_zone(addresses: &[Ipv4Addr], ttl: u32) -> String {
    let mut zone = head("public.company.net");
    for address in addresses {
        let _ = writeln!(zone, "artifactory {ttl} IN A {address}");
    }
    // The name always exists, so that an empty set is NODATA and not NXDOMAIN.
    zone.push_str("artifactory IN TXT \"load balancers\"\n");
    zone
}

fn unrelated_zone() -> String {
    format!(
        "{}www IN A {UNRELATED_ADDRESS}\nwww IN TXT \"unrelated\"\nmail IN MX 10 www\n",
        head("example.test")
    )
}

fn head(origin: &str) -> String {
    format!(
        "$ORIGIN {origin}.\n$TTL {TTL}\n@ IN SOA ns hostmaster 1 3600 600 86400 {TTL}\n@ IN NS \
            ns\nns IN A {DNS_ADDRESS}\n"
    )
}

fn write(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text).with_context(|| format!("failed to write {}", path.display()))
}

fn sorted(addresses: &[Ipv4Addr]) -> Vec<String> {
    let mut texts: Vec<String> = addresses.iter().map(ToString::to_string).collect();
    texts.sort();
    texts
}

/// The server's answer for the public name, or a marker when there is none.
fn ask(sandbox: &Sandbox) -> Result<Vec<String>> {
    let mut dig = sandbox.command(packages::path_of("dig")?);
    dig.args(["+short", "+tries=1", "+time=1", &format!("@{DNS_ADDRESS}"), PUBLIC_NAME, "A"]);
    let answer = process::finish(dig, Duration::from_secs(5))?;
    if !answer.status.success() {
        return Ok(vec![NO_ANSWER.to_owned()]);
    }
    let mut lines: Vec<String> = answer.stdout.lines().map(str::to_owned).collect();
    lines.sort();
    Ok(lines)
}
