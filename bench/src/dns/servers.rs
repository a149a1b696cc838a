//! The servers that take turns: the shim, unbound, dnsmasq; and an unbound as their upstream.

use std::{
    fs,
    net::{SocketAddr, UdpSocket},
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};

use anyhow::{Context as _, Result};

use testbed::{dnsmasq, packages, process};

use crate::lookup::query;

/// The redirected name, and the zone of the upstream.
pub(super) const LOCAL: &str = "artifactory.internal.company.net";
pub(super) const ZONE: &str = "elsewhere.example";
/// The number of names of the upstream, more than there are queries in flight.
pub(super) const NAMES: u32 = 20_000;
/// Longest time until a server answers.
const START: Duration = Duration::from_secs(10);

/// Starts servers, each on its core.
pub(super) struct Launcher<'a> {
    /// Scheduling priority of the servers and of dnsperf.
    pub(super) nice: i32,
    /// The folder for the servers' files.
    pub(super) folder: &'a Path,
}

/// A server that runs while this value lives.
pub(super) struct Server {
    pub(super) name: &'static str,
    pub(super) address: SocketAddr,
    pub(super) child: Child,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Launcher<'_> {
    /// A command on one core, with the chosen priority.
    pub(super) fn pinned(&self, core: u32, program: &Path) -> Result<Command> {
        let mut command = packages::tool("nice")?;
        command
            .arg(format!("--adjustment={}", self.nice))
            .arg("taskset")
            .arg("-c")
            .arg(core.to_string())
            .arg(program);
        process::die_with_parent(&mut command);
        Ok(command)
    }

    fn start(
        name: &'static str,
        address: SocketAddr,
        mut command: Command,
        name_to_query: &str,
    ) -> Result<Server> {
        let child =
            command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        let server = Server {
            name,
            address,
            child: child.with_context(|| format!("failed to start {name}"))?,
        };
        let query = query(1, name_to_query);
        process::until(&format!("{name} answers"), START, || {
            let socket = client(address)?;
            Ok(socket.send(&query).and_then(|_| socket.recv(&mut [0; 512])).is_ok())
        })?;
        Ok(server)
    }

    pub(super) fn unbound(&self, name: &'static str, zone: &str, core: u32) -> Result<Server> {
        let address = testbed::unused_address();
        let config = self.folder.join(format!("{name}.conf"));
        let text = format!(
            "server:\n interface: 127.0.0.1\n port: {}\n do-daemonize: no\n chroot: \"\"\n \
             username: \"\"\n directory: \"{}\"\n pidfile: \"\"\n use-syslog: no\n verbosity: 0\n \
             num-threads: 1\n module-config: \"iterator\"\n so-rcvbuf: 1m\n {zone}\n\
             remote-control:\n control-enable: no\n",
            address.port(),
            self.folder.display()
        );
        fs::write(&config, text).context("failed to write unbound's configuration")?;
        let mut command = self.pinned(core, &packages::path_of("unbound")?)?;
        command.arg("-d").arg("-c").arg(config);
        Self::start(name, address, command, if name == "upstream" { ZONE } else { LOCAL })
    }

    pub(super) fn dnsmasq(&self, upstream: SocketAddr) -> Result<Server> {
        let address = testbed::unused_address();
        let mut command = self.pinned(1, &packages::path_of("dnsmasq")?)?;
        command
            .args(dnsmasq::OPTIONS)
            .args(["--listen-address=127.0.0.1", "--bind-interfaces"])
            .args(["--cache-size=0", "--dns-forward-max=4096"])
            .arg(format!("--port={}", address.port()));
        command
            .arg(format!("--server=127.0.0.1#{}", upstream.port()))
            .arg(format!("--address=/{LOCAL}/198.18.0.1"));
        Self::start("dnsmasq", address, command, LOCAL)
    }

    pub(super) fn shim(&self, program: &Path, upstream: SocketAddr) -> Result<Server> {
        let address = testbed::unused_address();
        let mut command = self.pinned(1, program)?;
        command.arg(address.to_string()).arg(upstream.to_string()).arg(LOCAL);
        Self::start("redirector", address, command, LOCAL)
    }
}

pub(super) fn client(server: SocketAddr) -> Result<UdpSocket> {
    let socket = UdpSocket::bind("127.0.0.1:0").context("failed to bind a client's socket")?;
    socket.connect(server).context("failed to connect a client's socket")?;
    socket
        .set_read_timeout(Some(Duration::from_millis(500)))
        .context("failed to set a time-out")?;
    Ok(socket)
}
