//! Attaches the packet datapath without an agent: the benchmarks of guests and of DNS run it in the
//! network namespace of the interfaces.
//!
//! The first line of standard input is a [`Setup`] as JSON, which is answered with `ready`. Then
//! each line [`FILL`] publishes the names of a full pool, against the clock. Everything is detached
//! at the end of the input.

use std::{
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    time::Instant,
};

use anyhow::{Context as _, bail, ensure};
use redirector::{
    config::CgroupSpec,
    datapath::{
        self, Datapath, InterfaceRole, InterfaceTarget, NameCgroup, NameChange, PublishedName,
        Settings,
    },
    plan::{Change, PlannedRoute},
    pool::Pool,
};
use redirector_bench::packets::{
    EXACT, FILL, NameTimes, Setup, WILDCARDS, exact_name, wildcard_suffix,
};

/// The TTL of answers, in seconds.
const TTL: u32 = 30;
/// Single changes of names.
const SINGLES: u32 = 2000;

fn main() -> anyhow::Result<()> {
    let mut lines = std::io::stdin().lines();
    let setup = lines.next().context("no setup on standard input")??;
    let mut session = Session::open(&serde_json::from_str(&setup)?)?;
    println!("ready");
    for line in lines {
        match line?.as_str() {
            FILL => println!("{}", serde_json::to_string(&session.fill()?)?),
            other => bail!("`{other}` is no command"),
        }
    }
    Ok(())
}

/// The attached datapath.
pub(crate) struct Session {
    /// `None` once it is detached.
    datapath: Option<Datapath>,
    bpffs: PathBuf,
}

impl Session {
    /// Loads and attaches, in this thread's network namespace.
    pub(crate) fn open(setup: &Setup) -> anyhow::Result<Self> {
        let pool = Pool::new("198.18.0.0/16".parse()?, None, true).map_err(|(_, error)| error)?;
        let settings = Settings { bpffs: setup.bpffs.clone(), pool, debug_log: false };
        let datapath = Some(Datapath::open(&settings)?);
        let mut session = Self { datapath, bpffs: setup.bpffs.clone() };
        session.set_up(setup)?;
        Ok(session)
    }

    fn datapath(&mut self) -> &mut Datapath {
        self.datapath.as_mut().expect("it is detached only when it is dropped")
    }

    fn set_up(&mut self, setup: &Setup) -> anyhow::Result<()> {
        let datapath = self.datapath();
        let routes = setup.routes.iter().map(|(index, backends)| Change::Put {
            index: *index,
            route: PlannedRoute { backends: Some(backends.clone()), ..PlannedRoute::default() },
        });
        datapath.apply(&routes.collect::<Vec<_>>())?;
        let names = setup.names.iter().map(|(name, index)| put(name, *index));
        datapath.publish_names(&names.collect::<anyhow::Result<Vec<_>>>()?)?;
        if !setup.cgroups.is_empty() {
            let specs: Vec<_> = setup.cgroups.iter().cloned().map(CgroupSpec::Pattern).collect();
            let attached = datapath.attach(&datapath::cgroups(&specs)?)?;
            ensure!(attached.len() == specs.len(), "attached to {attached:?}");
        }
        let cgroups = setup.name_cgroups.iter().map(|(path, level)| name_cgroup(path, *level));
        datapath.set_name_cgroups(&cgroups.collect::<anyhow::Result<Vec<_>>>()?)?;
        datapath.set_name_settings(TTL, true)?;
        let failures = datapath.attach_interfaces(&targets(setup)?)?;
        ensure!(failures.is_empty(), "{failures:?}");
        Ok(())
    }

    /// Publishes the names of a full pool, and changes some of them.
    pub(crate) fn fill(&mut self) -> anyhow::Result<NameTimes> {
        let exact = (0..EXACT).map(|number| put(&exact_name(number), number));
        let wildcards =
            (0..WILDCARDS).map(|number| put(&format!("*.{}", wildcard_suffix(number)), number));
        let changes = exact.chain(wildcards).collect::<anyhow::Result<Vec<_>>>()?;
        let began = Instant::now();
        self.datapath().publish_names(&changes)?;
        let mut times = NameTimes { filled: vec![micros(began)], one: Vec::new() };
        for number in 0..SINGLES {
            // Spread over the pool, so that no cache is warmer than an agent's would be.
            let index = number.wrapping_mul(2_654_435_761) % EXACT;
            let change = [put(&exact_name(index), EXACT - 1 - index)?];
            let began = Instant::now();
            self.datapath().publish_names(&change)?;
            times.one.push(micros(began));
        }
        Ok(times)
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        drop(self.datapath.take());
        if let Err(error) = datapath::unload(&self.bpffs) {
            eprintln!("failed to unload: {error}");
        }
    }
}

fn put(name: &str, index: u32) -> anyhow::Result<NameChange> {
    Ok(NameChange::Put { source: name.parse()?, name: PublishedName::live(index) })
}

fn name_cgroup(path: &Path, level: u32) -> anyhow::Result<NameCgroup> {
    let id = std::fs::metadata(path)
        .with_context(|| format!("failed to read {}", path.display()))?
        .ino();
    Ok(NameCgroup { id, level: Some(level) })
}

fn targets(setup: &Setup) -> anyhow::Result<Vec<InterfaceTarget>> {
    let target = |name: &String, role, redirects| -> anyhow::Result<InterfaceTarget> {
        Ok(InterfaceTarget { index: interface_index(name)?, name: name.clone(), role, redirects })
    };
    let guests = setup.guests.iter().map(|name| target(name, InterfaceRole::Guest, true));
    let answered = setup.answered.iter().map(|name| target(name, InterfaceRole::Guest, false));
    let hosts = setup.hosts.iter().map(|name| target(name, InterfaceRole::Host, false));
    guests.chain(answered).chain(hosts).collect()
}

fn interface_index(name: &str) -> anyhow::Result<u32> {
    let socket = rustix::net::socket(
        rustix::net::AddressFamily::INET,
        rustix::net::SocketType::DGRAM,
        None,
    )?;
    rustix::net::netdevice::name_to_index(&socket, name)
        .with_context(|| format!("there is no interface {name}"))
}

fn micros(began: Instant) -> f64 {
    began.elapsed().as_nanos() as f64 / 1000.0
}
