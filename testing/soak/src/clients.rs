//! The clients: one process in each place, and what they report.

use std::io::{BufRead, BufReader};
use std::net::Ipv4Addr;
use std::process::{Child, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use testbed::clients::{Operation, Task, TaskKind};
use testbed::{binaries, process};

use crate::field::{
    BYSTANDER, Field, HELD, OBSERVED, PORT, Place, UNLISTED, UPSTREAMS, lock, shim,
};
use crate::history::{ClientInfo, Record};
use crate::profile::Profile;

/// Operations take five seconds at most, twice that when a banner is missing.
const END_LIMIT: Duration = Duration::from_secs(30);
/// A name of the scripted resolver's, and one below which the mapped name is a longer one.
const UNRELATED: [&str; 2] = ["www.example.test", "artifactory.internal.company.net.example.test"];

/// Clients that run, and their records.
#[derive(Debug)]
pub(crate) struct Clients {
    infos: Vec<ClientInfo>,
    children: Vec<Child>,
    readers: Vec<JoinHandle<Result<()>>>,
    records: Arc<Mutex<Vec<Record>>>,
}

impl Clients {
    /// Starts a client in each place.
    pub(crate) fn start(field: &Field, profile: Profile) -> Result<Self> {
        let vip = field.vips.observed;
        let mut clients = Self {
            infos: Vec::new(),
            children: Vec::new(),
            readers: Vec::new(),
            records: Arc::default(),
        };
        for place in &field.clients {
            clients.add(place, tasks(place, profile, vip))?;
        }
        Ok(clients)
    }

    fn add(&mut self, place: &Place, tasks: Vec<Task>) -> Result<()> {
        let mut command = place.executor.command(binaries::client()?);
        command.arg("operations").stdin(Stdio::piped()).stdout(Stdio::piped());
        for task in &tasks {
            command.arg("--task").arg(task.to_string());
        }
        let mut child = process::spawn_lasting(command)?;
        let output = child.stdout.take().context("a client without output")?;
        let (client, records) = (self.infos.len(), Arc::clone(&self.records));
        self.readers.push(std::thread::spawn(move || {
            for line in BufReader::new(output).lines() {
                let operation: Operation = line.context("failed to read from a client")?.parse()?;
                lock(&records).push(Record { client, operation });
            }
            Ok(())
        }));
        self.children.push(child);
        self.infos.push(ClientInfo { name: place.name.to_owned(), tasks });
        Ok(())
    }

    /// What the clients do.
    pub(crate) fn infos(&self) -> &[ClientInfo] {
        &self.infos
    }

    /// Takes the records that have come since the last call.
    pub(crate) fn take(&self) -> Vec<Record> {
        std::mem::take(&mut *lock(&self.records))
    }

    /// Ends the clients, and waits for their last records.
    pub(crate) fn end(&mut self) -> Result<()> {
        for child in &mut self.children {
            drop(child.stdin.take());
        }
        for child in &mut self.children {
            match process::wait(child, END_LIMIT)? {
                Some(status) if status.success() => {}
                Some(status) => bail!("a client failed: {status}"),
                None => bail!("a client did not end within {END_LIMIT:?}"),
            }
        }
        for reader in self.readers.drain(..) {
            reader.join().map_err(|_| anyhow::anyhow!("a client's reader panicked"))??;
        }
        Ok(())
    }
}

impl Drop for Clients {
    fn drop(&mut self) {
        for child in &mut self.children {
            // It may have ended.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn tasks(place: &Place, profile: Profile, vip: Ipv4Addr) -> Vec<Task> {
    let (rates, resolver) = (profile.rates(), (UPSTREAMS[0], 53).into());
    let connect = |rate, kind, address: Ipv4Addr, port| Task {
        rate,
        kind,
        target: (address, port).into(),
        name: None,
        address: None,
    };
    let look_up = |rate, kind, target, name: &str, address| Task {
        rate,
        kind,
        target,
        name: Some(name.to_owned()),
        address,
    };
    let mut tasks = vec![
        connect(rates.connects, TaskKind::Connect, vip, PORT),
        connect(1, TaskKind::Held, vip, HELD),
        connect(rates.others, TaskKind::Denied, vip, UNLISTED),
        connect(rates.others, TaskKind::Direct, BYSTANDER, PORT),
    ];
    if profile.at_sockets() {
        // The shim answers in the resolver's name.
        tasks.push(look_up(rates.mapped, TaskKind::ShimUdp, resolver, OBSERVED, Some(vip)));
        tasks.push(look_up(rates.unrelated, TaskKind::ShimUdp, resolver, UNRELATED[0], None));
        return tasks;
    }
    tasks.extend([
        look_up(rates.mapped, TaskKind::Udp, resolver, OBSERVED, Some(vip)),
        look_up(rates.unrelated, TaskKind::Udp, resolver, UNRELATED[0], None),
        look_up(rates.others, TaskKind::Udp, resolver, UNRELATED[1], None),
        look_up(rates.others, TaskKind::Tcp, resolver, OBSERVED, None),
    ]);
    if place.attached {
        tasks.extend([
            look_up(rates.others, TaskKind::ShimUdp, shim(), OBSERVED, Some(vip)),
            look_up(rates.others, TaskKind::ShimTcp, shim(), OBSERVED, Some(vip)),
            look_up(rates.others, TaskKind::ShimUdp, shim(), UNRELATED[0], None),
            look_up(rates.others, TaskKind::ShimTcp, shim(), UNRELATED[0], None),
        ]);
    }
    tasks
}
