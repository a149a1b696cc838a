//! The fixture: a node that masquerades, guests behind veth pairs, and the customer's server.

use std::{
    net::{Ipv4Addr, SocketAddrV4},
    os::fd::{AsFd as _, OwnedFd},
    path::PathBuf,
    time::Duration,
};

use anyhow::{Context as _, Result};
use testbed::{Executor, ExecutorOptions, Rig, packages, process, topology::LOAD_BALANCERS};

use crate::{
    bpf,
    packets::{Datapath, Setup},
    worker::Worker,
};

/// The VIP of the route: the pool's address with the index [`INDEX`].
pub(super) const VIP: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 1);
const INDEX: u32 = 1;
/// Where the maps are pinned, on the rig's node.
const BPFFS: &str = "/sys/fs/bpf/guests";
/// Setting a node up takes milliseconds.
const SETUP_LIMIT: Duration = Duration::from_secs(60);

/// Who connects, and to what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Variant {
    /// No program at the guest's interface.
    Bare,
    /// Programs that return at once at the guest's interface: the kernel's price of the hook.
    Empty,
    /// The programs at the guest's interface; it connects to the server itself.
    NotOurs,
    /// The same guest connects to the VIP.
    Redirected,
    /// No program; nftables translates the VIP.
    Dnat,
    /// An executor with the cgroup datapath, which connects to the VIP.
    Cgroup,
    /// The same with the programs at its interface, for names only.
    CgroupAndNames,
    /// The same with programs that return at once.
    CgroupAndEmpty,
}

/// Everything that runs during the measurements. Fields are dropped in this order.
pub(super) struct Fixture {
    bare: Worker,
    ours: Worker,
    dnat: Worker,
    cgroup: Worker,
    cgroup_and_names: Worker,
    cgroup_and_empty: Worker,
    empty: Worker,
    server: SocketAddrV4,
    _server: Worker,
    _datapath: Box<dyn Datapath>,
    _links: Vec<OwnedFd>,
    executors: [Executor; 7],
    rig: Rig,
}

/// How the datapath is attached on a node.
pub type Attach<'a> = dyn Fn(&Rig, &Setup) -> Result<Box<dyn Datapath>> + 'a;

impl Fixture {
    /// Starts everything on `core`.
    pub(super) fn new(attach: &Attach<'_>, core: usize) -> Result<Self> {
        let rig = Rig::new()?;
        // As in the benchmark of connects: TIME_WAIT sockets would slow the customer down.
        let settings = "sysctl -qw net.ipv4.tcp_max_tw_buckets=1";
        rig.customer.sandbox().run(settings, SETUP_LIMIT)?.success()?;
        let names = ["bare", "ours", "dnat", "cgroup", "both", "cgroupempty", "empty"];
        let [bare, ours, dnat, cgroup, both, cgroup_and_empty, empty] =
            names.map(|name| rig.executor(ExecutorOptions::pod(name)));
        let executors = [bare?, ours?, dnat?, cgroup?, both?, cgroup_and_empty?, empty?];
        let (server, port) = Worker::server(rig.customer.sandbox(), core)?;
        let target = SocketAddrV4::new(LOAD_BALANCERS[0], port);
        translate(&rig, target)?;
        let interfaces = executors
            .iter()
            .map(|executor| peer_of_eth0(&rig, executor))
            .collect::<Result<Vec<_>>>()?;
        let setup = Setup {
            bpffs: PathBuf::from(BPFFS),
            guests: vec![interfaces[1].clone()],
            answered: vec![interfaces[4].clone()],
            cgroups: names[3..6].iter().map(|name| format!("kubepods/pod{name}")).collect(),
            routes: vec![(INDEX, vec![LOAD_BALANCERS[0].into()])],
            ..Setup::default()
        };
        let datapath = attach(&rig, &setup)?;
        let mut links = Vec::new();
        for executor in &executors[5..] {
            links.extend(at(&rig, executor, attach_empty)?);
        }
        let client = |number: usize| Worker::client(executors[number].sandbox(), core);
        Ok(Self {
            bare: client(0)?,
            ours: client(1)?,
            dnat: client(2)?,
            cgroup: client(3)?,
            cgroup_and_names: client(4)?,
            cgroup_and_empty: client(5)?,
            empty: client(6)?,
            server: target,
            _server: server,
            _datapath: datapath,
            _links: links,
            executors,
            rig,
        })
    }

