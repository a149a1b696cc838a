//! HAProxy as a TCP proxy beside the client, on the clients' core.

use std::{
    fmt::Write as _,
    fs,
    io::{Read as _, Write as _},
    net::{Ipv4Addr, SocketAddrV4, TcpStream},
    os::unix::net::UnixStream,
    path::PathBuf,
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use testbed::{Executor, Sandbox, packages, service::Service};

use super::{
    peer::{Peer, RESTART_DELAY, Routes},
    site::Site,
};
use crate::worker;

/// The first address that it listens at; route `n` has the `n`th after it.
const FIRST: Ipv4Addr = Ipv4Addr::new(127, 18, 0, 1);
const PORT: u16 = 18_000;
/// Longest time until it listens: with 50,000 routes, a second.
const START: Duration = Duration::from_secs(30);

/// A client with a proxy of its own.
pub(crate) struct Haproxy {
    port: u16,
    core: usize,
    routes: u32,
    service: Option<Service>,
    /// After an upgrade, it serves its open connections until they end.
    old: Option<Service>,
    executor: Executor,
}

impl Haproxy {
    /// A client without a proxy yet.
    pub(crate) fn new(site: &Site) -> Result<Self> {
        let executor = site.executor("haproxy")?;
        Ok(Self { port: site.port, core: site.core, routes: 0, service: None, old: None, executor })
    }

    fn file(&self, name: &str) -> PathBuf {
        self.executor.outside().home().join(name)
    }

    /// As its documentation advises: a map for many routes; for two backends, servers with health
    /// checks of the default interval, and the retry at another server.
    fn configuration(&self, routes: Routes) -> String {
        let (socket, map) = (self.file("haproxy.sock"), self.file("haproxy.map"));
        let port = self.port;
        let backend = match routes.backends {
            [_] => format!(
                "frontend peer\n  bind 0.0.0.0:{PORT}\n  \
                 tcp-request content set-dst dst,map_ip_ip({})\n  \
                 tcp-request content set-dst-port int({port})\n  default_backend peer\n\
                 backend peer\n  server destination 0.0.0.0:0\n",
                map.display()
            ),
            backends => backends.iter().enumerate().fold(
                format!("listen peer\n  bind 0.0.0.0:{PORT}\n  option redispatch\n"),
                |mut text, (number, backend)| {
                    let _ = writeln!(text, "  server s{number} {backend}:{port} check");
                    text
                },
            ),
        };
        format!(
            "global\n  maxconn 9000\n  nbthread 1\n  stats socket {} mode 600 level admin \
             expose-fd listeners\ndefaults\n  mode tcp\n  timeout connect 3s\n  \
             timeout client 600s\n  timeout server 600s\n{backend}",
            socket.display()
        )
    }

    /// Starts a process that replaces another one, if there is one, without losses: it gets the
    /// listening sockets from the other one.
    fn start(&self, replaced: Option<u32>) -> Result<Service> {
        let sandbox = self.executor.outside();
        let mut command = sandbox.command(packages::path_of("haproxy")?);
        command.arg("-db").arg("-f").arg(self.file("haproxy.cfg"));
        if let Some(replaced) = replaced {
            command.arg("-x").arg(self.file("haproxy.sock"));
            command.arg("-sf").arg(replaced.to_string());
        }
        worker::pin(&mut command, self.core);
        let mut service = Service::start("haproxy", &self.file("haproxy.log"), command)?;
        service.wait_ready(START, || {
            sandbox.namespaces().run(|| {
                let address = SocketAddrV4::new(FIRST, PORT).into();
                TcpStream::connect_timeout(&address, Duration::from_millis(500)).is_ok()
            })
        })?;
        Ok(service)
    }

    /// Sends a line to its runtime API; returns the answer.
    fn command(&self, line: &str) -> Result<String> {
        let path = self.file("haproxy.sock");
        let mut socket = UnixStream::connect(&path)
            .with_context(|| format!("failed to connect to {}", path.display()))?;
        writeln!(socket, "{line}").context("failed to send a command to HAProxy")?;
        let mut answer = String::new();
        socket.read_to_string(&mut answer).context("failed to read HAProxy's answer")?;
        Ok(answer)
    }
}

fn address(number: u32) -> Ipv4Addr {
    (FIRST.to_bits() + number).into()
}

impl Peer for Haproxy {
    fn label(&self) -> &'static str {
        "HAProxy"
    }

    fn sandbox(&self) -> &Sandbox {
        self.executor.sandbox()
    }

    /// A restart, since a map is read at the start.
    fn load(&mut self, routes: Routes) -> Result<()> {
        self.service = None;
        self.routes = routes.count;
        let map = (0..routes.count).fold(String::new(), |mut text, number| {
            let _ = writeln!(text, "{} {}", address(number), routes.backends[0]);
            text
        });
        for (name, text) in [("haproxy.map", map), ("haproxy.cfg", self.configuration(routes))] {
            let path = self.file(name);
            fs::write(&path, text)
                .with_context(|| format!("failed to write {}", path.display()))?;
        }
        self.service = Some(self.start(None)?);
        Ok(())
    }

    fn spread(&self) -> u32 {
        self.routes
    }

    fn first_target(&self) -> SocketAddrV4 {
        SocketAddrV4::new(FIRST, PORT)
    }

    fn change(&mut self, number: u32, backend: Ipv4Addr) -> Result<()> {
        let (map, key) = (self.file("haproxy.map"), address(number));
        let answer = self.command(&format!("set map {} {key} {backend}", map.display()))?;
        ensure!(answer.trim().is_empty(), "HAProxy did not change its map: {answer}");
        Ok(())
    }

    fn upgrade(&mut self) -> Result<()> {
        let replaced = self.pids().first().copied();
        let new = self.start(replaced)?;
        self.old = self.service.replace(new);
        Ok(())
    }

    fn crash(&mut self) -> Result<()> {
        self.service.as_mut().context("HAProxy does not run")?.kill()?;
        thread::sleep(RESTART_DELAY);
        self.service = Some(self.start(None)?);
        Ok(())
    }

    fn pids(&self) -> Vec<u32> {
        self.service.iter().map(Service::pid).collect()
    }
}