    /// The client of a variant, and its target.
    pub(super) fn client(&mut self, variant: Variant) -> (&mut Worker, SocketAddrV4) {
        let (server, vip) = (self.server, SocketAddrV4::new(VIP, self.server.port()));
        match variant {
            Variant::Bare => (&mut self.bare, server),
            Variant::Empty => (&mut self.empty, server),
            Variant::NotOurs => (&mut self.ours, server),
            Variant::Redirected => (&mut self.ours, vip),
            Variant::Dnat => (&mut self.dnat, vip),
            Variant::Cgroup => (&mut self.cgroup, vip),
            Variant::CgroupAndNames => (&mut self.cgroup_and_names, vip),
            Variant::CgroupAndEmpty => (&mut self.cgroup_and_empty, vip),
        }
    }

    /// Runs `work` in the node's namespaces with the index of the guest's interface.
    pub(super) fn at_the_guest<T: Send>(
        &self,
        work: impl FnOnce(u32) -> Result<T> + Send,
    ) -> Result<T> {
        at(&self.rig, &self.executors[1], work)
    }
}

/// Runs `work` in the node's namespaces with the index of an executor's interface there.
fn at<T: Send>(
    rig: &Rig,
    executor: &Executor,
    work: impl FnOnce(u32) -> Result<T> + Send,
) -> Result<T> {
    let name = peer_of_eth0(rig, executor)?;
    let link = format!("ip -o link show dev {name}");
    let link = rig.node.sandbox().run(&link, SETUP_LIMIT)?.success()?.stdout;
    let index = link.split(':').next().and_then(|index| index.parse().ok());
    let index = index.context("the link has no index")?;
    rig.node.sandbox().namespaces().run(|| work(index))?
}

/// Attaches programs that return at once to both directions of an interface.
fn attach_empty(interface: u32) -> Result<[OwnedFd; 2]> {
    let program = bpf::empty_classifier()?;
    let attach = |hook| bpf::attach_classifier(program.as_fd(), interface, hook);
    Ok([attach(bpf::TCX_INGRESS)?, attach(bpf::TCX_EGRESS)?])
}

/// The node's end of an executor's veth pair.
fn peer_of_eth0(rig: &Rig, executor: &Executor) -> Result<String> {
    let address = executor.run("ip -4 -o addr show dev eth0", SETUP_LIMIT)?.success()?.stdout;
    let network = address
        .split_ascii_whitespace()
        .find_map(|word| word.strip_suffix(".2/24"))
        .context("eth0 has no address")?
        .to_owned();
    let links = rig.node.sandbox().run("ip -4 -o addr show", SETUP_LIMIT)?.success()?.stdout;
    let line = links
        .lines()
        .find(|line| line.contains(&format!(" {network}.1/24 ")))
        .context("the node has no such network")?;
    line.split_ascii_whitespace().nth(1).map(str::to_owned).context("the link has no name")
}

/// Translates connects of the third guest to the VIP, as the service proxy of a node does.
fn translate(rig: &Rig, server: SocketAddrV4) -> Result<()> {
    let rules = format!(
        "table ip peer {{ chain prerouting {{ type nat hook prerouting priority -100; ip daddr \
            {VIP} tcp dport {} dnat to {server}\n }}\n }}\n",
        server.port()
    );
    let mut nft = rig.node.sandbox().command(packages::path_of("nft")?);
    nft.args(["-f", "-"]);
    process::finish_with_input(nft, rules.as_bytes(), SETUP_LIMIT)?
        .success()
        .context("failed to set up nftables")?;
    Ok(())
}
